/* SPDX-License-Identifier: Apache-2.0 */
/* JPEGs that are small to store and dear to decode: each is refused, or decoded within the memory
 * that decode.h allows. Each is tried in a process of its own, whose time and memory are printed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/err.h"
#include "loader/decode.h"
#include "loader/jpeg/jpeg_index.h"

#if defined(__SANITIZE_ADDRESS__)
enum { MEMORY_IS_TRUE = false }; /* the sanitizer's own is far more */
#else
enum { MEMORY_IS_TRUE = true };
#endif

enum {
    SOF_BASELINE = 0xc0,
    SOF_PROGRESSIVE = 0xc2,
    SOF_ARITHMETIC = 0xc9,
    FILE_BYTES_MOST = 4 << 20,
    EOB_RUN_MOST = 0x7fff,
};

struct file {
    uint8_t *data;
    size_t count;
};

static void put(struct file *file, uint32_t value, int bytes)
{
    while (bytes-- > 0) {
        assert_true(file->count < FILE_BYTES_MOST);
        file->data[file->count++] = (uint8_t)(value >> (8 * bytes));
    }
}

/* One Huffman table of three codes: 0 -> a, 10 -> b, 110 -> c. */
static void put_table(struct file *file, int class_and_number, int a, int b, int c)
{
    static const uint8_t counts[16] = {1, 1, 1};
    put(file, 0xffc40016, 4);
    put(file, (uint32_t)class_and_number, 1);
    for (int i = 0; i < 16; i++)
        put(file, counts[i], 1);
    put(file, (uint32_t)(a << 16 | b << 8 | c), 3);
}

/* Everything in front of the first scan; all components at full resolution. AC codes: end of block,
 * a run of 2^14 and more blocks to their end, a zero run. */
static struct file begin(int frame, uint32_t width, uint32_t height, uint32_t components)
{
    struct file file = {malloc(FILE_BYTES_MOST), 0};
    put(&file, 0xffd8, 2);
    put(&file, 0xffdb0043, 4);
    put(&file, 0, 1);
    for (int i = 0; i < 64; i++)
        put(&file, 1, 1);
    put(&file, 0xff00 | (uint32_t)frame, 2);
    put(&file, 8 + 3 * components, 2);
    put(&file, 8, 1);
    put(&file, height << 16 | width, 4);
    put(&file, components, 1);
    for (uint32_t c = 1; c <= components; c++)
        put(&file, c << 16 | 0x1100, 3);
    put_table(&file, 0x00, 0, 1, 2);
    put_table(&file, 0x10, 0x00, 0xe0, 0xf0);
    return file;
}

static void put_scan(struct file *file, uint32_t first, uint32_t components, uint32_t low,
                     uint32_t high, uint32_t bits)
{
    put(file, 0xffda, 2);
    put(file, 6 + 2 * components, 2);
    put(file, components, 1);
    for (uint32_t c = 0; c < components; c++)
        put(file, (first + c) << 8, 2);
    put(file, low << 16 | high << 8 | bits, 3);
}

static void put_zeros(struct file *file, size_t bits)
{
    for (size_t i = 0; i < bits / 8 + 1; i++)
        put(file, 0, 1);
}

/* Ends of blocks for all of so many: 10, then 14 ones, makes a run of 0x7fff. */
static void put_eob_runs(struct file *file, uint32_t blocks)
{
    uint64_t window = 0;
    int bits = 0;
    for (uint32_t done = 0; done < blocks; done += EOB_RUN_MOST) {
        window = window << 16 | 0xbfff;
        for (bits += 16; bits >= 8; bits -= 8) {
            uint32_t byte = window >> (bits - 8) & 0xff;
            put(file, byte, 1);
            if (byte == 0xff)
                put(file, 0, 1);
        }
    }
}

static void end(struct file *file)
{
    put(file, 0xffd9, 2);
}

/* 8192 x 8192 with one DC scan and AC scans without end. */
static struct file many_scans(uint32_t components, bool empty)
{
    struct file file = begin(SOF_PROGRESSIVE, 8192, 8192, components);
    put_scan(&file, 1, components, 0, 0, 0x00);
    if (!empty)
        put_zeros(&file, (size_t)components << 20);
    for (uint32_t scan = 1; scan < 2000; scan++) {
        put_scan(&file, 1 + scan % components, 1, 1, 63, 0x00);
        if (!empty)
            put_eob_runs(&file, 1 << 20);
    }
    end(&file);
    return file;
}

static struct file scans_grey(void)
{
    return many_scans(1, false);
}

static struct file scans_colour(void)
{
    return many_scans(3, false);
}

/* As much as the limits let pass. */
static struct file scans_allowed(void)
{
    struct file file = begin(SOF_PROGRESSIVE, 4864, 4864, 3);
    put_scan(&file, 1, 3, 0, 0, 0x00);
    put_zeros(&file, 3 * 608 * 608);
    for (uint32_t scan = 1; scan < 20; scan++) {
        put_scan(&file, 1 + scan % 3, 1, 1, 63, 0x00);
        put_eob_runs(&file, 608 * 608);
    }
    end(&file);
    return file;
}

static struct file scans_empty(void)
{
    return many_scans(1, true);
}

static struct file header_alone(void)
{
    struct file file = begin(SOF_BASELINE, 65500, 65500, 1);
    put_scan(&file, 1, 1, 0, 63, 0);
    put_zeros(&file, 100);
    end(&file);
    return file;
}

static struct file flat(int frame, uint32_t width, uint32_t height, uint32_t components)
{
    struct file file = begin(frame, width, height, components);
    size_t blocks = (size_t)((width + 7) / 8) * ((height + 7) / 8);
    put_scan(&file, 1, components, 0, frame == SOF_PROGRESSIVE ? 0 : 63, 0);
    put_zeros(&file, blocks * components * (frame == SOF_PROGRESSIVE ? 1 : 2));
    end(&file);
    return file;
}

static struct file flat_grey(void)
{
    return flat(SOF_BASELINE, 9000, 8000, 1);
}

static struct file flat_colour(void)
{
    return flat(SOF_BASELINE, 9000, 8000, 3);
}

static struct file flat_progressive(void)
{
    return flat(SOF_PROGRESSIVE, 8000, 7000, 1);
}

static struct file flat_progressive_colour(void)
{
    return flat(SOF_PROGRESSIVE, 9000, 8000, 3);
}

static struct file three_scans(void)
{
    struct file file = begin(SOF_BASELINE, 8192, 8192, 3);
    for (uint32_t c = 1; c <= 3; c++) {
        put_scan(&file, c, 1, 0, 63, 0);
        put_zeros(&file, (size_t)2 << 20);
    }
    end(&file);
    return file;
}

static struct file cut_off(void)
{
    struct file file = begin(SOF_BASELINE, 9000, 8000, 3);
    put_scan(&file, 1, 3, 0, 63, 0);
    return file;
}

static struct file narrow(void)
{
    return flat(SOF_BASELINE, 1, 65500, 3);
}

static struct file arithmetic(void)
{
    return flat(SOF_ARITHMETIC, 8192, 8192, 1);
}

/* Tables and comments over and over in front of nothing. */
static struct file segments(void)
{
    struct file file = begin(SOF_BASELINE, 8192, 8192, 1);
    while (file.count < FILE_BYTES_MOST - 100) {
        put_table(&file, 0x00, 0, 1, 2);
        put(&file, 0xfffe0002, 4);
    }
    end(&file);
    return file;
}

static const struct bomb {
    const char *name;
    struct file (*make)(void);
    const char *refusal; /* a part of the message; NULL: may be decoded */
} BOMBS[] = {
    {"65500 x 65500, a header", header_alone, "too many"},
    {"8192 x 8192 grey, 2000 scans", scans_grey, "too many scans"},
    {"8192 x 8192 grey, 2000 empty scans", scans_empty, "too many scans"},
    {"8192 x 8192 colour, 2000 scans", scans_colour, "memory"},
    {"4864 x 4864 colour, 20 scans", scans_allowed, NULL},
    {"9000 x 8000 progressive colour", flat_progressive_colour, "memory"},
    {"8192 x 8192, a scan a component", three_scans, "memory"},
    {"8000 x 7000 progressive grey, flat", flat_progressive, NULL},
    {"9000 x 8000 grey, flat", flat_grey, NULL},
    {"9000 x 8000 colour, flat", flat_colour, NULL},
    {"9000 x 8000 colour, cut off", cut_off, "ends early"},
    {"1 x 65500 colour", narrow, NULL},
    {"8192 x 8192 arithmetic", arithmetic, "arithmetic"},
    {"100,000 tables and comments", segments, "JPEG: "},
};

/* In the child: exit status 0 when it went as it should. */
static int try_bomb(const struct bomb *bomb, const struct file *file)
{
    struct decoder *decoder;
    struct jpeg_indexer *indexer;
    struct planes planes;
    const uint8_t *index;
    size_t index_bytes;
    enum jpeg_refusal refusal;
    if (decoder_open(&decoder) || jpeg_indexer_open(&indexer))
        return 2;
    int64_t begin_ns = clock_cpu_ns();
    int code = decode_file(decoder, &planes, file->data, file->count);
    double decode_ms = (double)(clock_cpu_ns() - begin_ns) / 1e6;
    char what[256];
    snprintf(what, sizeof what, "%s", code ? err_message() : "decoded");
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    decoder_close(decoder);

    begin_ns = clock_cpu_ns();
    int index_code = jpeg_index_build(indexer, &index, &index_bytes, &refusal, file->data,
                                      file->count, JPEG_INDEX_DEFAULT_MCUS);
    double index_ms = (double)(clock_cpu_ns() - begin_ns) / 1e6;
    jpeg_indexer_close(indexer);
    fprintf(stderr, "%-36s %7zu bytes: %4.0f ms, %3ld MB, index %3.0f ms: %s\n", bomb->name,
            file->count, decode_ms, usage.ru_maxrss / 1000, index_ms, what);
    if (index_code || (MEMORY_IS_TRUE && usage.ru_maxrss * 1024 > DECODE_MAX_BYTES + (16 << 20)))
        return 3;
    if (!bomb->refusal)
        return code ? 4 : 0;
    return code == ERR_DATA && strstr(what, bomb->refusal) ? 0 : 5;
}

static void bombs_do_no_harm(void **state)
{
    if (!MEMORY_IS_TRUE)
        fprintf(stderr, "memory is not checked under the address sanitizer\n");
    for (size_t i = 0; i < sizeof BOMBS / sizeof BOMBS[0]; i++) {
        struct file file = BOMBS[i].make();
        pid_t child = fork();
        if (child == 0)
            _exit(try_bomb(&BOMBS[i], &file));
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        if (WEXITSTATUS(status))
            fail_msg("%s: %d", BOMBS[i].name, WEXITSTATUS(status));
        free(file.data);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bombs_do_no_harm)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
