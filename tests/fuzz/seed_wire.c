/* SPDX-License-Identifier: Apache-2.0 */
/* Writes first inputs for fuzz_frame and fuzz_spec: good messages for the fuzzer to bend.
 *   seed_wire FRAME_DIRECTORY SPEC_DIRECTORY */
#include <stdio.h>
#include <string.h>

#include "common/err.h"
#include "common/file.h"
#include "proto/chunk.h"
#include "proto/frame.h"
#include "proto/recipe.h"

static int write_seed(const char *directory, const char *name, int number, const void *data,
                      size_t bytes)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s%d", directory, name, number);
    return file_write_atomic(path, data, bytes);
}

static int write_frame(const char *directory, int number, const struct frame *frame)
{
    uint8_t bytes[FRAME_MAX_BYTES];
    size_t count;
    int code = frame_encode(bytes, &count, frame);
    return code ? code : write_seed(directory, "frame", number, bytes, count);
}

static int write_frames(const char *directory, const struct spec *spec)
{
    const struct hash128 hash = spec_hash(spec);
    const struct frame_store store = {"train", hash, 1281167, 1000, 3, hash};
    const struct frame frames[] = {
        {.kind = FRAME_HELLO, .hello = {FRAME_PROTOCOL, "run", 1, {{"train", false, hash}}}},
        {.kind = FRAME_HELLO_REPLY,
         .hello_reply = {.protocol = FRAME_PROTOCOL,
                         .program = "satchel-loader",
                         .credits = 12,
                         .store_count = 1,
                         .stores = {store}}},
        {.kind = FRAME_SPEC_OFFER, .spec_offer = *spec},
        {.kind = FRAME_REQUEST, .request = {.spec_hash = hash, .epoch = 1, .chunk = 2, .id = 3}},
        {.kind = FRAME_CHUNK,
         .chunk = {.spec_hash = hash, .epoch = 1, .chunk = 2, .id = 3, .samples = 8}},
        {.kind = FRAME_REFUSE, .refuse = {FRAME_REASON_DATA, 4, "a reason"}},
        {.kind = FRAME_NEED_SPEC, .need_spec = {hash, 5}},
        {.kind = FRAME_GOODBYE, .goodbye = {"leaving"}},
        {.kind = FRAME_PING},
    };
    int code = 0;
    for (int i = 0; i < (int)(sizeof(frames) / sizeof(frames[0])) && !code; i++)
        code = write_frame(directory, i, &frames[i]);
    return code;
}

/* A spec with a chunk of it behind, as fuzz_spec reads them. */
static int write_spec(const char *directory, int number, const struct spec *spec)
{
    uint8_t bytes[SPEC_ENCODED_BYTES + 40 + 64 * CHUNK_LABEL_UINT8_BYTES] = {0};
    size_t stride = frame_label_bytes(spec);
    const uint32_t header[10] = {spec->chunk_size * 4, 10, 0, spec->chunk_size};
    if (spec->chunk_size > 64)
        return err_set(ERR_INTERNAL, "a seed of %u samples", spec->chunk_size);
    spec_encode(bytes, spec);
    memcpy(bytes + SPEC_ENCODED_BYTES, header, sizeof(header));
    for (uint32_t i = 0; i < spec->chunk_size; i++)
        chunk_label_encode(bytes + SPEC_ENCODED_BYTES + 40 + i * stride,
                           (struct chunk_label){3, 3, 1});
    return write_seed(directory, "spec", number, bytes,
                      SPEC_ENCODED_BYTES + 40 + spec->chunk_size * stride);
}

static int write_all(const char *frame_directory, const char *spec_directory)
{
    struct recipe recipe;
    struct opt_section section = recipe_section(&recipe);
    struct spec spec;
    int code = opt_defaults(&section);
    if (!code)
        code = recipe_train_spec(&spec, &recipe, 3);
    if (!code)
        code = write_frames(frame_directory, &spec);
    if (!code)
        code = write_spec(spec_directory, 0, &spec);
    spec.mixup_alpha = 0.2f;
    spec.mixup_off_epoch = UINT32_MAX;
    spec.wire = SPEC_WIRE_UINT8;
    if (!code)
        code = write_spec(spec_directory, 1, &spec);
    if (!code)
        code = recipe_eval_spec(&spec, &recipe, 3);
    return code ? code : write_spec(spec_directory, 2, &spec);
}

int main(int argc, char **argv)
{
    int code = argc == 3 ? write_all(argv[1], argv[2])
                         : err_set(ERR_ARG, "usage: seed_wire FRAME_DIRECTORY SPEC_DIRECTORY");
    if (code)
        fprintf(stderr, "seed_wire: %s\n", err_message());
    return err_exit_status(code);
}
