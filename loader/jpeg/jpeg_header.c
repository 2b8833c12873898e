/* SPDX-License-Identifier: Apache-2.0 */
/* Parses the markers of a sequential JPEG. Where libjpeg would warn and go on, this refuses. */
#include "loader/jpeg/jpeg_header.h"

#include <string.h>

#include "loader/decode.h"

enum marker {
    MARKER_SOF0 = 0xc0, /* baseline */
    MARKER_SOF1 = 0xc1, /* extended sequential */
    MARKER_DHT = 0xc4,
    MARKER_SOF9 = 0xc9, /* from here on arithmetic coding */
    MARKER_DAC = 0xcc,
    MARKER_SOF15 = 0xcf,
    MARKER_SOI = 0xd8,
    MARKER_EOI = 0xd9,
    MARKER_SOS = 0xda,
    MARKER_DQT = 0xdb,
    MARKER_DRI = 0xdd,
    MARKER_APP0 = 0xe0,
    MARKER_APP14 = 0xee,
    MARKER_APP15 = 0xef,
    MARKER_COM = 0xfe,
};

enum { MIN_BITS_PER_BLOCK = 2 }; /* two codes */

/* What APPn markers say about the colour space. */
struct colour_hints {
    bool jfif, adobe;
    uint8_t adobe_transform;
};

const uint8_t jpeg_header_natural_order[64] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
    41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
    30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
};

static uint32_t be16(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 8 | bytes[1];
}

static uint32_t ceil_div(uint32_t a, uint32_t b)
{
    return (a + b - 1) / b;
}

static enum jpeg_refusal read_quant(struct jpeg_header *header, const uint8_t *body, size_t count)
{
    while (count > 0) {
        uint32_t wide = body[0] >> 4, number = body[0] & 15;
        size_t need = 1 + (wide ? 128 : 64);
        if (wide > 1 || number >= JPEG_MAX_TABLES || count < need)
            return JPEG_DAMAGED;
        for (int k = 0; k < 64; k++)
            header->quant[number][jpeg_header_natural_order[k]] =
                wide ? (uint16_t)be16(body + 1 + 2 * k) : body[1 + k];
        header->quant_known |= (uint8_t)(1u << number);
        body += need;
        count -= need;
    }
    return JPEG_TAKEN;
}

static enum jpeg_refusal read_huffman(struct jpeg_header *header, const uint8_t *body, size_t count)
{
    while (count > 0) {
        uint32_t kind = body[0] >> 4, number = body[0] & 15, total = 0;
        if (kind > 1 || number >= JPEG_MAX_TABLES || count < 17)
            return JPEG_DAMAGED;
        for (int length = 1; length <= 16; length++)
            total += body[length];
        if (total > 256 || count < 17 + total)
            return JPEG_DAMAGED;
        struct jpeg_huffman_spec *spec = kind ? &header->ac[number] : &header->dc[number];
        memset(spec, 0, sizeof *spec);
        memcpy(spec->counts, body + 1, 16);
        memcpy(spec->symbols, body + 17, total);
        *(kind ? &header->ac_known : &header->dc_known) |= (uint8_t)(1u << number);
        body += 17 + total;
        count -= 17 + total;
    }
    return JPEG_TAKEN;
}

static enum jpeg_refusal read_components(struct jpeg_header *header, const uint8_t *body)
{
    header->h_max = header->v_max = 1;
    for (uint32_t c = 0; c < header->component_count; c++) {
        struct jpeg_component *component = &header->component[c];
        component->id = body[3 * c];
        component->h = body[3 * c + 1] >> 4;
        component->v = body[3 * c + 1] & 15;
        component->quant = body[3 * c + 2];
        if (component->h < 1 || component->h > 4 || component->v < 1 || component->v > 4)
            return JPEG_SAMPLING;
        if (component->quant >= JPEG_MAX_TABLES)
            return JPEG_DAMAGED;
        for (uint32_t i = 0; i < c; i++)
            if (header->component[i].id == component->id)
                return JPEG_DAMAGED;
        /* A scan of one component has MCUs of one block, whatever its factors (T.81 A.2.2). */
        if (header->component_count == 1)
            component->h = component->v = 1;
        header->h_max = component->h > header->h_max ? component->h : header->h_max;
        header->v_max = component->v > header->v_max ? component->v : header->v_max;
        header->blocks_per_mcu += (uint32_t)component->h * component->v;
    }
    return header->blocks_per_mcu <= JPEG_MAX_BLOCKS_PER_MCU ? JPEG_TAKEN : JPEG_SAMPLING;
}

static enum jpeg_refusal read_frame(struct jpeg_header *header, const uint8_t *body, size_t count)
{
    if (header->component_count || count < 6)
        return JPEG_DAMAGED;
    if (body[0] != 8)
        return JPEG_PRECISION;
    header->height = be16(body + 1);
    header->width = be16(body + 3);
    if (header->width < 1 || header->width > DECODE_MAX_SIDE_PX || header->height < 1 ||
        header->height > DECODE_MAX_SIDE_PX)
        return JPEG_SIZE;
    if (body[5] != 1 && body[5] != 3)
        return JPEG_COMPONENTS;
    header->component_count = body[5];
    if (count != 6 + 3 * (size_t)header->component_count)
        return JPEG_DAMAGED;
    enum jpeg_refusal refusal = read_components(header, body + 6);
    if (refusal)
        return refusal;
    header->mcus_across = ceil_div(header->width, 8 * header->h_max);
    header->mcus_down = ceil_div(header->height, 8 * header->v_max);
    return JPEG_TAKEN;
}

static enum jpeg_refusal read_scan(struct jpeg_header *header, const uint8_t *body, size_t count)
{
    uint32_t components = header->component_count;
    if (!components || count < 1)
        return JPEG_DAMAGED;
    if (body[0] != components)
        return JPEG_SCANS;
    if (count != 4 + 2 * (size_t)components)
        return JPEG_DAMAGED;
    for (uint32_t c = 0; c < components; c++) {
        struct jpeg_component *component = &header->component[c];
        if (body[1 + 2 * c] != component->id)
            return JPEG_SCANS;
        component->dc = body[2 + 2 * c] >> 4;
        component->ac = body[2 + 2 * c] & 15;
        if (component->dc >= JPEG_MAX_TABLES || component->ac >= JPEG_MAX_TABLES ||
            !(header->dc_known >> component->dc & 1) || !(header->ac_known >> component->ac & 1) ||
            !(header->quant_known >> component->quant & 1))
            return JPEG_DAMAGED;
    }
    const uint8_t *spectrum = body + 1 + 2 * components;
    return spectrum[0] == 0 && spectrum[1] == 63 && spectrum[2] == 0 ? JPEG_TAKEN : JPEG_DAMAGED;
}

static void read_application(struct colour_hints *hints, int marker, const uint8_t *body,
                             size_t count)
{
    if (marker == MARKER_APP0 && count >= 14 && memcmp(body, "JFIF", 5) == 0)
        hints->jfif = true;
    if (marker == MARKER_APP14 && count >= 12 && memcmp(body, "Adobe", 5) == 0) {
        hints->adobe = true;
        hints->adobe_transform = body[11];
    }
}

/* libjpeg's rules (default_decompress_parms in jdapimin.c), in its order. */
static enum planes_colour colour_of(const struct jpeg_header *header,
                                    const struct colour_hints *hints)
{
    const struct jpeg_component *component = header->component;
    if (header->component_count == 1)
        return PLANES_GREY;
    if (hints->jfif)
        return PLANES_YCC;
    if (hints->adobe)
        return hints->adobe_transform == 0 ? PLANES_RGB : PLANES_YCC;
    if (component[0].id == 'R' && component[1].id == 'G' && component[2].id == 'B')
        return PLANES_RGB;
    return PLANES_YCC;
}

/* Against headers that promise more than the file can hold. */
static enum jpeg_refusal check_size(const struct jpeg_header *header, size_t scan_bytes)
{
    if ((uint64_t)header->width * header->height > DECODE_MAX_PIXELS ||
        header->scan_offset > UINT32_MAX)
        return JPEG_SIZE;
    uint64_t blocks = (uint64_t)header->mcus_across * header->mcus_down * header->blocks_per_mcu;
    return blocks * MIN_BITS_PER_BLOCK <= (uint64_t)scan_bytes * 8 ? JPEG_TAKEN : JPEG_ENTROPY;
}

/* One marker segment; body and count without the length field. */
static enum jpeg_refusal read_segment(struct jpeg_header *header, struct colour_hints *hints,
                                      int marker, const uint8_t *body, size_t count)
{
    switch (marker) {
    case MARKER_DQT:
        return read_quant(header, body, count);
    case MARKER_DHT:
        return read_huffman(header, body, count);
    case MARKER_SOF0:
    case MARKER_SOF1:
        return read_frame(header, body, count);
    case MARKER_SOS:
        return read_scan(header, body, count);
    case MARKER_DRI:
        if (count != 2)
            return JPEG_DAMAGED;
        header->restart_interval = be16(body);
        return JPEG_TAKEN;
    default:
        break;
    }
    if ((marker >= MARKER_APP0 && marker <= MARKER_APP15) || marker == MARKER_COM) {
        read_application(hints, marker, body, count);
        return JPEG_TAKEN;
    }
    if (marker == MARKER_DAC || (marker >= MARKER_SOF9 && marker <= MARKER_SOF15))
        return JPEG_ARITHMETIC;
    if (marker > MARKER_SOF1 && marker < MARKER_SOF9)
        return JPEG_PROGRESSIVE;
    return JPEG_DAMAGED;
}

enum jpeg_refusal jpeg_header_parse(struct jpeg_header *header, const uint8_t *bytes, size_t count)
{
    struct colour_hints hints = {0};
    memset(header, 0, sizeof *header);
    if (count < 4 || bytes[0] != 0xff || bytes[1] != MARKER_SOI)
        return JPEG_NOT_A_JPEG;
    for (size_t at = 2;;) {
        if (at >= count || bytes[at] != 0xff)
            return JPEG_DAMAGED;
        while (at < count && bytes[at] == 0xff) /* any number of fill bytes */
            at++;
        if (count - at < 3)
            return JPEG_DAMAGED;
        int marker = bytes[at];
        size_t length = be16(bytes + at + 1);
        if (length < 2 || length > count - at - 1)
            return JPEG_DAMAGED;
        enum jpeg_refusal refusal =
            read_segment(header, &hints, marker, bytes + at + 3, length - 2);
        if (refusal)
            return refusal;
        at += 1 + length;
        if (marker == MARKER_SOS) {
            header->scan_offset = at;
            header->colour = colour_of(header, &hints);
            return check_size(header, count - at);
        }
    }
}

const char *jpeg_refusal_text(enum jpeg_refusal refusal)
{
    static const char *const texts[] = {
        [JPEG_TAKEN] = "taken",
        [JPEG_NOT_A_JPEG] = "not a JPEG",
        [JPEG_DAMAGED] = "damaged or unusual markers",
        [JPEG_PROGRESSIVE] = "progressive, hierarchical or lossless",
        [JPEG_ARITHMETIC] = "arithmetic coding",
        [JPEG_PRECISION] = "not 8 bits a sample",
        [JPEG_COMPONENTS] = "neither 1 nor 3 components",
        [JPEG_SCANS] = "several scans",
        [JPEG_SAMPLING] = "unusual sampling factors",
        [JPEG_SIZE] = "empty or too large",
        [JPEG_ENTROPY] = "damaged or incomplete entropy-coded data",
        [JPEG_RANGE] = "coefficients out of range",
    };
    return texts[refusal];
}
