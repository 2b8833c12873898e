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

struct progress;
struct spill;

/* Where an entry's bytes are, instead of the number of one of the source's files. */
static const uint32_t SOURCE_SPILL = UINT32_MAX, SOURCE_PATH = UINT32_MAX - 1;

struct source_place {
    uint32_t file;          /* in files, SOURCE_SPILL or SOURCE_PATH: a file of its own */
    uint64_t offset, bytes; /* SOURCE_PATH: offset of the path in the list's text */
};

struct source_entry {
    uint32_t label; /* position in class_ids, once sorted */
    uint32_t file;
    size_t name; /* offset of the name in the list's text */
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
    struct progress *progress; /* of listing, NULL while there are few */
};

struct source_request {
    const char *const *inputs;
    size_t input_count;
    const char *split;  /* NULL: not said */
    const char *labels; /* file of labels for tar and folder; NULL: their folders are classes */
    const char *out;    /* a spill file goes beside it */
    bool allow_empty;   /* classes without samples are kept instead of refused */
    /* What labels mean that are numbers: places in this list, NULL: the numbers are the ids. */
    const char *const *class_ids;
    size_t class_count;
    bool only_these;      /* class_ids are all classes, whatever the layout */
    size_t least_classes; /* without class_ids: numbers make at least so many classes */
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

struct source_file {
    char *path;
    int fd;
    uint64_t bytes;
};

struct source {
    const struct source_ops *ops;
    struct source_list list;
    char *path; /* of the first input, for messages */
    int folder; /* that the paths of SOURCE_PATH entries begin in, -1: none */
    struct source_file *files;
    uint32_t file_count;
    struct spill *spill; /* NULL until something had to be spilled */
    const char *beside;  /* a path in the directory that the spill goes to */
    /* Raw sources: the geometry of every sample; 0: entries are files to be decoded. */
    uint32_t width, height, channels;
};

/* ERR_ARG: no such layout, inputs that make no sense; ERR_IO, ERR_DATA: with what is wrong in the
 * input. */
int source_open(struct source **out, const char *layout, const struct source_request *request);
void source_close(struct source *source); /* accepts NULL */

/* Reads entry i (0 .. list.count-1). ERR_IO, ERR_DATA: this entry cannot be read. Any thread. */
int source_read(const struct source *source, size_t i, struct source_buffer *buffer);
void source_buffer_free(struct source_buffer *buffer);

/* "class/name" of an entry into dst. */
void source_describe(char *dst, size_t bytes, const struct source *source, size_t i);
const char *source_name(const struct source *source, size_t i);

/* For the layouts. */
extern const struct source_ops source_cifar, source_folder, source_idx, source_image_list,
    source_imagenet_tar, source_rec, source_tar, source_webdataset;

/* Opens a regular file of the input and adds it to files. */
int source_add_file(struct source *source, const char *path, uint32_t *index);
/* The spill, opened when there is none yet. */
int source_need_spill(struct source *source, struct spill **spill);
/* read for sources whose bytes are all in files and spill, and for those that are paths. */
int source_read_range(const struct source *source, const struct source_entry *entry,
                      struct source_buffer *buffer);
int source_read_path(const struct source *source, const struct source_entry *entry,
                     struct source_buffer *buffer);

int list_add_class(struct source_list *list, const char *id, size_t *index); /* ERR_DATA: twice */
int list_add(struct source_list *list, size_t class_index, const char *name,
             struct source_place place);
/* A file of its own; its name is the last part of the path. */
int list_add_path(struct source_list *list, size_t class_index, const char *path, uint64_t bytes);
/* Where labels are numbers: entries are added with them as class_index, then this makes classes
 * 0 .. most (at least) of the request's ids or of the numbers, with zeros in front to equal width.
 */
int list_number_classes(struct source_list *list, const struct source_request *request,
                        uint32_t most);
/* With only_these: adds those that the list lacks; ERR_DATA: the list has one that is not wanted.
 */
int list_expect_classes(struct source_list *list, const struct source_request *request);
/* Sorts, and checks that names are unique within their class and (unless allowed) no class is
 * empty. */
int list_finish(struct source_list *list, bool allow_empty);
void list_release(struct source_list *list);

/* What stands behind the last slash. */
const char *source_base_name(const char *path);

#endif
