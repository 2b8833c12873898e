/* SPDX-License-Identifier: Apache-2.0 */
/* Damages a store in many ways and reads each result in full, in a process of its own and by
 * satchel-inspect --check, and serves it by a loader (SERVE, which is serve.sh, unless it is "-"):
 * whatever is accepted must be the very bytes that were packed, and nothing may die without a
 * message that names the file. Long form of what test_store does to small ones.
 *   damage STORE.lmdb SCRATCH.lmdb INSPECT SERVE TRUNCATIONS FLIPS
 * Every second flip falls into a page of LMDB's tree. Prints a line of counts; status 1 at the
 * first failure. SATCHEL_TEST_SEED repeats a run. */
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "common/err.h"
#include "datasets/fault.h"
#include "datasets/store.h"
#include "tests/unit/testing.h"

enum { PAGE = 4096, REPORT_BYTES = 4096, END_WHOLE = 0, END_NAMED = 1, END_DAMAGED = 2, ENDS = 3 };

static const char *scratch, *inspect_program, *serve_program;
static struct store *original;
static unsigned ends[ENDS];

static void die(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fputc('\n', stderr);
    exit(1);
}

/* In the child. */
static int read_all(void)
{
    struct store *store;
    struct store_record got, wanted;
    int damaged = 0;
    fault_install();
    if (store_open(&store, scratch) != 0) {
        fprintf(stderr, "%s\n", err_message());
        return END_NAMED;
    }
    for (uint32_t id = 0; id < store_meta(store)->sample_count; id++) {
        if (store_read(&got, store, id) != 0) {
            fprintf(damaged++ ? stdout : stderr, "%s\n", err_message());
            continue;
        }
        if (store_read(&wanted, original, id) != 0)
            return 98;
        if (got.image_bytes != wanted.image_bytes || got.label != wanted.label ||
            got.width != wanted.width || got.height != wanted.height ||
            memcmp(got.image, wanted.image, got.image_bytes) != 0)
            return 99;
    }
    return damaged ? END_DAMAGED : END_WHOLE;
}

enum reader { READ_HERE, READ_INSPECT, READ_SERVE };

/* Runs a child whose stderr comes back as text. */
static int in_child(char report[REPORT_BYTES], enum reader reader)
{
    int pipes[2];
    if (pipe(pipes) != 0)
        die("pipe");
    pid_t child = fork();
    if (child == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, STDOUT_FILENO);
        dup2(pipes[1], STDERR_FILENO);
        close(pipes[0]);
        if (reader == READ_HERE)
            _exit(read_all());
        if (reader == READ_SERVE)
            execl(serve_program, serve_program, scratch, NULL);
        execl(inspect_program, inspect_program, scratch, "--check", "--jobs", "2", NULL);
        _exit(127);
    }
    close(pipes[1]);
    size_t used = 0;
    char rest[512];
    for (ssize_t got; (got = read(pipes[0], rest, sizeof rest)) > 0;) {
        size_t room = REPORT_BYTES - 1 - used, kept = (size_t)got < room ? (size_t)got : room;
        memcpy(report + used, rest, kept);
        used += kept;
    }
    report[used] = '\0';
    close(pipes[0]);
    int status;
    if (waitpid(child, &status, 0) != child)
        die("waitpid");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void examine(const char *what, size_t at, unsigned bit)
{
    char report[REPORT_BYTES];
    int end = in_child(report, READ_HERE);
    if (end >= ENDS)
        die("%s at byte %zu bit %u: end %d: %s", what, at, bit, end, report);
    if (end != END_WHOLE && !strstr(report, scratch))
        die("%s at byte %zu bit %u: not named: %s", what, at, bit, report);
    ends[end]++;
    int status = in_child(report, READ_INSPECT);
    if (status > 1 || (status == 1 && !strstr(report, scratch)))
        die("%s at byte %zu bit %u: satchel-inspect ends with %d: %s", what, at, bit, status,
            report);
    if (end != END_WHOLE && status == 0)
        die("%s at byte %zu bit %u: satchel-inspect finds nothing: %s", what, at, bit, report);
    if (strcmp(serve_program, "-") != 0 && in_child(report, READ_SERVE) != 0)
        die("%s at byte %zu bit %u: served: %s", what, at, bit, report);
}

static void report(const char *what, unsigned count)
{
    printf(
        "%u %s: %u refused or ended by name, %u with damaged records by name, %u without effect; "
        "0 wrong images, 0 deaths without a name\n",
        count, what, ends[END_NAMED], ends[END_DAMAGED], ends[END_WHOLE]);
    fflush(stdout);
    memset(ends, 0, sizeof ends);
}

static void fill(int fd, const uint8_t *data, size_t bytes)
{
    if (ftruncate(fd, 0) != 0)
        die("%s: cannot be cut", scratch);
    for (size_t used = 0; used < bytes;) {
        ssize_t put = pwrite(fd, data + used, bytes - used, (off_t)used);
        if (put <= 0)
            die("%s: cannot be written", scratch);
        used += (size_t)put;
    }
}

/* Branch, leaf and meta pages (docs/format.md). */
static size_t *tree_pages(size_t *count, const uint8_t *data, size_t bytes)
{
    size_t *pages = malloc((bytes / PAGE + 1) * sizeof *pages);
    *count = 0;
    for (size_t at = 0; at + PAGE <= bytes; at += PAGE) {
        uint64_t own;
        memcpy(&own, data + at, sizeof own);
        if (own == at / PAGE && (data[at + 10] == 1 || data[at + 10] == 2 || data[at + 10] == 8))
            pages[(*count)++] = at;
    }
    return pages;
}

int main(int argc, char **argv)
{
    if (argc != 7)
        die("usage: damage STORE.lmdb SCRATCH.lmdb INSPECT SERVE|- TRUNCATIONS FLIPS");
    scratch = argv[2];
    inspect_program = argv[3];
    serve_program = argv[4];
    unsigned truncations = (unsigned)atoi(argv[5]), flips = (unsigned)atoi(argv[6]);
    uint64_t seed = testing_seed();
    struct stat status;
    int fd = open(argv[1], O_RDONLY);
    if (fd < 0 || fstat(fd, &status) != 0 || store_open(&original, argv[1]) != 0)
        die("%s: %s", argv[1], err_message());
    size_t bytes = (size_t)status.st_size, tree_count;
    const uint8_t *data = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    int bad = open(scratch, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (data == MAP_FAILED || bad < 0)
        die("%s: cannot be made", scratch);
    size_t *pages = tree_pages(&tree_count, data, bytes);
    fill(bad, data, bytes);
    for (unsigned i = 0; i < truncations; i++) {
        size_t at = testing_random(&seed) % bytes;
        if (ftruncate(bad, (off_t)at) != 0)
            die("%s: cannot be cut", scratch);
        examine("truncation", at, 0);
        fill(bad, data, bytes);
    }
    report("truncations", truncations);
    for (unsigned i = 0; i < flips; i++) {
        size_t at = testing_random(&seed) % bytes;
        if (i % 2)
            at = pages[testing_random(&seed) % tree_count] + at % PAGE;
        unsigned bit = (unsigned)(testing_random(&seed) % 8);
        uint8_t bent = data[at] ^ (uint8_t)(1 << bit);
        if (pwrite(bad, &bent, 1, (off_t)at) != 1)
            die("%s: cannot be written", scratch);
        examine("flip", at, bit);
        if (pwrite(bad, data + at, 1, (off_t)at) != 1)
            die("%s: cannot be written", scratch);
    }
    report("bit flips", flips);
    free(pages);
    unlink(scratch);
    return 0;
}
