/* SPDX-License-Identifier: Apache-2.0 */
/* The safetensors format (huggingface.co/docs/safetensors): a length (u64), a JSON header that
 * names each tensor with dtype, shape and place, then the tensors' bytes, all little-endian.
 *
 * A file is hostile: everything the header says is checked before use, and its bytes are read, not
 * mapped, so that a file cut meanwhile is an error and no signal. */
#ifndef TRAINER_SAFETENSORS_H
#define TRAINER_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Files that are written here with metadata have a string of it that is XXH3-128 over the whole
 * file, taken with zeros in its own place. */
#define SAFETENSORS_CHECKSUM_KEY "checksum"
#define SAFETENSORS_CHECKSUM_ZERO "00000000000000000000000000000000"

enum {
    /* Bytes: many times a checkpoint's of ResNet-152; the format allows 100 million. Parsing takes
     * up to 32 times as much memory. */
    SAFETENSORS_HEADER_MAX = 8 << 20,
    SAFETENSORS_RANK_MAX = 8,
};

enum safetensors_dtype {
    SAFETENSORS_F32,
    SAFETENSORS_F16,
    SAFETENSORS_BF16,
    SAFETENSORS_F64,
    SAFETENSORS_OTHER, /* valid, but no real number: I64, BOOL, ... */
};

struct safetensors_tensor {
    const char *name; /* owned by the file */
    enum safetensors_dtype dtype;
    const char *dtype_name;
    int rank;
    uint64_t shape[SAFETENSORS_RANK_MAX];
    uint64_t count;         /* elements */
    uint64_t offset, bytes; /* within the file */
};

struct safetensors;

/* Opens and checks the whole header: its length against the limit and the file, JSON, dtypes,
 * shapes (sizes without overflow), places (inside the file, equal to the shape's bytes, neither
 * overlapping nor leaving holes), names that come twice, metadata that is no string.
 * ERR_IO, ERR_DATA, ERR_NOMEM: one line with the file, and the tensor where there is one. */
int safetensors_open(struct safetensors **out, const char *path);
void safetensors_close(struct safetensors *file); /* accepts NULL */

size_t safetensors_count(const struct safetensors *file);
const struct safetensors_tensor *safetensors_at(const struct safetensors *file, size_t index);

/* NULL when there is none of this name. */
const struct safetensors_tensor *safetensors_find(const struct safetensors *file, const char *name);

/* A string of "__metadata__"; NULL when it is not there. Owned by the file. */
const char *safetensors_metadata(const struct safetensors *file, const char *key);

/* Reads the whole file and compares its checksum. ERR_DATA when it differs, or there is none. */
int safetensors_verify(const struct safetensors *file);

/* Reads a tensor's count elements as floats (fp16, bf16 and double are converted). ERR_DATA for
 * SAFETENSORS_OTHER and for a file that ends early. */
int safetensors_read(float *dst, const struct safetensors *file,
                     const struct safetensors_tensor *tensor);

/* What a file to be written holds, in the order of its bytes. */
struct safetensors_entry {
    char name[96];
    int rank; /* 0: a scalar */
    uint64_t shape[4];
    bool integers; /* int64; else fp32 */
};

struct safetensors_pair { /* of "__metadata__" */
    const char *key, *value;
};

struct safetensors_writer;

/* Begins a file that replaces path only at commit (common/file.h). */
int safetensors_write_open(struct safetensors_writer **out, const char *path,
                           const struct safetensors_entry *entries, size_t entry_count,
                           const struct safetensors_pair *pairs, size_t pair_count);

/* The next entry's elements: float or int64_t, as it says. */
int safetensors_write_next(struct safetensors_writer *writer, const void *src);

/* Publishes; frees writer whatever happens. ERR_INTERNAL when entries are missing. */
int safetensors_write_commit(struct safetensors_writer *writer);
void safetensors_write_discard(struct safetensors_writer *writer); /* accepts NULL */

#endif
