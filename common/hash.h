/* SPDX-License-Identifier: Apache-2.0 */
/* XXH3-128 (libxxhash): checksums, fingerprints, spec hashes, receipts. Not cryptographic. */
#ifndef COMMON_HASH_H
#define COMMON_HASH_H

#include <stddef.h>
#include <stdint.h>

/* A 128-bit value as an integer: high * 2^64 + low. Its text form is 32 hexadecimal digits, most
 * significant first; its byte form (hash128_to_bytes) is 16 bytes, least significant first. */
struct hash128 {
    uint64_t low, high;
};

/* One of several pieces that are hashed as if they lay in a row. */
struct hash_part {
    const void *data;
    size_t bytes;
};

struct hash_stream; /* incremental hashing */

struct hash128 hash128_of(const void *data, size_t bytes); /* seed 0 */
uint64_t hash64_of(const void *data, size_t bytes);        /* XXH3-64, seed 0 */

struct hash128 hash128_of_parts(const struct hash_part *parts, size_t count);

/* NULL when memory is out. close accepts NULL. */
struct hash_stream *hash_stream_open(void);
void hash_stream_add(struct hash_stream *stream, const void *data, size_t bytes);
struct hash128 hash_stream_end(const struct hash_stream *stream); /* of everything added so far */
void hash_stream_close(struct hash_stream *stream);

int hash128_equal(struct hash128 a, struct hash128 b);
struct hash128 hash128_add(struct hash128 a, struct hash128 b); /* modulo 2^128 */
void hash128_to_bytes(uint8_t dst[16], struct hash128 value);
struct hash128 hash128_from_bytes(const uint8_t src[16]);
void hash128_to_text(char dst[33], struct hash128 value);
int hash128_from_text(struct hash128 *dst, const char *text); /* 0, or ERR_DATA */

#endif
