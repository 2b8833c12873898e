/* SPDX-License-Identifier: Apache-2.0 */
/* Chunk arithmetic and labels. */
#include "proto/chunk.h"

#include <string.h>

#include "common/bytes.h"
#include "common/err.h"
#include "proto/draw.h"

uint64_t chunk_total(const struct spec *spec, uint64_t sample_count)
{
    return sample_count / spec->chunk_size + (sample_count % spec->chunk_size != 0);
}

uint32_t chunk_samples(const struct spec *spec, uint64_t chunk, uint64_t sample_count)
{
    uint64_t whole = sample_count / spec->chunk_size;
    if (chunk < whole)
        return spec->chunk_size;
    return chunk == whole ? (uint32_t)(sample_count % spec->chunk_size) : 0;
}

uint64_t chunk_steps(uint64_t sample_count, uint64_t total_batch)
{
    return total_batch > 0 ? sample_count / total_batch : 0;
}

uint32_t chunk_partner(uint32_t position, uint32_t samples)
{
    return samples - 1 - position;
}

float chunk_lam(const struct spec *spec, uint32_t epoch, uint64_t chunk, uint32_t position,
                uint32_t samples)
{
    uint32_t partner = chunk_partner(position, samples);
    if (!spec_mixes(spec, epoch) || partner == position)
        return 1;
    uint64_t index = spec->mixup_lam == SPEC_LAM_BATCH
                         ? chunk / spec->chunks_per_batch
                         : chunk << 32 | (position < partner ? position : partner);
    struct draw_key key = {.seed = spec->seed, .epoch = epoch};
    return (float)draw_beta(spec->mixup_alpha, key, DRAW_MIXUP, index);
}

void chunk_label_encode(uint8_t dst[CHUNK_LABEL_BYTES], struct chunk_label label)
{
    uint32_t lam_bits;
    memcpy(&lam_bits, &label.lam, sizeof lam_bits);
    bytes_put(dst, label.a, 4);
    bytes_put(dst + 4, label.b, 4);
    bytes_put(dst + 8, lam_bits, 4);
}

struct chunk_label chunk_label_decode(const uint8_t src[CHUNK_LABEL_BYTES])
{
    uint32_t lam_bits = (uint32_t)bytes_get(src + 8, 4);
    struct chunk_label label = {.a = (uint32_t)bytes_get(src, 4),
                                .b = (uint32_t)bytes_get(src + 4, 4)};
    memcpy(&label.lam, &lam_bits, sizeof lam_bits);
    return label;
}

int chunk_label_check(struct chunk_label label, const struct spec *spec, uint32_t epoch,
                      uint32_t class_count)
{
    if (!(label.lam >= 0 && label.lam <= 1))
        return err_set(ERR_PEER, "label with lam %g, not within 0 to 1", (double)label.lam);
    if (!spec_mixes(spec, epoch) && (label.b != label.a || label.lam != 1))
        return err_set(ERR_PEER, "mixed label (%u, %u, %g) in an epoch that is not mixed", label.a,
                       label.b, (double)label.lam);
    if (spec->damaged_masked && label.a == CHUNK_LABEL_MASKED && label.b == CHUNK_LABEL_MASKED)
        return 0;
    if (label.a >= class_count || label.b >= class_count)
        return err_set(ERR_PEER, "label (%u, %u) of a store with %u classes", label.a, label.b,
                       class_count);
    return 0;
}
