/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of one sample record: header, image, side index, padding. docs/format.md is the same
 * in words. */
#ifndef DATASETS_RECORD_H
#define DATASETS_RECORD_H

#include <stddef.h>
#include <stdint.h>

#include "datasets/store.h"

enum { RECORD_HEADER_BYTES = 48 };

/* Size of the record that holds this sample. Undefined for a sample that record_refuse refuses. */
size_t record_bytes(const struct store_sample *sample);

/* Why no record can hold this sample, NULL when one can. */
const char *record_refuse(const struct store_sample *sample);

/* Writes record_bytes() bytes. */
void record_encode(uint8_t *dst, const struct store_sample *sample, uint32_t id, uint64_t tag);

/* Validates every field and the checksum, and points record into data. Returns NULL, or what is
 * wrong (a literal); record->label is then what the header says, if there is a header. */
const char *record_decode(struct store_record *record, const uint8_t *data, size_t bytes,
                          uint32_t id, uint64_t tag);

#endif
