/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/png.h"

#include <spng.h>

#include "common/err.h"

static int encode(spng_ctx *context, uint8_t **png, size_t *bytes, const uint8_t *pixels,
                  const struct spng_ihdr *header, size_t channels)
{
    struct spng_ihdr copy = *header;
    size_t size = (size_t)header->width * header->height * channels;
    int code = spng_set_option(context, SPNG_ENCODE_TO_BUFFER, 1);
    if (!code)
        code = spng_set_ihdr(context, &copy);
    if (!code)
        code = spng_encode_image(context, pixels, size, SPNG_FMT_PNG, SPNG_ENCODE_FINALIZE);
    if (!code)
        *png = spng_get_png_buffer(context, bytes, &code);
    return code;
}

int png_encode(uint8_t **png, size_t *bytes, const uint8_t *pixels, uint32_t width, uint32_t height,
               unsigned channels)
{
    const struct spng_ihdr header = {
        .width = width,
        .height = height,
        .bit_depth = 8,
        .color_type = channels == 1 ? SPNG_COLOR_TYPE_GRAYSCALE : SPNG_COLOR_TYPE_TRUECOLOR,
    };
    *png = NULL;
    spng_ctx *context = spng_ctx_new(SPNG_CTX_ENCODER);
    if (!context)
        return err_set(ERR_NOMEM, "out of memory for a picture");
    int code = encode(context, png, bytes, pixels, &header, channels);
    spng_ctx_free(context);
    if (code)
        return err_set(code == SPNG_EMEM ? ERR_NOMEM : ERR_INTERNAL, "a picture of %u x %u: %s",
                       width, height, spng_strerror(code));
    return 0;
}
