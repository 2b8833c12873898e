/* SPDX-License-Identifier: Apache-2.0 */
/* satchel-bench-decode: how fast the decoders are on given JPEG files, and whether they agree. One
 * thread, files in memory, processor time. SATCHEL_ISA chooses the instruction set level. */
#include <stdio.h>

#include <jpeglib.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/file.h"
#include "common/log.h"
#include "common/opt.h"
#include "loader/crop.h"
#include "loader/decode.h"
#include "loader/jpeg/decode_indexed.h"
#include "loader/jpeg/jpeg_index.h"

enum { MAX_FILE_BYTES = 256 << 20 };

struct values {
    int64_t index, rounds, check;
    const char *only;
};

static const struct opt OPTIONS[] = {
    {"index", OPT_INT, offsetof(struct values, index), .fallback = "8", .min = 0,
     .max = JPEG_INDEX_MAX_MCUS, .value_name = "MCUS",
     .help = "an index entry every so many MCUs; 0: one a row"},
    {"rounds", OPT_INT, offsetof(struct values, rounds), .fallback = "5", .min = 1, .max = 1000,
     .value_name = "N", .help = "passes over all files; the fastest counts"},
    {"only", OPT_STRING, offsetof(struct values, only), .value_name = "TEXT",
     .help = "time only what has this in its name"},
    {"check", OPT_INT, offsetof(struct values, check), .fallback = "0", .min = 0, .max = 100000,
     .value_name = "N", .help = "instead of timing, compare N random crops of every file"},
};

struct image {
    uint8_t *jpeg;
    size_t jpeg_bytes;
    uint8_t *index;
    size_t index_bytes;
    struct decode_region all, crop;
};

struct bench {
    struct image *images; /* those that have an index */
    uint32_t count;
    struct decoder *reference;
    struct decode_indexed *indexed;
    struct jpeg_indexer *indexer;
    uint32_t mcus;
};

static struct decode_region draw_crop(uint32_t epoch, uint32_t id, uint32_t width, uint32_t height)
{
    const struct spec spec = {.crop = SPEC_CROP_RRC,
                              .size_px = 224,
                              .area_min = 0.08f,
                              .area_max = 1,
                              .aspect_min = 0.75f,
                              .aspect_max = 1.3333333f};
    struct crop crop;
    crop_draw(&crop, &spec, epoch, id, width, height);
    return (struct decode_region){crop.x.low, crop.x.high, crop.y.low, crop.y.high};
}

/* Reads a file and makes its index; a file that is not taken is named and left out. */
static int add_image(struct bench *bench, const char *path)
{
    struct image image = {0};
    const uint8_t *index;
    enum jpeg_refusal refusal;
    struct jpeg_header header;
    int code = file_read(&image.jpeg, &image.jpeg_bytes, path, MAX_FILE_BYTES);
    if (!code)
        code = jpeg_index_build(bench->indexer, &index, &image.index_bytes, &refusal, image.jpeg,
                                image.jpeg_bytes, bench->mcus);
    if (code || refusal) {
        if (!code)
            log_warn("%s: not taken: %s", path, jpeg_refusal_text(refusal));
        free(image.jpeg);
        return code;
    }
    image.index = malloc(image.index_bytes);
    if (!image.index) {
        free(image.jpeg);
        return err_set(ERR_NOMEM, "out of memory for the side index of %s", path);
    }
    memcpy(image.index, index, image.index_bytes);
    jpeg_header_parse(&header, image.jpeg, image.jpeg_bytes);
    image.all = (struct decode_region){0, header.width, 0, header.height};
    image.crop = draw_crop(0, bench->count, header.width, header.height);
    bench->images[bench->count++] = image;
    return 0;
}

static int region(struct bench *bench, struct planes *planes, const struct image *image,
                  const struct decode_region *region_px)
{
    return decode_indexed_region(bench->indexed, planes, image->jpeg, image->jpeg_bytes,
                                 image->index, image->index_bytes, region_px);
}

/* What is timed: one image. */
static int job_crop(struct bench *bench, const struct image *image)
{
    struct planes planes;
    return region(bench, &planes, image, &image->crop);
}

static int job_whole(struct bench *bench, const struct image *image)
{
    struct planes planes;
    return region(bench, &planes, image, &image->all);
}

static int job_reference(struct bench *bench, const struct image *image)
{
    struct planes planes;
    return decode_file(bench->reference, &planes, image->jpeg, image->jpeg_bytes);
}

static int job_index(struct bench *bench, const struct image *image)
{
    const uint8_t *index;
    size_t index_bytes;
    enum jpeg_refusal refusal;
    return jpeg_index_build(bench->indexer, &index, &index_bytes, &refusal, image->jpeg,
                            image->jpeg_bytes, bench->mcus);
}

/* As everybody does it: libjpeg-turbo to interleaved RGB with its defaults. */
static int job_rgb(struct bench *bench, const struct image *image)
{
    (void)bench;
    struct jpeg_decompress_struct info;
    struct jpeg_error_mgr errors;
    info.err = jpeg_std_error(&errors);
    jpeg_create_decompress(&info);
    jpeg_mem_src(&info, image->jpeg, image->jpeg_bytes);
    jpeg_read_header(&info, TRUE);
    info.out_color_space = JCS_RGB;
    jpeg_start_decompress(&info);
    size_t stride = (size_t)info.output_width * 3;
    uint8_t *pixels = malloc(stride * info.output_height);
    if (!pixels) {
        jpeg_destroy_decompress(&info);
        return err_set(ERR_NOMEM, "out of memory for a decoded image");
    }
    while (info.output_scanline < info.output_height) {
        JSAMPROW row = pixels + info.output_scanline * stride;
        jpeg_read_scanlines(&info, &row, 1);
    }
    jpeg_finish_decompress(&info);
    jpeg_destroy_decompress(&info);
    free(pixels);
    return 0;
}

static const struct job {
    const char *name;
    int (*run)(struct bench *bench, const struct image *image);
} JOBS[] = {
    {"libjpeg, whole image to RGB", job_rgb},
    {"reference, whole image to planes", job_reference},
    {"indexed, whole image to planes", job_whole},
    {"indexed, crop to planes", job_crop},
    {"making the side index", job_index},
};

static bool is_wanted(const struct job *job, const char *only)
{
    return !only || strstr(job->name, only);
}

static int time_jobs(struct bench *bench, int64_t rounds, const char *only)
{
    double best_ns[ARRAY_COUNT(JOBS)] = {0};
    for (int64_t round = 0; round < rounds; round++) {
        for (size_t j = 0; j < ARRAY_COUNT(JOBS); j++) {
            if (!is_wanted(&JOBS[j], only))
                continue;
            int64_t begin = clock_cpu_ns();
            for (uint32_t i = 0; i < bench->count; i++) {
                int code = JOBS[j].run(bench, &bench->images[i]);
                if (code)
                    return code;
            }
            double ns = (double)(clock_cpu_ns() - begin);
            if (round == 0 || ns < best_ns[j])
                best_ns[j] = ns;
        }
    }
    for (size_t j = 0; j < ARRAY_COUNT(JOBS); j++)
        if (is_wanted(&JOBS[j], only))
            printf("%-34s %8.1f us/image %8.0f images/s\n", JOBS[j].name,
                   best_ns[j] / 1e3 / bench->count, bench->count * 1e9 / best_ns[j]);
    return 0;
}

static int compare(const struct planes *part, const struct planes *whole)
{
    for (int c = 0; c < (part->colour == PLANES_GREY ? 1 : 3); c++) {
        const struct plane *a = &part->plane[c], *b = &whole->plane[c];
        for (uint32_t y = 0; y < a->height; y++)
            if (memcmp(a->pixels + y * a->stride, b->pixels + (a->y0 + y) * b->stride + a->x0,
                       a->width) != 0)
                return err_set(ERR_INTERNAL, "plane %d, row %u differs", c, a->y0 + y);
    }
    return 0;
}

static int check(struct bench *bench, uint32_t crops)
{
    for (uint32_t i = 0; i < bench->count; i++) {
        const struct image *image = &bench->images[i];
        struct planes whole, part;
        int code = decode_file(bench->reference, &whole, image->jpeg, image->jpeg_bytes);
        for (uint32_t n = 0; !code && n <= crops; n++) {
            struct decode_region box = draw_crop(n, i, image->all.x1, image->all.y1);
            code = region(bench, &part, image, n ? &box : &image->all);
            if (!code)
                code = compare(&part, &whole);
        }
        if (code)
            return err_wrap(code, "file %u", i);
    }
    printf("%" PRIu32 " files, %" PRIu32 " crops each: all samples equal the reference's\n",
           bench->count, crops);
    return 0;
}

static int run(struct bench *bench, const struct opt_program *program, const struct values *values)
{
    size_t jpeg_bytes = 0, index_bytes = 0;
    bench->mcus = (uint32_t)values->index;
    bench->images = calloc((size_t)program->positional_count, sizeof *bench->images);
    if (!bench->images)
        return err_set(ERR_NOMEM, "out of memory");
    int code = decoder_open(&bench->reference);
    if (!code)
        code = decode_indexed_open(&bench->indexed, cpu_level());
    if (!code)
        code = jpeg_indexer_open(&bench->indexer);
    for (int i = 0; !code && i < program->positional_count; i++)
        code = add_image(bench, program->positional[i]);
    if (code)
        return code;
    if (bench->count == 0)
        return err_set(ERR_DATA, "none of the files can have a side index");
    for (uint32_t i = 0; i < bench->count; i++) {
        jpeg_bytes += bench->images[i].jpeg_bytes;
        index_bytes += bench->images[i].index_bytes;
    }
    printf("%u files of %.1f KB, side index of %.0f bytes (%.2f %%), level %s\n", bench->count,
           (double)jpeg_bytes / 1e3 / bench->count, (double)index_bytes / bench->count,
           100.0 * (double)index_bytes / (double)jpeg_bytes, cpu_level_name(cpu_level()));
    if (values->check)
        return check(bench, (uint32_t)values->check);
    return time_jobs(bench, values->rounds, values->only);
}

static void bench_close(struct bench *bench)
{
    for (uint32_t i = 0; i < bench->count; i++) {
        free(bench->images[i].jpeg);
        free(bench->images[i].index);
    }
    free(bench->images);
    decoder_close(bench->reference);
    decode_indexed_close(bench->indexed);
    jpeg_indexer_close(bench->indexer);
}

int main(int argc, char **argv)
{
    struct values values;
    struct bench bench = {0};
    struct opt_section sections[] = {{"Decoding", OPTIONS, ARRAY_COUNT(OPTIONS), &values}};
    struct opt_program program = {
        .name = "satchel-bench-decode",
        .usage = "FILE.jpg... [OPTIONS]",
        .summary = "Times libjpeg and the indexed decoder on JPEG files, or compares them.",
        .sections = sections,
        .section_count = ARRAY_COUNT(sections),
        .min_positional = 1,
        .max_positional = -1,
    };
    log_open(program.name);
    int code = opt_parse(&program, argc, argv);
    if (!code && !program.finished)
        code = run(&bench, &program, &values);
    int status = opt_end(&program, code); /* first: closing may fail as well */
    bench_close(&bench);
    return status;
}
