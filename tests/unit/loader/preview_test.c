/* SPDX-License-Identifier: Apache-2.0 */
/* satchel-preview and satchel-bench-loader as a user runs them.
 * Usage: preview_test PREVIEW BENCH_LOADER */
#include <archive.h>
#include <archive_entry.h>
#include <math.h>
#include <spng.h>
#include <string.h>
#include <sys/wait.h>

#include "common/half.h"
#include "loader/sample.h"
#include "proto/recipe.h"
#include "tests/unit/loader/stores.h"

static const char *preview_program, *bench_program;
static struct store *store;
static char out_path[TESTING_PATH_BYTES];

static int open_store(void **state)
{
    store = make_store(0);
    testing_path(out_path, testing_directory(), "batch.npz");
    return 0;
}

static int close_store(void **state)
{
    store_close(store);
    return 0;
}

/* Runs PROGRAM STORE ARGUMENTS; its output, stdout and stderr as one, goes to text. Returns the
 * exit status. */
static int run(char text[4096], const char *program, const char *arguments)
{
    char command[3 * TESTING_PATH_BYTES];
    snprintf(command, sizeof command, "'%s' '%s' %s 2>&1", program, store_path(store), arguments);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    text[fread(text, 1, 4095, pipe)] = '\0';
    int status = pclose(pipe);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int run_preview(const char *arguments)
{
    char text[4096], all[TESTING_PATH_BYTES * 2];
    snprintf(all, sizeof all, "--out '%s' %s", out_path, arguments);
    int status = run(text, preview_program, all);
    if (status)
        print_message("%s", text);
    return status;
}

/* The data of an array, behind its header, which must say descr and shape as NumPy writes them. */
static struct bytes array_of(const char *name, const char *descr, const char *shape)
{
    struct archive *zip = archive_read_new();
    struct archive_entry *entry;
    struct bytes array = {NULL, 0};
    char wanted[200];
    archive_read_support_format_zip(zip);
    assert_int_equal(archive_read_open_filename(zip, out_path, 1 << 16), ARCHIVE_OK);
    while (archive_read_next_header(zip, &entry) == ARCHIVE_OK) {
        if (strcmp(archive_entry_pathname(entry), name))
            continue;
        array.count = (size_t)archive_entry_size(entry);
        array.data = malloc(array.count);
        assert_int_equal(archive_read_data(zip, array.data, array.count), array.count);
    }
    archive_read_free(zip);
    assert_non_null(array.data);
    assert_memory_equal(array.data, "\x93NUMPY\x01\0", 8);
    size_t header = 10u + array.data[8] + 256u * array.data[9];
    assert_int_equal(header % 64, 0);
    assert_int_equal(array.data[header - 1], '\n');
    snprintf(wanted, sizeof wanted, "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }",
             descr, shape);
    assert_memory_equal(array.data + 10, wanted, strlen(wanted));
    array.count -= header;
    memmove(array.data, array.data + header, array.count);
    return array;
}

static void assert_array(const char *name, const char *descr, const char *shape, const void *data,
                         size_t bytes)
{
    struct bytes array = array_of(name, descr, shape);
    assert_int_equal(array.count, bytes);
    assert_memory_equal(array.data, data, bytes);
    free(array.data);
}

/* What the builder gives for the same recipe. */
static void arrays_are_the_chunk(void **state)
{
    enum { SIDE = 40, CHUNK = 4, VALUES = SIDE * SIDE * 3 };
    struct recipe recipe;
    struct opt_section section = recipe_section(&recipe);
    struct spec spec;
    struct builder *builder;
    static uint16_t pixels[CHUNK * VALUES];
    uint8_t labels[CHUNK * CHUNK_LABEL_BYTES];
    uint32_t ids[CHUNK], a[CHUNK], b[CHUNK];
    float lam[CHUNK];
    struct chunk_build build = {.labels = labels, .pixels = pixels, .ids = ids};
    assert_int_equal(opt_defaults(&section), 0);
    recipe.size = SIDE;
    recipe.chunk_size = CHUNK;
    recipe.seed = 9;
    recipe.mixup_alpha = 0.2;
    assert_int_equal(recipe_train_spec(&spec, &recipe, 3), 0);
    assert_int_equal(builder_open(&builder, DECODER_REFERENCE), 0);
    assert_int_equal(builder_chunk(builder, &build, store, &spec, 3, 1, false), 0);
    builder_close(builder);
    for (int i = 0; i < CHUNK; i++) {
        struct chunk_label label = chunk_label_decode(labels + i * CHUNK_LABEL_BYTES);
        a[i] = label.a;
        b[i] = label.b;
        lam[i] = label.lam;
    }
    assert_int_equal(run_preview("--size 40 --chunk-size 4 --seed 9 --mixup-alpha 0.2 --epoch 3 "
                                 "--chunk 1"),
                     0);
    assert_array("pixels.npy", "<f2", "4, 40, 40, 3, ", pixels, sizeof pixels);
    assert_array("label_a.npy", "<u4", "4, ", a, sizeof a);
    assert_array("label_b.npy", "<u4", "4, ", b, sizeof b);
    assert_array("lam.npy", "<f4", "4, ", lam, sizeof lam);
    assert_array("id.npy", "<u4", "4, ", ids, sizeof ids);
}

/* The evaluation's last chunk is short; uint8 adds the offsets. */
static void other_streams_have_their_shapes(void **state)
{
    assert_int_equal(run_preview("--split val --size 24 --chunk-size 8 --chunk 1"), 0);
    struct bytes array = array_of("pixels.npy", "<f2", "3, 24, 24, 3, ");
    free(array.data);
    assert_int_equal(run_preview("--wire uint8 --size 24 --chunk-size 2"), 0);
    array = array_of("pixels.npy", "|u1", "2, 24, 24, 3, ");
    free(array.data);
    array = array_of("offset.npy", "<f4", "2, 3, ");
    assert_int_equal(array.count, 24);
    free(array.data);
}

/* A PNG file as [height][width][3]; the caller frees. */
static uint8_t *read_png(const char *path, struct spng_ihdr *header)
{
    FILE *file = fopen(path, "rb");
    size_t bytes;
    assert_non_null(file);
    spng_ctx *context = spng_ctx_new(0);
    assert_int_equal(spng_set_png_file(context, file), 0);
    assert_int_equal(spng_get_ihdr(context, header), 0);
    assert_int_equal(spng_decoded_image_size(context, SPNG_FMT_RGB8, &bytes), 0);
    uint8_t *pixels = malloc(bytes);
    assert_int_equal(spng_decode_image(context, pixels, bytes, SPNG_FMT_RGB8, 0), 0);
    spng_ctx_free(context);
    fclose(file);
    return pixels;
}

/* Every picture of the sheet is the chunk's, taken back from normalisation and enlarged; below
 * each there is text. Whatever the wire. */
static void the_sheet_shows_the_chunk(void **state)
{
    enum { SIDE = 40, SCALE = 4, CELLS = 4, GAP = 14, LINE = 16, PICTURE = SIDE * SCALE };
    static const char arguments[] = "--size 40 --chunk-size 4 --seed 9 --mixup-alpha 0.2";
    char text[4096], path[TESTING_PATH_BYTES], all[2 * TESTING_PATH_BYTES];
    const float mean[3] = {123.68F, 116.779F, 103.939F}, std[3] = {58.393F, 57.12F, 57.375F};
    struct spng_ihdr header;
    assert_int_equal(run_preview(arguments), 0);
    struct bytes array = array_of("pixels.npy", "<f2", "4, 40, 40, 3, ");
    const uint16_t *halves = (const uint16_t *)array.data;
    testing_path(path, testing_directory(), "sheet.png");
    snprintf(all, sizeof all, "--out '%s' --wire uint8 %s", path, arguments);
    assert_int_equal(run(text, preview_program, all), 0);
    uint8_t *sheet = read_png(path, &header);
    assert_int_equal(header.width, GAP + CELLS * (PICTURE + GAP));
    assert_int_equal(header.height, 2 * GAP + LINE + PICTURE + 2 * LINE + GAP);
    for (int n = 0; n < CELLS; n++) {
        int left = GAP + n * (PICTURE + GAP), top = 2 * GAP + LINE, inked = 0;
        for (int i = 0; i < SIDE * SIDE * 3; i++) {
            int x = i / 3 % SIDE, y = i / 3 / SIDE, c = i % 3;
            double wanted =
                (double)half_to_float(halves[n * SIDE * SIDE * 3 + i]) * std[c] + mean[c];
            size_t at = (size_t)(top + y * SCALE + n % SCALE) * header.width + left + x * SCALE + 3;
            wanted = wanted < 0 ? 0 : wanted > 255 ? 255 : wanted;
            if (!(fabs(sheet[3 * at + c] - wanted) <= 0.51))
                fail_msg("sample %d, (%d, %d): %u, not %g", n, x, y, sheet[3 * at + c], wanted);
        }
        for (int i = 0; i < PICTURE * 2 * LINE; i++) {
            size_t at = (size_t)(top + PICTURE + i / PICTURE) * header.width + left + i % PICTURE;
            inked += sheet[3 * at] > 100;
        }
        assert_true(inked > 50);
    }
    free(sheet);
    free(array.data);
}

static void refusals_say_why(void **state)
{
    static const struct {
        const char *arguments;
        int status;
        const char *word;
    } cases[] = {
        {"", 2, "--out"},
        {"--out x.txt", 2, ".npz"},
        {"--out /nowhere/x.png --size 8", 1, "/nowhere"},
        {"--out x.npz --chunk 99", 2, "no chunk 99"},
        {"--out /nowhere/x.npz --size 8", 1, "/nowhere"},
        {"--out x.npz --size 0", 2, "size"},
        {"--out x.npz --wat", 2, "wat"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[4096];
        int status = run(text, preview_program, cases[i].arguments);
        if (status != cases[i].status || !strstr(text, cases[i].word) ||
            strchr(text, '\n') != text + strlen(text) - 1)
            fail_msg("%s: status %d: %s", cases[i].arguments, status, text);
    }
}

static void the_benchmark_prints_its_json_line(void **state)
{
    char text[4096];
    double rate, cpu_rate;
    int threads;
    assert_int_equal(run(text, bench_program, "--threads 2 --seconds 0.2 --size 32 --json"), 0);
    const char *json = strchr(text, '{');
    assert_non_null(json);
    assert_int_equal(sscanf(json,
                            "{\"images_per_second\": %lf, \"images_per_cpu_second\": %lf, "
                            "\"threads\": %d}\n",
                            &rate, &cpu_rate, &threads),
                     3);
    assert_true(rate > 0 && cpu_rate > 0);
    assert_int_equal(threads, 2);
    assert_int_equal(
        run(text, bench_program,
            "--threads 1 --seconds 0.2 --size 32 --jitter bcs --interpolation bicubic"),
        0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arrays_are_the_chunk),
        cmocka_unit_test(other_streams_have_their_shapes),
        cmocka_unit_test(the_sheet_shows_the_chunk),
        cmocka_unit_test(refusals_say_why),
        cmocka_unit_test(the_benchmark_prints_its_json_line),
    };
    if (argc != 3) {
        fprintf(stderr, "usage: preview_test PREVIEW BENCH_LOADER\n");
        return 2;
    }
    preview_program = argv[1];
    bench_program = argv[2];
    return cmocka_run_group_tests(tests, open_store, close_store);
}
