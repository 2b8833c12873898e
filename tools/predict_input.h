/* SPDX-License-Identifier: Apache-2.0 */
/* What satchel-predict looks at: image files or a store, as batches of the evaluation's own pixels
 * (the loader's code, with the spec that an evaluation has). */
#ifndef TOOLS_PREDICT_INPUT_H
#define TOOLS_PREDICT_INPUT_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/chunk.h"
#include "proto/spec.h"

struct predict_input;

/* Opens image files (paths; the array stays the caller's) or a store (data; paths NULL). spec: of
 * the evaluation, with chunk_size as the most samples of a batch. Errors: those of store_open;
 * ERR_ARG when the store has other channels. */
int predict_input_open(struct predict_input **out, const char *const *paths, uint64_t path_count,
                       const char *data, const struct spec *spec);
void predict_input_close(struct predict_input *input); /* accepts NULL */

uint64_t predict_input_count(const struct predict_input *input);
const struct store *predict_input_store(const struct predict_input *input); /* NULL: image files */

/* The file's path, or the number of the store's sample. */
void predict_input_name(char dst[512], const struct predict_input *input, uint64_t index);

/* Samples first .. first + count - 1: pixels [count][S][S][channels] half floats, labels [count].
 * One that cannot be decoded is masked (CHUNK_LABEL_MASKED), its pixels zero, and logged. Files
 * have the label 0. first: a multiple of chunk_size. */
int predict_input_read(struct predict_input *input, uint16_t *pixels, struct chunk_label *labels,
                       uint64_t first, uint32_t count);

#endif
