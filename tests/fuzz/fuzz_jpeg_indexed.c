/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: any bytes as a JPEG. Either the file gets no side index, or every level decodes it to
 * the reference's very samples. The first bytes also choose the index's step and a region, and the
 * file is decoded once more with an index that the fuzzer has bent. */
#include "tests/fuzz/fuzz_jpeg.h"

enum { CONTROL_BYTES = 8 };

static struct fuzz fuzz;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    fuzz_open(&fuzz);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes < CONTROL_BYTES)
        return 0;
    const uint8_t *control = data;
    struct fuzz_image image = {.jpeg = data + CONTROL_BYTES, .jpeg_bytes = bytes - CONTROL_BYTES};
    struct jpeg_header header;
    struct planes whole;
    if (!fuzz_index(&fuzz, &image, &header, control[0]))
        return 0;
    if (decode_file(fuzz.reference, &whole, image.jpeg, image.jpeg_bytes))
        abort();
    struct decode_region all = {0, header.width, 0, header.height};
    struct decode_region region = fuzz_region(control + 1, header.width, header.height);
    struct fuzz_image bent = image;
    uint8_t *index = malloc(image.index_bytes);
    if (!index)
        return 0;
    memcpy(index, image.index, image.index_bytes);
    index[(control[5] | (size_t)control[6] << 8) % image.index_bytes] ^= control[7];
    bent.index = index;
    for (int level = 0; level < fuzz.levels; level++) {
        fuzz_decode(&fuzz, level, &image, &all, &whole);
        fuzz_decode(&fuzz, level, &image, &region, &whole);
        fuzz_decode(&fuzz, level, &bent, &region, NULL);
    }
    free(index);
    return 0;
}
