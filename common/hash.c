/* SPDX-License-Identifier: Apache-2.0 */
/* XXH3 behind plain types. */
#include "common/hash.h"

/* For the size of the state, so that it can lie on the stack. */
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>
#if defined(__x86_64__) && defined(__has_include)
#if __has_include(<xxh_x86dispatch.h>)
#include <xxh_x86dispatch.h> /* the widest instructions of the processor instead of SSE2 */
#endif
#endif

#include "common/bytes.h"
#include "common/err.h"

static struct hash128 from_xxh(XXH128_hash_t hash)
{
    return (struct hash128){.low = hash.low64, .high = hash.high64};
}

struct hash128 hash128_of(const void *data, size_t bytes)
{
    return from_xxh(XXH3_128bits(data, bytes));
}

uint64_t hash64_of(const void *data, size_t bytes)
{
    return XXH3_64bits(data, bytes);
}

struct hash128 hash128_of_parts(const struct hash_part *parts, size_t count)
{
    XXH3_state_t state;
    XXH3_INITSTATE(&state);
    XXH3_128bits_reset(&state);
    for (size_t i = 0; i < count; i++) {
        if (parts[i].bytes > 0)
            XXH3_128bits_update(&state, parts[i].data, parts[i].bytes);
    }
    return from_xxh(XXH3_128bits_digest(&state));
}

/* The stream is libxxhash's state itself, which asks for an alignment that malloc does not give. */
struct hash_stream *hash_stream_open(void)
{
    XXH3_state_t *state = XXH3_createState();
    if (state)
        XXH3_128bits_reset(state);
    return (struct hash_stream *)state;
}

void hash_stream_add(struct hash_stream *stream, const void *data, size_t bytes)
{
    if (bytes > 0)
        XXH3_128bits_update((XXH3_state_t *)stream, data, bytes);
}

struct hash128 hash_stream_end(const struct hash_stream *stream)
{
    return from_xxh(XXH3_128bits_digest((const XXH3_state_t *)stream));
}

void hash_stream_close(struct hash_stream *stream)
{
    XXH3_freeState((XXH3_state_t *)stream);
}

int hash128_equal(struct hash128 a, struct hash128 b)
{
    return a.low == b.low && a.high == b.high;
}

struct hash128 hash128_add(struct hash128 a, struct hash128 b)
{
    struct hash128 sum = {.low = a.low + b.low, .high = a.high + b.high};
    sum.high += sum.low < a.low;
    return sum;
}

void hash128_to_bytes(uint8_t dst[16], struct hash128 value)
{
    bytes_put(dst, value.low, 8);
    bytes_put(dst + 8, value.high, 8);
}

struct hash128 hash128_from_bytes(const uint8_t src[16])
{
    return (struct hash128){.low = bytes_get(src, 8), .high = bytes_get(src + 8, 8)};
}

void hash128_to_text(char dst[33], struct hash128 value)
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < 16; i++) {
        dst[i] = digits[value.high >> (60 - 4 * i) & 15];
        dst[16 + i] = digits[value.low >> (60 - 4 * i) & 15];
    }
    dst[32] = '\0';
}

static int digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int hash128_from_text(struct hash128 *dst, const char *text)
{
    struct hash128 value = {0};
    for (int i = 0; i < 32; i++) {
        int digit = digit_of(text[i]);
        if (digit < 0)
            return err_set(ERR_DATA, "a hash has 32 hexadecimal digits, not '%.40s'", text);
        uint64_t *half = i < 16 ? &value.high : &value.low;
        *half = *half << 4 | (uint64_t)digit;
    }
    if (text[32] != '\0')
        return err_set(ERR_DATA, "a hash has 32 hexadecimal digits, not '%.40s...'", text);
    *dst = value;
    return 0;
}
