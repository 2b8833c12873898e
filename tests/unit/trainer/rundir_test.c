/* SPDX-License-Identifier: Apache-2.0 */
/* The run directory, metrics.jsonl across a resume, and which recipe may go on. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/err.h"
#include "common/file.h"
#include "tests/unit/testing.h"
#include "trainer/metrics.h"
#include "trainer/options.h"
#include "trainer/rundir.h"

/* directory/name; the caller frees. */
static char *join(const char *directory, const char *name)
{
    char *path;
    if (asprintf(&path, "%s/%s", directory, name) < 0)
        abort();
    return path;
}

static void write_text(const char *path, const char *text)
{
    assert_int_equal(file_write_atomic(path, text, strlen(text)), 0);
}

static void directory_begins_and_goes_on(void **state)
{
    struct rundir dir;
    char *path = join(testing_directory(), "a/b");
    char *leftover = join(path, "last.safetensors.12.0.tmp");
    assert_int_equal(rundir_open(&dir, path, false), 0);
    assert_false(dir.has_checkpoint);
    rundir_close(&dir);
    assert_int_equal(rundir_open(&dir, path, true), 0); /* empty: begins afresh */
    assert_false(dir.has_checkpoint);
    write_text(dir.recipe, "");
    rundir_close(&dir);
    assert_int_equal(rundir_open(&dir, path, false), ERR_ARG);
    assert_non_null(strstr(err_message(), "--resume"));
    write_text(leftover, "half");
    assert_int_equal(rundir_open(&dir, path, true), 0); /* killed before the first checkpoint */
    assert_false(dir.has_checkpoint);
    assert_int_not_equal(access(leftover, F_OK), 0);
    write_text(dir.last, "x");
    rundir_close(&dir);
    assert_int_equal(rundir_open(&dir, path, true), 0);
    assert_true(dir.has_checkpoint);
    rundir_close(&dir);
    free(leftover);
    free(path);
}

static void earlier_checkpoints_are_found(void **state)
{
    static const char *const others[] = {
        "step-.safetensors", "step-1.safetensors.7.0.tmp", "step-x1.safetensors",
        "step-99999999999999999999.safetensors", "step-5.safetensor"};
    struct rundir dir;
    uint64_t *steps;
    size_t count;
    char *path = join(testing_directory(), "run");
    assert_int_equal(rundir_open(&dir, path, false), 0);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char *name = join(path, others[i]);
        write_text(name, "x");
        free(name);
    }
    for (uint64_t step = 9; step < 12; step++) {
        char *name = rundir_step_path(&dir, step);
        write_text(name, "x");
        free(name);
    }
    assert_int_equal(rundir_kept(&steps, &count, &dir), 0);
    assert_int_equal(count, 3);
    assert_true(steps[0] == 11 && steps[1] == 10 && steps[2] == 9);
    free(steps);
    rundir_close(&dir);
    assert_int_equal(rundir_open(&dir, path, true), 0);
    assert_true(dir.has_checkpoint); /* though last.safetensors is not there */
    rundir_close(&dir);
    free(path);
}

/* Something else where the run has to write a file is found at the start. */
static void names_that_are_taken(void **state)
{
    static const char *const names[] = {"recipe.ini", "metrics.jsonl", "last.safetensors",
                                        "best.safetensors", "best.predictions"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct rundir dir;
        char *path = join(testing_directory(), "run"), *name = join(path, names[i]);
        assert_int_equal(file_make_directory(name), 0);
        assert_int_equal(rundir_open(&dir, path, true), ERR_IO);
        assert_non_null(strstr(err_message(), name));
        assert_non_null(strstr(err_message(), "is a directory"));
        free(name);
        free(path);
    }
}

static void read_only_is_refused(void **state)
{
    enum { NOBODY = 65534 };
    struct rundir dir;
    const char *directory = testing_directory();
    char *under = join(directory, "a/run");
    bool root = geteuid() == 0; /* whom permissions do not stop */
    assert_int_equal(chmod(directory, 0555), 0);
    assert_true(!root || seteuid(NOBODY) == 0);
    int direct = rundir_open(&dir, directory, true);
    bool named = strstr(err_message(), directory) && strstr(err_message(), "Permission denied");
    int below = rundir_open(&dir, under, false);
    assert_true(!root || seteuid(0) == 0);
    assert_int_equal(chmod(directory, 0755), 0);
    assert_int_equal(direct, ERR_IO);
    assert_true(named);
    assert_int_equal(below, ERR_IO);
    free(under);
}

static void directory_refuses(void **state)
{
    struct rundir dir, second;
    char name[5000];
    const char *directory = testing_directory();
    char *file = join(directory, "file"), *under = join(file, "under"),
         *path = join(directory, "run");
    write_text(file, "x");
    assert_int_equal(rundir_open(&dir, file, false), ERR_IO);
    assert_non_null(strstr(err_message(), "is a file"));
    assert_int_equal(rundir_open(&dir, under, false), ERR_IO);
    assert_int_equal(rundir_open(&dir, directory, true), ERR_ARG); /* other people's files */
    assert_int_equal(access(file, F_OK), 0);
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_int_equal(rundir_open(&dir, name, false), ERR_IO);
    assert_non_null(strstr(err_message(), "too long"));
    name[300] = '\0';
    char *long_name = join(directory, name);
    assert_int_equal(rundir_open(&dir, long_name, false), ERR_IO);
    free(long_name);
    assert_int_equal(rundir_open(&dir, path, false), 0);
    assert_int_equal(rundir_open(&second, path, true), ERR_IO);
    assert_non_null(strstr(err_message(), "another satchel-trainer"));
    rundir_close(&dir);
    assert_int_equal(rundir_look(&dir, path), ERR_IO);
    assert_non_null(strstr(err_message(), "last.safetensors"));
    free(file);
    free(under);
    free(path);
}

/* A line of each kind for every epoch of two steps. */
static void write_run(const char *path, uint64_t epochs)
{
    struct metrics *metrics;
    assert_int_equal(metrics_open(&metrics, path, 0, 0), 0);
    for (uint64_t step = 0; step < 2 * epochs; step++) {
        const struct metrics_step line = {.step = step, .epoch = step / 2, .loss = 0.1, .lr = 1e-3};
        assert_int_equal(metrics_write_step(metrics, &line), 0);
        if (step % 2 == 0)
            continue;
        const struct metrics_eval eval = {.epoch = step / 2, .top1 = 50, .samples = 7};
        const struct hash128 receipt = {.low = step};
        assert_int_equal(metrics_write_eval(metrics, &eval), 0);
        assert_int_equal(metrics_write_epoch(metrics, step / 2, receipt, 1.5), 0);
    }
    assert_int_equal(metrics_write_done(metrics, epochs, -1), 0);
    assert_int_equal(metrics_sync(metrics), 0);
    metrics_close(metrics);
}

static void assert_lines(const char *path, const char *wanted)
{
    uint8_t *text;
    size_t bytes;
    assert_int_equal(file_read(&text, &bytes, path, 1 << 20), 0);
    assert_string_equal((const char *)text, wanted);
    free(text);
}

#define STEP(step, epoch)                                                                          \
    "{\"event\":\"step\",\"step\":" step ",\"epoch\":" epoch                                       \
    ",\"loss\":0.1,\"lr\":0.001,\"images_per_second\":0,\"wait_share\":0}\n"
#define EVAL(epoch)                                                                                \
    "{\"event\":\"eval\",\"epoch\":" epoch ",\"top1\":50,\"top5\":0,\"loss\":0,\"samples\":7}\n"
#define EPOCH(epoch, receipt)                                                                      \
    "{\"event\":\"epoch\",\"epoch\":" epoch                                                        \
    ",\"receipt\":\"0000000000000000000000000000000" receipt "\",\"seconds\":1.5}\n"

static void metrics_are_cut_back(void **state)
{
    char path[TESTING_PATH_BYTES];
    struct metrics *metrics;
    testing_path(path, testing_directory(), "metrics.jsonl");
    write_run(path, 2);
    assert_lines(path, STEP("0", "0") STEP("1", "0") EVAL("0") EPOCH("0", "1") STEP("2", "1")
                           STEP("3", "1") EVAL("1")
                               EPOCH("1", "3") "{\"event\":\"done\",\"epochs\":2,\"top1\":null}\n");
    /* A line that was torn by a kill. */
    FILE *stream = fopen(path, "a");
    assert_non_null(stream);
    fputs("{\"event\":\"step\",\"step\":0,\"epoch\":0", stream);
    assert_int_equal(fclose(stream), 0);
    assert_int_equal(metrics_open(&metrics, path, 3, 1), 0);
    metrics_close(metrics);
    assert_lines(path, STEP("0", "0") STEP("1", "0") EVAL("0") EPOCH("0", "1") STEP("2", "1"));
    /* All steps of epoch 0 made, its evaluation not. */
    assert_int_equal(metrics_open(&metrics, path, 2, 0), 0);
    metrics_close(metrics);
    assert_lines(path, STEP("0", "0") STEP("1", "0"));
    assert_int_equal(metrics_open(&metrics, path, 0, 0), 0);
    metrics_close(metrics);
    assert_lines(path, "");
}

/* A full disk (its device takes no byte): lines wait, and nothing says that they are safe. */
static void full_disk_keeps_lines(void **state)
{
    char path[TESTING_PATH_BYTES];
    struct metrics *metrics;
    testing_path(path, testing_directory(), "metrics.jsonl");
    struct rlimit limit, small = {.rlim_cur = 100, .rlim_max = RLIM_INFINITY};
    getrlimit(RLIMIT_FSIZE, &limit);
    small.rlim_max = limit.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(metrics_open(&metrics, path, 0, 0), 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    for (uint64_t step = 0; step < 3; step++) {
        const struct metrics_step line = {.step = step, .loss = 0.1, .lr = 1e-3};
        assert_int_equal(metrics_write_step(metrics, &line), 0);
    }
    assert_int_equal(metrics_sync(metrics), ERR_IO);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_int_equal(metrics_sync(metrics), 0);
    assert_lines(path, STEP("0", "0") STEP("1", "0") STEP("2", "0"));
    metrics_close(metrics);
}

static int parse(struct options *options, int count, const char *const *arguments)
{
    char *argv[16] = {(char *)"satchel-trainer", (char *)"--loaders", (char *)"synthetic"};
    for (int i = 0; i < count; i++)
        argv[3 + i] = (char *)arguments[i];
    return options_parse(options, 3 + count, argv);
}

static void recipe_must_be_the_same(void **state)
{
    static struct options begun, now;
    assert_int_equal(parse(&begun, 4, (const char *[]){"--lr", "0.3", "--chunk-size", "8"}), 0);
    char *text = options_recipe_text(&begun);
    assert_non_null(text);
    assert_int_equal(options_check_resume(&begun, text, "a"), 0);
    options_release(&begun);

    const char *const fine[] = {"--lr",         "0.3", "--threads",   "7",
                                "--save-every", "3",   "--max-steps", "9"};
    assert_int_equal(parse(&now, 8, fine), 0);
    assert_int_equal(options_check_resume(&now, text, "last.safetensors"), 0);
    assert_int_equal(now.recipe.chunk_size, 8);
    options_release(&now);

    static const char *const changed[][3] = {
        {"--lr", "0.30000001", "lr"},
        {"--seed", "1", "seed"},
        {"--epochs", "121", "epochs"},
        {"--model", "resnet50b", "model"},
        {"--no-bias-decay", "true", "no-bias-decay"},
        {"--mean", "1,2,3", "mean"},
    };
    for (size_t i = 0; i < sizeof changed / sizeof *changed; i++) {
        char option[64], quoted[64];
        const char *arguments[] = {"--lr", "0.3", option};
        snprintf(option, sizeof option, "%s=%s", changed[i][0], changed[i][1]);
        snprintf(quoted, sizeof quoted, "recipe: %s is", changed[i][2]);
        assert_int_equal(parse(&now, 3, arguments), 0);
        assert_int_equal(options_check_resume(&now, text, "last.safetensors"), ERR_ARG);
        if (!strstr(err_message(), quoted) || !strstr(err_message(), "last.safetensors"))
            fail_msg("'%s' does not name %s", err_message(), changed[i][2]);
        options_release(&now);
    }
    /* Named as harmless, it may change; others may not, nor may what is no key. */
    const char *const named[] = {"--lr=0.4", "--allow-change", "epochs,lr", "--chunk-size=8"};
    assert_int_equal(parse(&now, 4, named), 0);
    assert_int_equal(options_check_resume(&now, text, "last.safetensors"), 0);
    assert_true(now.recipe.lr == 0.4);
    options_release(&now);
    const char *const wrong[] = {"--lr=0.3", "--seed=2", "--allow-change", "lr,seedling"};
    assert_int_equal(parse(&now, 4, wrong), 0);
    assert_int_equal(options_check_resume(&now, text, "last.safetensors"), ERR_ARG);
    assert_non_null(strstr(err_message(), "'seedling'"));
    options_release(&now);
    free(text);
}

static void impossible_is_refused(void **state)
{
    static struct options options;
    assert_int_equal(parse(&options, 1, (const char *[]){"--eval-only"}), ERR_ARG);
    options_release(&options);
    assert_int_equal(parse(&options, 2, (const char *[]){"--total-batch", "100"}), ERR_ARG);
    options_release(&options);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(directory_begins_and_goes_on),  cmocka_unit_test(directory_refuses),
        cmocka_unit_test(earlier_checkpoints_are_found), cmocka_unit_test(names_that_are_taken),
        cmocka_unit_test(read_only_is_refused),          cmocka_unit_test(metrics_are_cut_back),
        cmocka_unit_test(full_disk_keeps_lines),         cmocka_unit_test(recipe_must_be_the_same),
        cmocka_unit_test(impossible_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
