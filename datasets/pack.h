/* SPDX-License-Identifier: Apache-2.0 */
/* Packing: a source's samples are read and checked by worker threads, and written to a store in
 * the order of ids by the calling thread. Memory is bounded: a window of samples at a time. */
#ifndef DATASETS_PACK_H
#define DATASETS_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/hash.h"
#include "datasets/source.h"
#include "datasets/store.h"

/* Images shrunk and encoded anew, as training pipelines that store smaller images do. quality 0:
 * files stay as they are. At most one of the bounds is not 0; images within it keep their size, but
 * are encoded anew all the same. */
struct pack_recode {
    uint32_t short_px, long_px; /* bounds of the shorter and of the longer side */
    int quality;                /* of JPEG, 1 to 100 */
};

/* How images are looked into. The decoder that defines pixels belongs to another part of the
 * program; one state per thread. Errors: ERR_DATA with the reason in err_message() when the file is
 * bad, anything else ends the packing. */
struct image_decoder {
    int (*open)(void **state);
    void (*close)(void *state); /* accepts NULL */
    /* Is it a decodable image, and of which size? */
    int (*check)(void *state, uint32_t *width, uint32_t *height, const uint8_t *file, size_t bytes);
    /* The side index of an image, with an entry every mcus units (0: at each row of them), and its
     * size. Whoever gets an index has shown that it is whole: it need not be checked. *index NULL:
     * an image that goes without; it must be checked. Valid until the state's next call. */
    int (*index)(void *state, const uint8_t **index, size_t *index_bytes, uint32_t *width,
                 uint32_t *height, const uint8_t *file, size_t bytes, uint32_t mcus);
    /* The image as planes R, G, B, each width x height bytes, malloc'ed. */
    int (*planes)(void *state, uint8_t **planes, uint32_t *width, uint32_t *height,
                  const uint8_t *file, size_t bytes);
    /* The image as a JPEG file of its own, malloc'ed, decodable and of *width x *height px. */
    int (*recode)(void *state, uint8_t **jpeg, size_t *jpeg_bytes, uint32_t *width,
                  uint32_t *height, const uint8_t *file, size_t bytes,
                  const struct pack_recode *recode);
};

struct pack_options {
    const char *out;
    const char *split;              /* NULL: none */
    const char *const *class_names; /* [classes of the source], NULL: unknown */
    const char *packed_by;
    enum store_encoding encoding; /* STORE_RAW: files are decoded */
    int64_t index_mcus;           /* side index of each JPEG, every so many units; -1: none */
    struct pack_recode recode;    /* STORE_JPEG of files only */
    int jobs;                     /* worker threads, at least 1 */
    bool skip_bad;                /* leave bad files out instead of refusing all */
    bool resume;                  /* go on with what a killed run left, if there is something */
    const struct image_decoder *decoder;
};

struct pack_bad {
    char *file, *reason;
};

struct pack_result {
    uint32_t samples, classes;
    struct hash128 fingerprint;
    uint64_t bytes;       /* of the store's file */
    uint64_t image_bytes; /* of all images */
    uint64_t indexed;
    struct pack_bad *bad;
    size_t bad_count;
};

/* Looks at stop_requested(). ERR_DATA: bad files, all listed in result->bad; nothing is left behind
 * then. ERR_STOPPED and ERR_IO (an input that cannot be read, a full disk) leave what is done in
 * the partial file, for another run with resume. With resume and a complete store of the same input
 * and options: 0, with that store's facts. result must be released in any case. */
int pack_run(struct pack_result *result, const struct source *source,
             const struct pack_options *options);
void pack_result_release(struct pack_result *result);

/* Class names from a file: "ID NAME" lines where all the source's ids are first words, else one
 * name per line in the order of the classes (class_ids NULL: always). names: [count], NULL-free,
 * freed by class_names_free.
 */
int class_names_read(char ***names, const char *path, char *const *class_ids, size_t count);
void class_names_free(char **names, size_t count);
int class_names_count_lines(size_t *lines, const char *path); /* lines that are not blank */
/* The WNIDs (n and 8 digits) that all lines of a synset file begin with, in the file's order: what
 * labels count that are numbers. *ids NULL: it is not such a file. Freed by class_names_free. */
int class_names_wnids(char ***ids, size_t *count, const char *path);

#endif
