/* SPDX-License-Identifier: Apache-2.0 */
/* Where samples come from: one file per layout (source_folder.c, ...), all behind the same table of
 * operations.
 *
 * Opening a source lists it: every sample gets an entry (class, name, where its bytes are), and the
 * entries are sorted by (class index, name bytes), classes by the bytes of their ids; so the order
 * that folders or archives happen to have never shows. Bytes are read afterwards, in any order and
 * from any thread. Where bytes cannot be reached again (compressed input), opening copies them to a
 * spill file (datasets/spill.h). Memory is bounded by the list: about 40 bytes a sample and its
 * name. */
#ifndef DATASETS_SOURCE_H
#define DATASETS_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct spill;

struct source_entry {
    uint32_t label; /* position in class_ids, once sorted */
    bool spilled;   /* offset is in the spill file, not in the input */
    size_t name;    /* offset of the name in the list's text */
    uint64_t offset, bytes;
};

/* What opening fills, with list_* (datasets/source_list.c). */
struct source_list {
    char **class_ids;
    size_t class_count, class_room;
    struct source_entry *entries;
    size_t count, room;
    char *text; /* all names, each with its NUL */
    size_t text_bytes, text_room;
};

struct source_request {
    const char *const *inputs;
    size_t input_count;
    const char *split;    /* NULL: not said */
    const char *out;      /* a spill file goes beside it */
    bool allow_empty;     /* classes without samples are kept instead of refused */
    size_t least_classes; /* idx: at least so many classes (from --class-names) */
};

/* Reused from one read to the next; starts zeroed, ends with source_buffer_free. */
struct source_buffer {
    uint8_t *data;
    size_t bytes, room;
};

struct source;

struct source_ops {
    const char *name;
    int (*open)(struct source *source, const struct source_request *request);
    /* Reads an entry's bytes into buffer, which has room for them. Any thread. */
    int (*read)(const struct source *source, const struct source_entry *entry,
                struct source_buffer *buffer);
};

struct source {
    const struct source_ops *ops;
    struct source_list list;
    char *path; /* of the input */
    int fd;     /* of the input, -1 where there is none to keep */
    struct spill *spill;
    /* Raw sources: the geometry of every sample; 0: entries are files to be decoded. */
    uint32_t width, height, channels;
};

/* ERR_ARG: no such layout, inputs that make no sense; ERR_UNSUPPORTED: a layout of a later version;
 * ERR_IO, ERR_DATA: with what is wrong in the input. */
int source_open(struct source **out, const char *layout, const struct source_request *request);
void source_close(struct source *source); /* accepts NULL */

/* Reads entry i (0 .. list.count-1). ERR_IO, ERR_DATA: this entry cannot be read. Any thread. */
int source_read(const struct source *source, size_t i, struct source_buffer *buffer);
void source_buffer_free(struct source_buffer *buffer);

/* "class/name" of an entry into dst. */
void source_describe(char *dst, size_t bytes, const struct source *source, size_t i);
const char *source_name(const struct source *source, size_t i);

/* For the layouts. */
extern const struct source_ops source_folder, source_idx, source_imagenet_tar;
int list_add_class(struct source_list *list, const char *id, size_t *index); /* ERR_DATA: twice */
int list_add(struct source_list *list, size_t class_index, const char *name, bool spilled,
             uint64_t offset, uint64_t bytes);
/* Sorts, and checks that names are unique within their class and (unless allowed) no class is
 * empty. */
int list_finish(struct source_list *list, bool allow_empty);
void list_release(struct source_list *list);

/* read for sources whose bytes are all in fd or spill. */
int source_read_range(const struct source *source, const struct source_entry *entry,
                      struct source_buffer *buffer);

#endif
