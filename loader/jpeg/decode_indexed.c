/* SPDX-License-Identifier: Apache-2.0 */
/* The region's MCU rows go through two streams at a time. A run is a stretch of MCUs of one row,
 * from an index entry to the region's right edge; two runs are decoded side by side. */
#include "loader/jpeg/decode_indexed.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "loader/decode.h"
#include "loader/jpeg/jpeg_entropy.h"
#include "loader/jpeg/jpeg_index.h"

enum {
    BLOCK = 8,
    ALIGNMENT = 64,
    MARKER_RST0 = 0xd0,
    BAND_ROWS = 2, /* MCU rows: one for each stream */
    BANDS_KEPT = 2,
};

/* Memory that grows to the largest image, but not for ever after a huge one. */
struct buffer {
    uint8_t *bytes;
    size_t capacity;
};

/* MCU columns and rows of the region. */
struct mcu_box {
    uint32_t x0, x1, y0, y1;
};

/* A stretch of MCUs on its way through a stream. MCUs are numbered through the whole image. */
struct run {
    struct entropy_stream stream;
    struct buffer buffer; /* the run's bytes without stuffing, up to the next restart marker */
    size_t bytes;         /* in buffer */
    size_t at, end;       /* in the scan: behind what is in buffer; where the run's bytes end */
    uint32_t end_bit;     /* 0..7: bits of the byte at end that still belong to the run */
    uint32_t mcu;         /* next one */
    uint32_t first;       /* MCUs before it are parsed, not stored */
    uint32_t stop;        /* behind the last one */
    uint32_t boundary;    /* stop or later: the MCU where `after` and the run's bytes end */
    uint32_t restart;     /* the next MCU with a restart marker in front of it; UINT32_MAX: none */
    bool ends_padded;     /* a restart marker or the end of the scan stands before the boundary */
    struct jpeg_index_entry after;
    uint32_t row; /* MCU row */
};

struct decode_indexed {
    const struct jpeg_ops *ops;
    struct jpeg_header header;
    struct huffman_set tables;
    struct jpeg_index index;
    const uint8_t *scan;
    struct mcu_box box;
    uint32_t next_row;  /* MCU row: the first one not decoded */
    uint32_t rows_kept; /* MCU rows that the planes have room for */
    uint32_t mcus_per_call;
    struct entropy_block blocks[ENTROPY_MAX_BLOCKS];
    struct run runs[2];
    struct buffer samples;
    uint8_t *plane[JPEG_MAX_COMPONENTS]; /* where box begins */
    size_t stride[JPEG_MAX_COMPONENTS];
    int16_t tiles[ENTROPY_MAX_BLOCKS * ENTROPY_TILE] __attribute__((aligned(ALIGNMENT)));
};

static uint32_t ceil_div(uint32_t a, uint32_t b)
{
    return (uint32_t)(((uint64_t)a + b - 1) / b);
}

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static int buffer_reserve(struct buffer *buffer, size_t bytes)
{
    bool too_large = buffer->capacity > DECODE_KEEP_BYTES && bytes <= DECODE_KEEP_BYTES;
    if (bytes <= buffer->capacity && !too_large)
        return 0;
    size_t slack = bytes < DECODE_KEEP_BYTES / 2 ? bytes / 2 : 0;
    size_t capacity = (bytes + slack + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    free(buffer->bytes);
    buffer->capacity = 0;
    buffer->bytes = aligned_alloc(ALIGNMENT, capacity);
    if (!buffer->bytes)
        return err_set(ERR_NOMEM, "out of memory for decoding a JPEG (%zu bytes)", capacity);
    buffer->capacity = capacity;
    return 0;
}

int decode_indexed_open(struct decode_indexed **out, enum cpu_level level)
{
    if (level > cpu_level_of_machine())
        return err_set(ERR_UNSUPPORTED, "this machine has no %s", cpu_level_name(level));
    size_t bytes = (sizeof(struct decode_indexed) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    struct decode_indexed *decoder = aligned_alloc(ALIGNMENT, bytes);
    if (!decoder)
        return err_set(ERR_NOMEM, "out of memory for a JPEG decoder");
    memset(decoder, 0, bytes);
    decoder->ops = jpeg_ops_of(level);
    *out = decoder;
    return 0;
}

void decode_indexed_close(struct decode_indexed *decoder)
{
    if (!decoder)
        return;
    for (int i = 0; i < 2; i++)
        free(decoder->runs[i].buffer.bytes);
    free(decoder->samples.bytes);
    free(decoder);
}

static int wrong_index(void)
{
    return err_set(ERR_DATA, "the JPEG's side index does not fit its entropy-coded data");
}

static bool is_restart(const struct jpeg_header *header, uint32_t mcu)
{
    return header->restart_interval && mcu % header->restart_interval == 0;
}

static uint32_t next_restart(const struct jpeg_header *header, uint32_t mcu)
{
    uint32_t interval = header->restart_interval;
    return interval ? (mcu / interval + 1) * interval : UINT32_MAX;
}

/* Brings the run's bytes up to the next restart marker, or its end, into its buffer. */
static int run_load(struct decode_indexed *decoder, struct run *run, uint32_t bit)
{
    size_t want = run->end - run->at, used;
    int code = buffer_reserve(&run->buffer, want + 1 + ENTROPY_OVERRUN_BYTES);
    if (code)
        return code;
    run->bytes = decoder->ops->destuff(run->buffer.bytes, decoder->scan + run->at, want, &used);
    run->at += used;
    run->restart = next_restart(&decoder->header, run->mcu);
    if (run->restart >= run->boundary) {
        if (run->at != run->end)
            return wrong_index(); /* a marker where none belongs */
        if (run->end_bit)
            run->buffer.bytes[run->bytes] = decoder->scan[run->end];
    }
    entropy_start(&run->stream, run->buffer.bytes, bit);
    return 0;
}

/* Where MCU number mcu begins, for entry boundaries and the end of the scan. */
static struct jpeg_index_entry entry_behind(const struct decode_indexed *decoder, uint32_t number)
{
    if (number < decoder->index.entry_count)
        return jpeg_index_entry(&decoder->index, number);
    return (struct jpeg_index_entry){.bit = decoder->index.scan_bytes * 8};
}

/* Asks for the bytes of a row's MCU columns [x0, x1): they come from a map that is rarely in cache.
 */
static void prefetch_row(const struct decode_indexed *decoder, uint32_t row, uint32_t x0,
                         uint32_t x1)
{
    const struct jpeg_index *index = &decoder->index;
    uint32_t entry = row * index->entries_per_row;
    size_t begin = entry_behind(decoder, entry + x0 / index->mcus_per_entry).bit / 8;
    size_t end = entry_behind(decoder, entry + ceil_div(x1, index->mcus_per_entry)).bit / 8;
    for (end = end < index->scan_bytes ? end : index->scan_bytes; begin < end; begin += ALIGNMENT)
        __builtin_prefetch(decoder->scan + begin);
}

/* Starts a run over MCU columns [x0, x1) of a row. */
static int run_begin(struct decode_indexed *decoder, struct run *run, uint32_t row, uint32_t x0,
                     uint32_t x1)
{
    const struct jpeg_header *header = &decoder->header;
    const struct jpeg_index *index = &decoder->index;
    uint32_t step = index->mcus_per_entry, row_begin = row * header->mcus_across;
    uint32_t first_entry = row * index->entries_per_row + x0 / step;
    uint32_t last_entry = row * index->entries_per_row + ceil_div(x1, step);
    struct jpeg_index_entry begin = jpeg_index_entry(index, first_entry);

    run->row = row;
    run->mcu = row_begin + x0 / step * step;
    run->first = row_begin + x0;
    run->stop = row_begin + x1;
    run->boundary = row_begin + min_u32(ceil_div(x1, step) * step, header->mcus_across);
    run->after = entry_behind(decoder, last_entry);
    run->at = begin.bit / 8;
    run->end = run->after.bit / 8;
    run->end_bit = run->after.bit % 8;
    bool last = last_entry == index->entry_count;
    run->ends_padded = last || is_restart(header, run->boundary);
    if (run->ends_padded && !last)
        run->end -= 2; /* the marker; wraps for a wrong index, caught below */
    if (run->end > index->scan_bytes || run->at >= run->end + (run->end_bit > 0) ||
        (run->end_bit && run->end >= index->scan_bytes))
        return wrong_index();
    memcpy(run->stream.dc, begin.dc, sizeof begin.dc);
    return run_load(decoder, run, begin.bit % 8);
}

/* Bits that the run's present bytes have. */
static size_t run_bits(const struct run *run)
{
    return run->bytes * 8 + (run->restart >= run->boundary ? run->end_bit : 0);
}

/* After MCUs were parsed: past the end, at a restart marker, at the run's end? */
static int run_advance(struct decode_indexed *decoder, struct run *run, uint32_t mcus)
{
    const struct jpeg_header *header = &decoder->header;
    size_t position = entropy_position(&run->stream, run->buffer.bytes), bits = run_bits(run);
    run->mcu += mcus;
    if (position > bits)
        return wrong_index();
    if (run->mcu == run->stop) {
        if (run->stop != run->boundary)
            return 0;
        if (run->ends_padded)
            return (position + 7) / 8 == run->bytes ? 0 : wrong_index();
        for (uint32_t c = 0; c < header->component_count; c++)
            if (run->stream.dc[c] != run->after.dc[c])
                return wrong_index();
        return position == bits ? 0 : wrong_index();
    }
    if (run->mcu != run->restart)
        return 0;
    const uint8_t *marker = decoder->scan + run->at;
    uint32_t number = (run->mcu / header->restart_interval - 1) & 7;
    if ((position + 7) / 8 != run->bytes || run->end - run->at < 2 || marker[0] != 0xff ||
        marker[1] != MARKER_RST0 + number)
        return wrong_index();
    run->at += 2;
    memset(run->stream.dc, 0, sizeof run->stream.dc);
    return run_load(decoder, run, 0);
}

/* Whether the next MCUs of a run are only to be parsed. */
static bool run_skips(const struct run *run)
{
    return run->mcu < run->first;
}

/* How many MCUs a run can go on without a change. */
static uint32_t run_ready(const struct decode_indexed *decoder, const struct run *run)
{
    uint32_t until = min_u32(run_skips(run) ? run->first : run->stop, run->restart);
    return min_u32(until - run->mcu, decoder->mcus_per_call);
}

/* Where the samples of a run's next MCU go. */
static uint8_t *run_samples(const struct decode_indexed *decoder, const struct run *run, uint32_t c)
{
    const struct jpeg_component *component = &decoder->header.component[c];
    size_t x = run->mcu - run->row * decoder->header.mcus_across - decoder->box.x0;
    size_t y = (run->row - decoder->box.y0) % decoder->rows_kept;
    return decoder->plane[c] + y * component->v * BLOCK * decoder->stride[c] +
           x * component->h * BLOCK;
}

/* The tiles of mcus MCUs to samples; b may be NULL. */
static void transform(struct decode_indexed *decoder, const struct run *a, const struct run *b,
                      uint32_t mcus)
{
    const struct jpeg_header *header = &decoder->header;
    int16_t *tile = decoder->tiles;
    for (uint32_t c = 0; c < header->component_count; c++) {
        const struct jpeg_component *component = &header->component[c];
        size_t stride = decoder->stride[c], step = (size_t)component->h * BLOCK;
        uint8_t *to_a = run_samples(decoder, a, c);
        uint8_t *to_b = b ? run_samples(decoder, b, c) : NULL;
        for (uint32_t v = 0; v < component->v; v++) {
            for (uint32_t h = 0; h < component->h; h++, tile += ENTROPY_TILE) {
                size_t at = v * BLOCK * stride + h * BLOCK;
                decoder->ops->idct(tile, mcus, (size_t)header->blocks_per_mcu * ENTROPY_TILE,
                                   header->quant[component->quant], to_a + at, b ? to_b + at : NULL,
                                   step, stride);
            }
        }
    }
}

/* Goes on by some MCUs with one run, or with two of the same mind. */
static int go_on(struct decode_indexed *decoder, struct run *a, struct run *b)
{
    const struct jpeg_ops *ops = decoder->ops;
    uint32_t mcus = run_ready(decoder, a);
    if (b)
        mcus = min_u32(mcus, run_ready(decoder, b));
    uint32_t blocks = mcus * decoder->header.blocks_per_mcu;
    if (run_skips(a)) {
        if (b)
            ops->skip_two(&a->stream, &b->stream, decoder->blocks, blocks);
        else
            ops->skip_one(&a->stream, decoder->blocks, blocks);
    } else {
        if (b)
            ops->decode_two(&a->stream, &b->stream, decoder->blocks, blocks, decoder->tiles);
        else
            ops->decode_one(&a->stream, decoder->blocks, blocks, decoder->tiles);
        transform(decoder, a, b, mcus);
    }
    int code = run_advance(decoder, a, mcus);
    return code || !b ? code : run_advance(decoder, b, mcus);
}

/* Both runs to their ends. */
static int finish_two(struct decode_indexed *decoder, struct run *a, struct run *b)
{
    int code = 0;
    while (!code && (a->mcu < a->stop || b->mcu < b->stop)) {
        if (b->mcu == b->stop)
            code = go_on(decoder, a, NULL);
        else if (a->mcu == a->stop)
            code = go_on(decoder, b, NULL);
        else if (run_skips(a) == run_skips(b))
            code = go_on(decoder, a, b);
        else
            code = go_on(decoder, run_skips(a) ? a : b, NULL);
    }
    return code;
}

/* A single row, in two halves where an index entry lies between them. */
static int decode_row(struct decode_indexed *decoder, uint32_t row)
{
    const struct mcu_box *box = &decoder->box;
    struct run *a = &decoder->runs[0], *b = &decoder->runs[1];
    uint32_t step = decoder->index.mcus_per_entry;
    uint32_t middle = (box->x0 / step * step + box->x1) / 2 / step * step;
    bool halves = middle > box->x0 && middle < box->x1;
    int code = run_begin(decoder, a, row, box->x0, halves ? middle : box->x1);
    if (!code && halves)
        code = run_begin(decoder, b, row, middle, box->x1);
    else
        b->mcu = b->stop = 0;
    return code ? code : finish_two(decoder, a, b);
}

/* The next BAND_ROWS rows, or the last one. */
static int decode_band(struct decode_indexed *decoder)
{
    const struct mcu_box *box = &decoder->box;
    struct run *a = &decoder->runs[0], *b = &decoder->runs[1];
    uint32_t row = decoder->next_row;
    decoder->next_row = min_u32(row + BAND_ROWS, box->y1);
    if (decoder->next_row - row < BAND_ROWS)
        return decode_row(decoder, row);
    int code = run_begin(decoder, a, row, box->x0, box->x1);
    if (!code)
        code = run_begin(decoder, b, row + 1, box->x0, box->x1);
    for (uint32_t next = row + 2; next < min_u32(row + 4, box->y1); next++)
        prefetch_row(decoder, next, box->x0, box->x1);
    return code ? code : finish_two(decoder, a, b);
}

/* Decoding instructions for as many MCUs as one call takes. */
static void plan_blocks(struct decode_indexed *decoder)
{
    const struct jpeg_header *header = &decoder->header;
    uint32_t count = 0;
    decoder->mcus_per_call = ENTROPY_MAX_BLOCKS / header->blocks_per_mcu;
    for (uint32_t mcu = 0; mcu < decoder->mcus_per_call; mcu++)
        for (uint32_t c = 0; c < header->component_count; c++) {
            const struct jpeg_component *component = &header->component[c];
            for (int i = 0; i < component->h * component->v; i++)
                decoder->blocks[count++] =
                    (struct entropy_block){.dc = &decoder->tables.dc[component->dc],
                                           .ac = &decoder->tables.ac[component->ac],
                                           .component = c};
        }
}

/* Where the box's samples go: the planes one behind the other in one buffer. */
static int lay_out(struct decode_indexed *decoder, struct planes *planes)
{
    const struct jpeg_header *header = &decoder->header;
    const struct mcu_box *box = &decoder->box;
    size_t begin[JPEG_MAX_COMPONENTS], total = 0;
    *planes = (struct planes){.colour = header->colour,
                              .width = header->width,
                              .height = header->height,
                              .h_max = header->h_max,
                              .v_max = header->v_max};
    for (uint32_t c = 0; c < header->component_count; c++) {
        const struct jpeg_component *component = &header->component[c];
        uint32_t across = component->h * BLOCK, down = component->v * BLOCK;
        size_t stride = (size_t)(box->x1 - box->x0) * across;
        stride = (stride + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        begin[c] = total;
        total += stride * decoder->rows_kept * down + PLANES_PADDING_BYTES;
        decoder->stride[c] = stride;
        struct plane *plane = &planes->plane[c];
        plane->stride = stride;
        plane->x0 = box->x0 * across;
        plane->y0 = box->y0 * down;
        plane->full_width = ceil_div(header->width * component->h, header->h_max);
        plane->full_height = ceil_div(header->height * component->v, header->v_max);
        plane->width = min_u32(box->x1 * across, plane->full_width) - plane->x0;
        plane->height = min_u32(box->y1 * down, plane->full_height) - plane->y0;
        plane->h_factor = component->h;
        plane->v_factor = component->v;
    }
    int code = buffer_reserve(&decoder->samples, total);
    if (code)
        return code;
    for (uint32_t c = 0; c < header->component_count; c++)
        planes->plane[c].pixels = decoder->plane[c] = decoder->samples.bytes + begin[c];
    return 0;
}

static int read_header(struct decode_indexed *decoder, const uint8_t *jpeg, size_t jpeg_bytes)
{
    enum jpeg_refusal refusal = jpeg_header_parse(&decoder->header, jpeg, jpeg_bytes);
    if (!refusal)
        refusal = huffman_set_load(&decoder->tables, &decoder->header);
    if (refusal)
        return err_set(ERR_UNSUPPORTED, "a JPEG without side index: %s",
                       jpeg_refusal_text(refusal));
    return 0;
}

static int find_box(struct mcu_box *box, const struct jpeg_header *header,
                    const struct decode_region *region)
{
    if (region->x0 >= region->x1 || region->x1 > header->width || region->y0 >= region->y1 ||
        region->y1 > header->height)
        return err_set(ERR_ARG, "no region [%u, %u) x [%u, %u) in an image of %u x %u px",
                       region->x0, region->x1, region->y0, region->y1, header->width,
                       header->height);
    uint32_t across = header->h_max * BLOCK, down = header->v_max * BLOCK;
    *box = (struct mcu_box){.x0 = region->x0 / across,
                            .x1 = ceil_div(region->x1, across),
                            .y0 = region->y0 / down,
                            .y1 = ceil_div(region->y1, down)};
    return 0;
}

/* Everything but the rows. */
static int begin(struct decode_indexed *decoder, struct planes *planes, const uint8_t *jpeg,
                 size_t jpeg_bytes, const uint8_t *index, size_t index_bytes,
                 const struct decode_region *region, bool in_bands)
{
    int code = read_header(decoder, jpeg, jpeg_bytes);
    if (!code)
        code = jpeg_index_open(&decoder->index, index, index_bytes, &decoder->header, jpeg_bytes);
    if (!code)
        code = find_box(&decoder->box, &decoder->header, region);
    if (code)
        return code;
    uint32_t rows = decoder->box.y1 - decoder->box.y0;
    decoder->rows_kept = in_bands ? BANDS_KEPT * BAND_ROWS : rows;
    decoder->next_row = decoder->box.y0;
    decoder->scan = jpeg + decoder->header.scan_offset;
    plan_blocks(decoder);
    return lay_out(decoder, planes);
}

int decode_indexed_region(struct decode_indexed *decoder, struct planes *planes,
                          const uint8_t *jpeg, size_t jpeg_bytes, const uint8_t *index,
                          size_t index_bytes, const struct decode_region *region)
{
    int code = begin(decoder, planes, jpeg, jpeg_bytes, index, index_bytes, region, false);
    while (!code && decoder->next_row < decoder->box.y1)
        code = decode_band(decoder);
    return code;
}

int decode_indexed_begin(struct decode_indexed *decoder, struct planes *planes, const uint8_t *jpeg,
                         size_t jpeg_bytes, const uint8_t *index, size_t index_bytes,
                         const struct decode_region *region)
{
    int code = begin(decoder, planes, jpeg, jpeg_bytes, index, index_bytes, region, true);
    for (uint32_t c = 0; !code && c < decoder->header.component_count; c++)
        planes->plane[c].rows_kept = decoder->rows_kept * decoder->header.component[c].v * BLOCK;
    return code;
}

int decode_indexed_next_band(struct decode_indexed *decoder, struct planes *planes)
{
    if (decoder->next_row >= decoder->box.y1)
        return err_set(ERR_INTERNAL, "a JPEG has no more bands");
    int code = decode_band(decoder);
    for (uint32_t c = 0; !code && c < decoder->header.component_count; c++) {
        uint32_t rows = decoder->next_row - decoder->box.y0;
        struct plane *plane = &planes->plane[c];
        plane->rows_ready = min_u32(rows * decoder->header.component[c].v * BLOCK, plane->height);
    }
    return code;
}
