/* SPDX-License-Identifier: Apache-2.0 */
/* safetensors: what is written reads back; hostile files are refused with a line that names them.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/err.h"
#include "common/file.h"
#include "tests/unit/testing.h"
#include "trainer/safetensors.h"

static const char *directory;

/* Writes a file of a header and as many zero bytes of data; header_bytes 0: the header's length. */
static void write_raw(char path[TESTING_PATH_BYTES], const char *header, uint64_t header_bytes,
                      size_t data_bytes)
{
    static int number;
    char name[32];
    size_t length = strlen(header);
    uint8_t *bytes = calloc(1, 8 + length + data_bytes);
    assert_non_null(bytes);
    if (header_bytes == 0)
        header_bytes = length;
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(header_bytes >> 8 * i);
    memcpy(bytes + 8, header, length);
    snprintf(name, sizeof name, "%d.safetensors", number++);
    testing_path(path, directory, name);
    assert_int_equal(file_write_atomic(path, bytes, 8 + length + data_bytes), 0);
    free(bytes);
}

static void assert_refused(const char *header, uint64_t header_bytes, size_t data_bytes,
                           const char *wanted)
{
    char path[TESTING_PATH_BYTES];
    struct safetensors *file;
    write_raw(path, header, header_bytes, data_bytes);
    if (safetensors_open(&file, path) != ERR_DATA)
        fail_msg("accepted: %s", header);
    assert_null(file);
    if (!strstr(err_message(), wanted) || !strstr(err_message(), path))
        fail_msg("'%s' does not say '%s'", err_message(), wanted);
}

static void reads_what_was_written(void **state)
{
    char path[TESTING_PATH_BYTES];
    const struct safetensors_entry entries[] = {
        {.name = "b.weight", .rank = 2, .shape = {2, 3}},
        {.name = "a.bias", .rank = 1, .shape = {1}},
        {.name = "empty", .rank = 1, .shape = {0}},
        {.name = "scalar", .rank = 0},
    };
    const struct safetensors_pair pairs[] = {{"recipe", "lr = 0.1\nmodel = \"x\"\n"}, {"k", ""}};
    const float weight[] = {1, -2, 3.5f, 0, -0.0f, 1e-40f}, bias[] = {7}, scalar[] = {9};
    struct safetensors_writer *writer;
    testing_path(path, directory, "written.safetensors");
    assert_int_equal(safetensors_write_open(&writer, path, entries, 4, pairs, 2), 0);
    assert_int_equal(safetensors_write_next(writer, weight), 0);
    assert_int_equal(safetensors_write_next(writer, bias), 0);
    assert_int_equal(safetensors_write_next(writer, NULL), 0);
    assert_int_equal(safetensors_write_next(writer, scalar), 0);
    assert_int_equal(safetensors_write_next(writer, scalar), ERR_INTERNAL);
    assert_int_equal(safetensors_write_commit(writer), 0);

    struct safetensors *file;
    float got[6];
    assert_int_equal(safetensors_open(&file, path), 0);
    assert_int_equal(safetensors_count(file), 4);
    assert_string_equal(safetensors_metadata(file, "recipe"), pairs[0].value);
    assert_string_equal(safetensors_metadata(file, "k"), "");
    assert_null(safetensors_metadata(file, "K"));
    const struct safetensors_tensor *tensor = safetensors_find(file, "b.weight");
    assert_non_null(tensor);
    assert_int_equal(tensor->rank, 2);
    assert_int_equal(tensor->shape[1], 3);
    assert_int_equal(tensor->offset % 8, 0);
    assert_int_equal(safetensors_read(got, file, tensor), 0);
    assert_memory_equal(got, weight, sizeof weight);
    tensor = safetensors_find(file, "scalar");
    assert_int_equal(tensor->count, 1);
    assert_int_equal(safetensors_read(got, file, tensor), 0);
    assert_true(got[0] == 9);
    assert_null(safetensors_find(file, "a"));
    safetensors_close(file);
}

static void incomplete_write_publishes_nothing(void **state)
{
    char path[TESTING_PATH_BYTES];
    const struct safetensors_entry entry = {.name = "a", .rank = 1, .shape = {4}};
    struct safetensors_writer *writer;
    testing_path(path, directory, "incomplete.safetensors");
    assert_int_equal(safetensors_write_open(&writer, path, &entry, 1, NULL, 0), 0);
    assert_int_equal(safetensors_write_commit(writer), ERR_INTERNAL);
    assert_int_not_equal(access(path, F_OK), 0);
}

/* fp16, bf16 and double become floats; other types have places and no values. */
static void converts_other_types(void **state)
{
    const char header[] = "{\"b\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]},"
                          "\"h\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[4,8]},"
                          "\"d\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[8,16]},"
                          "\"bn.num_batches_tracked\":{\"dtype\":\"I64\",\"shape\":[],"
                          "\"data_offsets\":[16,24]}}  ";
    char path[TESTING_PATH_BYTES];
    write_raw(path, header, 0, 24);
    const uint16_t halves[] = {0x3fc0, 0xc000 /* bf16 1.5, -2 */, 0x3e00,
                               0x0001 /* fp16 1.5, 2^-24 */};
    const double real = 0.1;
    FILE *stream = fopen(path, "r+b");
    assert_non_null(stream);
    assert_int_equal(fseek(stream, (long)(8 + strlen(header)), SEEK_SET), 0);
    assert_int_equal(fwrite(halves, sizeof halves, 1, stream), 1);
    assert_int_equal(fwrite(&real, sizeof real, 1, stream), 1);
    assert_int_equal(fclose(stream), 0);

    struct safetensors *file;
    float got[2];
    assert_int_equal(safetensors_open(&file, path), 0);
    assert_int_equal(safetensors_read(got, file, safetensors_find(file, "b")), 0);
    assert_true(got[0] == 1.5f && got[1] == -2.0f);
    assert_int_equal(safetensors_read(got, file, safetensors_find(file, "h")), 0);
    assert_true(got[0] == 1.5f && got[1] == 0x1p-24f);
    assert_int_equal(safetensors_read(got, file, safetensors_find(file, "d")), 0);
    assert_true(got[0] == 0.1f);
    assert_int_equal(safetensors_read(got, file, safetensors_find(file, "bn.num_batches_tracked")),
                     ERR_DATA);
    assert_non_null(strstr(err_message(), "I64"));
    /* Cut while it is open. */
    assert_int_equal(truncate(path, (off_t)(8 + strlen(header) + 9)), 0);
    assert_int_equal(safetensors_read(got, file, safetensors_find(file, "d")), ERR_DATA);
    safetensors_close(file);
}

#define ONE(name, dtype, shape, offsets)                                                           \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void refuses_hostile_headers(void **state)
{
    static const struct {
        const char *header;
        uint64_t header_bytes;
        size_t data_bytes;
        const char *wanted;
    } cases[] = {
        {"{}", 100000001, 0, "header of 100000001 bytes"},
        {"{}", 8388609, 8388700, "more than 8388608"},
        {"{}", 3, 0, "header of 3 bytes"},
        {"{}", UINT64_MAX, 0, "header of"},
        {"[]", 0, 0, "no JSON object"},
        {"{", 0, 0, "no JSON object"},
        {"{}x", 0, 0, "no JSON object"},
        {"{\"a\":1}", 0, 0, "tensor 'a'"},
        {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 0, 4, "no dtype"},
        {"{" ONE("a", "F31", "[1]", "[0,4]") "}", 0, 4, "dtype"},
        {"{" ONE("a", "F32", "3", "[0,4]") "}", 0, 4, "no shape"},
        {"{" ONE("a", "F32", "[-1]", "[0,4]") "}", 0, 4, "no whole number"},
        {"{" ONE("a", "F32", "[1.5]", "[0,4]") "}", 0, 4, "no whole number"},
        {"{" ONE("a", "F32", "[\"1\"]", "[0,4]") "}", 0, 4, "no whole number"},
        {"{" ONE("a", "F32", "[1e300]", "[0,4]") "}", 0, 4, "no whole number"},
        {"{" ONE("a", "F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 0, 4, "8 dimensions"},
        /* 2^32 x 2^32 wraps to 0; 2^62 elements of 4 bytes as well. */
        {"{" ONE("a", "F32", "[4294967296,4294967296]", "[0,0]") "}", 0, 0, "too large"},
        {"{" ONE("a", "F32", "[4503599627370496,1024]", "[0,0]") "}", 0, 0, "do not fit"},
        {"{" ONE("a", "F32", "[1]", "[0]") "}", 0, 4, "data_offsets"},
        {"{" ONE("a", "F32", "[1]", "[4,0]") "}", 0, 4, "outside"},
        {"{" ONE("a", "F32", "[1]", "[0,4]") "}", 0, 3, "outside"},
        {"{" ONE("a", "F32", "[1]", "[9007199254740990,9007199254740992]") "}", 0, 4, "outside"},
        {"{" ONE("a", "F32", "[2]", "[0,4]") "}", 0, 4, "do not fit"},
        {"{" ONE("a", "F32", "[1]", "[0,4]") "}", 0, 8, "belong to no tensor"},
        {"{" ONE("a", "F32", "[1]", "[4,8]") "}", 0, 8, "belong to no tensor"},
        {"{" ONE("a", "F32", "[2]", "[0,8]") "," ONE("b", "F32", "[1]", "[4,8]") "}", 0, 8,
         "overlap"},
        {"{" ONE("a", "F32", "[1]", "[0,4]") "," ONE("a", "F32", "[1]", "[4,8]") "}", 0, 8,
         "twice"},
        {"{\"__metadata__\":{\"a\":1}}", 0, 0, "no string"},
        {"{\"__metadata__\":[]}", 0, 0, "no JSON object"},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, 0, "twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(cases[i].header, cases[i].header_bytes, cases[i].data_bytes,
                       cases[i].wanted);
}

static void refuses_what_is_no_file(void **state)
{
    char path[TESTING_PATH_BYTES];
    struct safetensors *file;
    assert_int_equal(safetensors_open(&file, testing_path(path, directory, "missing")), ERR_IO);
    assert_non_null(strstr(err_message(), path));
    assert_int_equal(safetensors_open(&file, directory), ERR_IO);
    assert_int_equal(file_write_atomic(testing_path(path, directory, "short"), "1234567", 7), 0);
    assert_int_equal(safetensors_open(&file, path), ERR_DATA);
}

/* Whatever byte of a good file is changed: an error or a file that reads without harm. */
static void survives_flipped_bytes(void **state)
{
    const char header[] = "{\"__metadata__\":{\"format\":\"pt\"}," ONE(
        "a", "F32", "[2,2]", "[0,16]") "," ONE("b", "F16", "[2]", "[16,20]") "}";
    char path[TESTING_PATH_BYTES];
    uint64_t random = testing_seed();
    uint8_t *bytes;
    size_t size;
    write_raw(path, header, 0, 20);
    assert_int_equal(file_read(&bytes, &size, path, 1 << 20), 0);
    for (int round = 0; round < 500; round++) {
        FILE *stream = fopen(path, "wb");
        size_t at = testing_random(&random) % (8 + strlen(header));
        uint8_t saved = bytes[at];
        bytes[at] = (uint8_t)testing_random(&random);
        assert_int_equal(fwrite(bytes, size, 1, stream), 1);
        assert_int_equal(fclose(stream), 0);
        bytes[at] = saved;
        struct safetensors *file;
        if (safetensors_open(&file, path) != 0)
            continue;
        float got[64];
        for (size_t i = 0; i < safetensors_count(file); i++)
            if (safetensors_at(file, i)->count <= 64)
                safetensors_read(got, file, safetensors_at(file, i));
        safetensors_close(file);
    }
    free(bytes);
}

int main(void)
{
    directory = testing_directory();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_was_written),
        cmocka_unit_test(incomplete_write_publishes_nothing),
        cmocka_unit_test(converts_other_types),
        cmocka_unit_test(refuses_hostile_headers),
        cmocka_unit_test(refuses_what_is_no_file),
        cmocka_unit_test(survives_flipped_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
