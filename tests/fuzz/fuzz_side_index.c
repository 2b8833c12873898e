/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: any bytes as the side index of a sound JPEG, which the first byte chooses from a few
 * that this program writes: every subsampling, grey, with restart markers, flat and noisy. Whatever
 * the index says, regions are refused or decoded to something, within bounds; and an index that is
 * accepted as the true one gives the reference's samples. */
#include "tests/fuzz/fuzz_jpeg.h"
#include "tests/unit/loader/jpegs.h"

enum { CONTROL_BYTES = 8, SUBJECTS = 6 };

static struct fuzz fuzz;
static struct jpeg_bytes subjects[SUBJECTS];

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    static const struct jpeg_recipe recipes[SUBJECTS] = {
        {100, 60, 3, .quality = 90, .noise = 40},
        {100, 60, 3, {2, 1, 1}, {2, 1, 1}, .quality = 75, .noise = 90},
        {60, 100, 3, {2, 1, 1}, .quality = 95, .restart_mcus = 3, .noise = 30},
        {70, 90, 1, .quality = 60, .restart_mcus = 9},
        {120, 50, 3, .v = {2, 1, 1}, .quality = 100, .optimise = true, .noise = 255},
        {200, 120, 3, {4, 1, 1}, {1, 1, 1}, .quality = 10},
    };
    uint64_t seed = 1;
    for (int i = 0; i < SUBJECTS; i++)
        subjects[i] = jpegs_make(&recipes[i], &seed);
    fuzz_open(&fuzz);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes < CONTROL_BYTES)
        return 0;
    const struct jpeg_bytes *subject = &subjects[data[0] % SUBJECTS];
    struct fuzz_image image = {.jpeg = subject->data, .jpeg_bytes = subject->count};
    struct jpeg_header header;
    struct planes whole;
    if (!fuzz_index(&fuzz, &image, &header, data[1]))
        abort();
    struct decode_region region = fuzz_region(data + 2, header.width, header.height);
    /* The fuzzer's bytes over the true index, from a place of its choice: its header survives or
     * not, and the rest is long enough to be looked at. */
    struct fuzz_image bent = image;
    size_t at = (data[6] | (size_t)data[7] << 8) % image.index_bytes, count = bytes - CONTROL_BYTES;
    uint8_t *index = malloc(image.index_bytes);
    if (!index)
        return 0;
    memcpy(index, image.index, image.index_bytes);
    for (size_t i = 0; i < count && at + i < image.index_bytes; i++)
        index[at + i] ^= data[CONTROL_BYTES + i];
    bent.index = index;
    bool same = memcmp(index, image.index, image.index_bytes) == 0;
    if (same && decode_file(fuzz.reference, &whole, image.jpeg, image.jpeg_bytes))
        abort();
    for (int level = 0; level < fuzz.levels; level++)
        fuzz_decode(&fuzz, level, &bent, &region, same ? &whole : NULL);
    free(index);
    return 0;
}
