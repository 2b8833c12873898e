/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/predict_input.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/file.h"
#include "common/log.h"
#include "loader/decode.h"
#include "loader/render.h"

struct predict_input {
    struct spec spec;
    const char *const *paths; /* NULL: a store */
    uint64_t count;
    struct store *store;
    struct builder *builder; /* of a store's chunks */
    uint8_t *encoded;        /* their labels */
    uint32_t *ids;
    struct render *render; /* of files */
    struct decoder *decoder;
};

static int open_store(struct predict_input *input, const char *data)
{
    int code = store_open(&input->store, data);
    if (code)
        return code;
    const struct store_meta *meta = store_meta(input->store);
    if (meta->channels != input->spec.channels)
        return err_set(ERR_ARG, "'%s' has images of %u channels, the network takes %u", data,
                       meta->channels, input->spec.channels);
    input->count = meta->sample_count;
    input->encoded = malloc(input->spec.chunk_size * chunk_label_bytes_of(&input->spec));
    input->ids = malloc(input->spec.chunk_size * sizeof *input->ids);
    if (!input->encoded || !input->ids)
        return err_set(ERR_NOMEM, "out of memory for labels");
    return builder_open(&input->builder, DECODER_AUTO);
}

static int open_files(struct predict_input *input)
{
    int code = render_open(&input->render, DECODER_REFERENCE, cpu_level());
    return code ? code : decoder_open(&input->decoder);
}

int predict_input_open(struct predict_input **out, const char *const *paths, uint64_t path_count,
                       const char *data, const struct spec *spec)
{
    *out = NULL;
    struct predict_input *input = calloc(1, sizeof *input);
    if (!input)
        return err_set(ERR_NOMEM, "out of memory for the images");
    input->spec = *spec;
    input->paths = paths;
    input->count = path_count;
    int code = paths ? open_files(input) : open_store(input, data);
    if (code) {
        predict_input_close(input);
        return code;
    }
    *out = input;
    return 0;
}

void predict_input_close(struct predict_input *input)
{
    if (!input)
        return;
    builder_close(input->builder);
    render_close(input->render);
    decoder_close(input->decoder);
    store_close(input->store);
    free(input->encoded);
    free(input->ids);
    free(input);
}

uint64_t predict_input_count(const struct predict_input *input)
{
    return input->count;
}

const struct store *predict_input_store(const struct predict_input *input)
{
    return input->store;
}

void predict_input_name(char dst[512], const struct predict_input *input, uint64_t index)
{
    if (input->paths)
        snprintf(dst, 512, "%s", input->paths[index]);
    else
        snprintf(dst, 512, "%" PRIu64, index);
}

static int cut_file(struct predict_input *input, const uint8_t *file, size_t bytes)
{
    struct store_record record = {.encoding = STORE_JPEG, /* or PNG: by its bytes */
                                  .channels = input->spec.channels,
                                  .image = file,
                                  .image_bytes = bytes};
    uint32_t components;
    int code =
        decode_check(input->decoder, &record.width, &record.height, &components, file, bytes);
    return code ? code : render_cut(input->render, 0, &record, &input->spec, 0);
}

static int read_file(struct predict_input *input, uint16_t *pixels, const char *path)
{
    uint8_t *file = NULL, *padded;
    size_t bytes;
    int code = file_read(&file, &bytes, path, STORE_RECORD_BYTES_MAX);
    if (code)
        return code;
    padded = realloc(file, bytes + STORE_PADDING_BYTES);
    if (!padded) {
        free(file);
        return err_set(ERR_NOMEM, "out of memory for '%s'", path);
    }
    memset(padded + bytes, 0, STORE_PADDING_BYTES);
    code = cut_file(input, padded, bytes);
    if (!code)
        render_halves(input->render, pixels, 0);
    free(padded);
    return code ? err_wrap(code, "'%s'", path) : 0;
}

static int read_files(struct predict_input *input, uint16_t *pixels, struct chunk_label *labels,
                      uint64_t first, uint32_t count)
{
    size_t values = spec_sample_bytes(&input->spec) / sizeof *pixels;
    for (uint32_t i = 0; i < count; i++) {
        labels[i] = (struct chunk_label){0, 0, 1};
        int code = read_file(input, pixels + i * values, input->paths[first + i]);
        if (code != ERR_DATA) {
            if (code)
                return code;
            continue;
        }
        log_warn("%s (left out)", err_message());
        memset(pixels + i * values, 0, values * sizeof *pixels);
        labels[i].a = labels[i].b = CHUNK_LABEL_MASKED;
    }
    return 0;
}

int predict_input_read(struct predict_input *input, uint16_t *pixels, struct chunk_label *labels,
                       uint64_t first, uint32_t count)
{
    if (input->paths)
        return read_files(input, pixels, labels, first, count);
    struct chunk_build build = {.labels = input->encoded, .pixels = pixels, .ids = input->ids};
    int code = builder_chunk(input->builder, &build, input->store, &input->spec, 0,
                             first / input->spec.chunk_size, false);
    for (uint32_t i = 0; i < build.samples && !code; i++)
        labels[i] = chunk_label_decode(input->encoded + i * chunk_label_bytes_of(&input->spec));
    return code;
}
