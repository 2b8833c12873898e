/* SPDX-License-Identifier: Apache-2.0 */
/* The save path, interrupted before every system call and with every call on a file failing: a
 * good checkpoint is always there, and a run that survives has lost nothing. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/err.h"
#include "common/file.h"
#include "tests/fault/inject.h"
#include "tests/unit/trainer/fixture.h"
#include "trainer/resume.h"
#include "trainer/saver.h"

enum {
    STEPS = 3, /* the faults hit from the save of step 2 on */
    NOT_SAVED = 3,
};

static const char *directory;
static char run_path[TESTING_PATH_BYTES];

static void next_run(void)
{
    static int number;
    snprintf(run_path, sizeof run_path, "%s/%d", directory, number++);
}

/* --- the child: saves three times, the second is the best --- */

static int make_step(struct saver *saver, struct metrics *metrics, struct fixture *fixture,
                     uint64_t step)
{
    uint64_t random = step;
    struct checkpoint checkpoint = example();
    const struct metrics_step line = {.step = step - 1, .loss = (double)step};
    checkpoint.step = step;
    fill(fixture, &random);
    if (metrics_write_step(metrics, &line) || saver_save(saver, &checkpoint, step == 2, NULL))
        return -1;
    return saver_wait(saver);
}

/* NOT_SAVED: it went on to its end, but the newest save failed. */
static int train(void *argument)
{
    struct fixture fixture;
    struct rundir dir;
    struct metrics *metrics;
    struct saver *saver;
    struct checkpoint_part parts[CHECKPOINT_PARTS_MAX];
    open_fixture(&fixture, "resnet8b-w4", 3);
    if (rundir_open(&dir, run_path, false) || metrics_open(&metrics, dir.metrics, 0, 0))
        return 1;
    const struct saver_config config = {
        .dir = &dir,
        .metrics = metrics,
        .parts = parts,
        .part_count = checkpoint_parts(parts, &fixture.weights),
        .keep = 2,
    };
    if (saver_open(&saver, &config))
        return 1;
    int code = 0;
    for (uint64_t step = 1; step <= STEPS; step++) {
        if (step == 2)
            inject_arm();
        code = make_step(saver, metrics, &fixture, step);
    }
    saver_close(saver);
    metrics_close(metrics);
    rundir_close(&dir);
    close_fixture(&fixture);
    return code ? NOT_SAVED : 0;
}

/* --- what it left --- */

static uint64_t step_of(const char *path)
{
    struct safetensors *file;
    struct checkpoint checkpoint;
    if (safetensors_open(&file, path) || safetensors_verify(file) ||
        checkpoint_read(&checkpoint, file, path))
        fail_msg("%s", err_message());
    uint64_t step = checkpoint.step;
    safetensors_close(file);
    return step;
}

/* The lines of steps below `steps` are there, in order, each once; with whole, nothing else is. */
static void assert_lines(const char *path, uint64_t steps, bool whole)
{
    uint8_t *text;
    size_t bytes;
    char wanted[64];
    assert_int_equal(file_read(&text, &bytes, path, 1 << 20), 0);
    const char *at = (const char *)text;
    for (uint64_t step = 0; step < steps; step++) {
        int length = snprintf(wanted, sizeof wanted, "{\"event\":\"step\",\"step\":%d,", (int)step);
        if (strncmp(at, wanted, (size_t)length) != 0 || !strchr(at, '\n'))
            fail_msg("no line of step %d", (int)step);
        at = strchr(at, '\n') + 1;
    }
    if (whole)
        assert_string_equal(at, "");
    free(text);
}

/* A run can go on: from which step. Nothing half-written stays. */
static uint64_t go_on(void)
{
    struct rundir dir;
    struct resume resume;
    struct metrics *metrics;
    uint64_t *kept;
    size_t count;
    if (rundir_open(&dir, run_path, true) || resume_open(&resume, &dir))
        fail_msg("%s", err_message());
    uint64_t step = resume.at.step;
    assert_true(resume.is_last);
    assert_lines(dir.metrics, step, false);
    assert_int_equal(metrics_open(&metrics, dir.metrics, step, resume.at.epoch), 0);
    metrics_close(metrics);
    assert_lines(dir.metrics, step, true);
    if (access(dir.best, F_OK) == 0)
        assert_int_equal(step_of(dir.best), 2);
    else
        assert_true(step < 2); /* last never says of a best one that is not there */
    assert_int_equal(rundir_kept(&kept, &count, &dir), 0);
    for (size_t i = 0; i < count; i++) {
        char *path = rundir_step_path(&dir, kept[i]);
        assert_int_equal(step_of(path), kept[i]);
        free(path);
    }
    free(kept);
    resume_close(&resume);
    rundir_close(&dir);
    return step;
}

static void killed_before_every_call(void **state)
{
    struct inject_plan plan = {.fault = INJECT_KILL};
    struct inject_result result;
    uint64_t reached = 1;
    do {
        next_run();
        inject_run(&result, &plan, train, NULL);
        uint64_t step = go_on();
        assert_true(step >= reached); /* a later kill never finds less */
        reached = step;
        plan.at++;
    } while (WIFSIGNALED(result.status));
    assert_int_equal(WEXITSTATUS(result.status), 0);
    assert_int_equal(reached, STEPS);
    assert_true(result.calls > 50);
    printf("killed before each of %d system calls\n", result.calls);
}

/* One call fails: the saves after it are good, so in the end all is there. */
static void one_call_fails(int error)
{
    struct inject_plan plan = {.fault = INJECT_ERROR, .error = error};
    struct inject_result result;
    do {
        next_run();
        inject_run(&result, &plan, train, NULL);
        assert_true(WIFEXITED(result.status)); /* it survives */
        if (WEXITSTATUS(result.status) == NOT_SAVED) {
            uint64_t step = go_on(); /* STEPS: only the directory could not be synced */
            assert_true(step >= 1 && step <= STEPS);
        } else {
            assert_int_equal(WEXITSTATUS(result.status), 0);
            assert_int_equal(go_on(), STEPS);
        }
    } while (plan.at++ < result.calls);
    assert_true(result.calls >= 25);
    printf("%s at each of %d calls on files\n", strerror(error), result.calls);
}

static void no_space_once(void **state)
{
    one_call_fails(ENOSPC);
}

static void io_error_once(void **state)
{
    one_call_fails(EIO);
}

static void short_write_once(void **state)
{
    struct inject_plan plan = {.fault = INJECT_SHORT};
    struct inject_result result;
    do {
        next_run();
        inject_run(&result, &plan, train, NULL);
        assert_true(WIFEXITED(result.status) && WEXITSTATUS(result.status) == 0);
        assert_int_equal(go_on(), STEPS);
    } while (plan.at++ < result.calls);
    assert_true(result.calls >= 6);
}

/* The disk fills up, and stays so: the run goes on to its end and says that it is not saved. */
static void no_space_for_good(void **state)
{
    struct inject_plan plan = {.fault = INJECT_ERROR, .error = ENOSPC, .sticky = true};
    struct inject_result result;
    do {
        next_run();
        inject_run(&result, &plan, train, NULL);
        assert_true(WIFEXITED(result.status));
        uint64_t step = go_on();
        if (WEXITSTATUS(result.status) == NOT_SAVED)
            assert_true(step >= 1 && step <= STEPS);
        else
            assert_int_equal(step, STEPS);
    } while (plan.at++ < result.calls);
}

static int open_directory(void **state)
{
    /* Processes are killed, not the machine: memory will do, and syncs cost nothing there. */
    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 1);
    directory = testing_directory();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_before_every_call),
        cmocka_unit_test(no_space_once),
        cmocka_unit_test(io_error_once),
        cmocka_unit_test(short_write_once),
        cmocka_unit_test(no_space_for_good),
    };
    return cmocka_run_group_tests(tests, open_directory, NULL);
}
