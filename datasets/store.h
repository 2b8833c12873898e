/* SPDX-License-Identifier: Apache-2.0 */
/* The record store: one split of a dataset in one LMDB file (MDB_NOSUBDIR), immutable once
 * published.
 *
 * Keys are 4-byte integers (MDB_INTEGERKEY), appended in order: 0..N-1 are sample ids, UINT32_MAX
 * is the meta record (protobuf, datasets/store.proto), written last: a store without it is
 * incomplete and refused. A sample record is a fixed 48-byte header, its payload (image, then side
 * index) and 64 bytes of padding; docs/format.md gives every byte. The store is written under
 * FILE.partial and renamed when complete. Ids follow (class index, file-name bytes), whatever the
 * order of the source. Fingerprint = XXH3-128 over N (u32), K (u32), the K class ids (u32 length,
 * bytes each), and per id (label u32, encoding u8, XXH3-128 of the payload's image bytes), all
 * little-endian: side index and provenance are left out. */
#ifndef DATASETS_STORE_H
#define DATASETS_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/hash.h"

enum {
    STORE_PADDING_BYTES = 64,          /* readable bytes behind image and index, for vector loads */
    STORE_RECORD_BYTES_MAX = 64 << 20, /* header, payload and padding */
    STORE_CLASSES_MAX = 1 << 20,
};

enum store_encoding {
    STORE_JPEG = 1, /* the file's bytes, untouched (JPEG, or a PNG that calls itself JPEG) */
    STORE_RAW = 2,  /* planar uint8, channels x height x width */
};

struct store_meta {
    uint32_t sample_count;
    uint32_t class_count;
    uint32_t channels; /* 1 or 3: what a decoded sample has */
    enum store_encoding encoding;
    struct hash128 fingerprint;
    const char *const *class_ids;   /* [class_count], owned by the store; index = label */
    const char *const *class_names; /* [class_count], "" when unknown */
    const char *split;              /* as given at packing, "" otherwise */
    const char *packed_by;          /* how it was packed: program version and options */
    uint64_t indexed;               /* samples that carry a side index */
    const uint32_t *class_samples;  /* [class_count]: samples of each class; ids follow labels, so
                                       class 0 has ids 0 .. class_samples[0] - 1 and so on */
};

/* A record, pointing into the map: valid until store_close. At least STORE_PADDING_BYTES bytes
 * behind the image and behind the index may be read (their content never matters). */
struct store_record {
    uint32_t id, label;
    uint32_t width, height; /* of the image, px */
    enum store_encoding encoding;
    uint32_t channels;
    const uint8_t *image; /* JPEG bytes or raw planes */
    size_t image_bytes;
    const uint8_t *index; /* side index of a JPEG, NULL when there is none */
    size_t index_bytes;
};

struct store;

/* Opens a complete store read-only. ERR_IO: missing, not a file; ERR_DATA: another kind of file,
 * incomplete (or called *.partial), truncated (size against the map) or damaged meta. One FILE
 * opened under several names is opened once (device, inode) and counted. Thread-safe afterwards. */
int store_open(struct store **out, const char *path);
void store_close(struct store *store); /* accepts NULL */

const struct store_meta *store_meta(const struct store *store);
const char *store_path(const struct store *store);
uint64_t store_tag(const struct store *store); /* store_writer_set_tag's */

/* What to call a class: its name, or its id where it has none; NULL: no such label. */
const char *store_class_name(const struct store_meta *meta, uint32_t label);

/* The id of the class that sample id < sample_count is of, without reading it. */
const char *store_class_of(const struct store *store, uint32_t id);

/* Reads record id and verifies its checksum, its own id and the store's tag. ERR_DATA names store,
 * id and class; the caller substitutes, masks or fails. ERR_ARG: no such id. Any
 * thread, no locks. */
int store_read(struct store_record *record, const struct store *store, uint32_t id);

/* Nobody may touch a store's file while it is in use. ERR_IO, naming it: its size or time of change
 * is no longer what it was at opening; with `name`, also: another file has its name by now. What
 * was read before a check that passes was right. A file that was only removed is no error. */
int store_check_unchanged(const struct store *store, bool name);

/* Of a store larger than memory, a page cache that is asked for everything keeps nothing for long.
 * It is to hold the file's first `bytes`; records behind them go past it when they are read ahead
 * (datasets/ahead.h) and are not small. To be called before others use the store. ERR_IO: the file
 * system has no such reads; everything goes through the page cache then, as without this call. */
int store_limit_cache(struct store *store, uint64_t bytes);
uint64_t store_file_bytes(const struct store *store);

/* Tells the kernel that these records will be read soon (MADV_WILLNEED). */
void store_announce(const struct store *store, const uint32_t *ids, size_t count);

/* Writing: one writer, ids appended from 0. */
struct store_writer;

struct store_sample {
    uint32_t label, width, height, channels;
    enum store_encoding encoding;
    const uint8_t *image;
    size_t image_bytes;
    const uint8_t *index; /* NULL: none */
    size_t index_bytes;
};

/* How far an earlier writer came. */
struct store_progress {
    uint64_t next;  /* as store_writer_note said; UINT64_MAX: everything was written */
    uint32_t count; /* samples that are there */
    uint64_t image_bytes, indexed; /* of them */
    const uint32_t *skipped;       /* [skipped_count], owned by the writer */
    uint32_t skipped_count;
};

/* Creates path.partial, growing as needed. tag: every record carries it, so that a page of another
 * store is noticed: a hash of what is known beforehand, such as the names and sizes of all files.
 * Refuses (ERR_ARG) when path or the partial file exists or path is called *.partial itself, and
 * (ERR_IO) when another process is writing it. */
int store_writer_open(struct store_writer **out, const char *path, uint64_t tag);

/* Goes on with path.partial after a kill, having verified all that is in it; the same as
 * store_writer_open when there is none or nothing in it. ERR_ARG: it has another tag; ERR_DATA: it
 * is damaged (a crash of the machine); ERR_STOPPED. */
int store_writer_resume(struct store_writer **out, struct store_progress *progress,
                        const char *path, uint64_t tag);

/* Place i of the source is done with, written or left out, and all before it are: an interrupted
 * writer goes on behind it. Every i must be noted, in order. ERR_NOMEM. */
int store_writer_note(struct store_writer *writer, uint32_t i, bool skipped);

/* Appends the next id. ERR_ARG: a sample that a reader would refuse (size, geometry); ERR_IO: disk
 * full and the like. */
int store_writer_add(struct store_writer *writer, const struct store_sample *sample);

/* Writes the meta record (sample_count, fingerprint, indexed and class_samples are filled in here),
 * syncs, renames and frees the writer. After an error the writer is as before: discard or keep it.
 * class_names, split and packed_by may be NULL, fingerprint too. */
int store_writer_publish(struct store_writer *writer, const struct store_meta *meta,
                         struct hash128 *fingerprint);
void store_writer_discard(struct store_writer *writer); /* removes the partial file; accepts NULL */

/* Leaves the partial file for store_writer_resume and frees the writer. Returns how many samples
 * are in it; with none it is removed. Accepts NULL. */
uint32_t store_writer_keep(struct store_writer *writer);

#endif
