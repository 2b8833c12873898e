/* SPDX-License-Identifier: Apache-2.0 */
/* Saving beside training: which files are there, which are kept, and what is gone on from when some
 * are damaged or could not be written. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "common/err.h"
#include "common/file.h"
#include "tests/unit/testing.h"
#include "tests/unit/trainer/fixture.h"
#include "trainer/resume.h"
#include "trainer/saver.h"

/* A run directory with a saver on it. */
struct run {
    struct fixture fixture;
    struct rundir dir;
    struct metrics *metrics;
    struct saver *saver;
    uint64_t random;
};

static void open_run(struct run *run, int keep)
{
    char path[TESTING_PATH_BYTES];
    struct checkpoint_part parts[CHECKPOINT_PARTS_MAX];
    run->random = testing_seed();
    open_fixture(&run->fixture, "resnet8b-w4", 3);
    testing_path(path, testing_directory(), "run");
    assert_int_equal(rundir_open(&run->dir, path, false), 0);
    assert_int_equal(metrics_open(&run->metrics, run->dir.metrics, 0, 0), 0);
    const struct saver_config config = {
        .dir = &run->dir,
        .metrics = run->metrics,
        .parts = parts,
        .part_count = checkpoint_parts(parts, &run->fixture.weights),
        .keep = keep,
    };
    assert_int_equal(saver_open(&run->saver, &config), 0);
}

static void close_run(struct run *run)
{
    saver_close(run->saver);
    metrics_close(run->metrics);
    rundir_close(&run->dir);
    close_fixture(&run->fixture);
}

/* New weights, a line of metrics, a save. */
static int save(struct run *run, uint64_t step, bool best)
{
    struct checkpoint checkpoint = example();
    const struct metrics_step line = {.step = step};
    checkpoint.step = step;
    fill(&run->fixture, &run->random);
    assert_int_equal(metrics_write_step(run->metrics, &line), 0);
    assert_int_equal(saver_save(run->saver, &checkpoint, best, NULL), 0);
    return saver_wait(run->saver);
}

/* The step of the checkpoint in this file; it is whole. */
static uint64_t step_of(const char *path)
{
    struct safetensors *file;
    struct checkpoint checkpoint;
    assert_int_equal(safetensors_open(&file, path), 0);
    assert_int_equal(safetensors_verify(file), 0);
    assert_int_equal(checkpoint_read(&checkpoint, file, path), 0);
    uint64_t step = checkpoint.step;
    safetensors_close(file);
    return step;
}

static void assert_kept(const struct run *run, const uint64_t *wanted, size_t wanted_count)
{
    uint64_t *steps;
    size_t count;
    assert_int_equal(rundir_kept(&steps, &count, &run->dir), 0);
    assert_int_equal(count, wanted_count);
    for (size_t i = 0; i < count; i++) {
        char *path = rundir_step_path(&run->dir, steps[i]);
        assert_int_equal(steps[i], wanted[i]);
        assert_int_equal(step_of(path), wanted[i]);
        free(path);
    }
    free(steps);
}

static uint64_t resumed_step(const struct run *run)
{
    struct resume resume;
    if (resume_open(&resume, &run->dir))
        fail_msg("%s", err_message());
    uint64_t step = resume.at.step;
    resume_close(&resume);
    return step;
}

static void newest_are_kept(void **state)
{
    struct run run;
    open_run(&run, 3);
    assert_int_equal(save(&run, 1, false), 0);
    assert_kept(&run, NULL, 0);
    assert_int_not_equal(access(run.dir.best, F_OK), 0);
    assert_int_equal(save(&run, 2, true), 0);
    assert_int_equal(save(&run, 3, false), 0);
    assert_int_equal(save(&run, 4, false), 0);
    assert_int_equal(save(&run, 4, false), 0); /* a stop right behind a save */
    assert_kept(&run, (const uint64_t[]){3, 2}, 2);
    assert_int_equal(step_of(run.dir.last), 4);
    assert_int_equal(step_of(run.dir.best), 2);
    assert_int_equal(save(&run, 5, true), 0);
    assert_kept(&run, (const uint64_t[]){4, 3}, 2);
    assert_int_equal(step_of(run.dir.best), 5);
    assert_int_equal(resumed_step(&run), 5);
    close_run(&run);
}

static void one_is_enough(void **state)
{
    struct run run;
    open_run(&run, 1);
    assert_int_equal(save(&run, 1, true), 0);
    assert_int_equal(save(&run, 2, false), 0);
    assert_kept(&run, NULL, 0);
    close_run(&run);
}

static void damage(const char *path)
{
    FILE *file = fopen(path, "r+");
    assert_non_null(file);
    fseek(file, -3, SEEK_END);
    int byte = fgetc(file);
    fseek(file, -1, SEEK_CUR);
    fputc(byte ^ 1, file);
    fclose(file);
}

static void damaged_is_passed_over(void **state)
{
    struct run run;
    struct resume resume;
    open_run(&run, 3);
    for (uint64_t step = 1; step <= 3; step++)
        assert_int_equal(save(&run, step, false), 0);
    damage(run.dir.last);
    assert_int_equal(resumed_step(&run), 2);
    assert_int_equal(truncate(run.dir.last, 100), 0);
    assert_int_equal(resumed_step(&run), 2);
    char *second = rundir_step_path(&run.dir, 2);
    assert_int_equal(unlink(run.dir.last), 0);
    damage(second);
    assert_int_equal(resumed_step(&run), 1);
    char *first = rundir_step_path(&run.dir, 1);
    damage(first);
    assert_int_not_equal(resume_open(&resume, &run.dir), 0);
    free(first);
    free(second);
    close_run(&run);
}

/* A disk that takes no more than so many bytes a file. */
static void set_limit(rlim_t bytes)
{
    struct rlimit limit;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* A best one that cannot be written is not forgotten when the disk works again. */
static void full_disk_loses_nothing(void **state)
{
    struct run run;
    struct saver_counts counts;
    open_run(&run, 2);
    assert_int_equal(save(&run, 1, true), 0);
    set_limit(3000);
    assert_int_equal(save(&run, 2, true), ERR_IO);
    assert_int_equal(save(&run, 3, false), ERR_IO);
    assert_int_equal(resumed_step(&run), 1);
    assert_int_equal(step_of(run.dir.best), 1);
    set_limit(RLIM_INFINITY);
    assert_int_equal(save(&run, 4, false), 0);
    assert_int_equal(step_of(run.dir.last), 4);
    assert_int_equal(step_of(run.dir.best), 2);
    saver_counts(&counts, run.saver);
    assert_int_equal(counts.saves, 4);
    assert_int_equal(counts.failed, 2);
    close_run(&run);
}

/* However fast saves come, the newest and the best are there in the end. */
static void saves_may_come_fast(void **state)
{
    struct run run;
    struct saver_counts counts;
    struct checkpoint checkpoint = example();
    open_run(&run, 2);
    for (checkpoint.step = 1; checkpoint.step <= 200; checkpoint.step++)
        assert_int_equal(saver_save(run.saver, &checkpoint, checkpoint.step % 50 == 20, NULL), 0);
    assert_int_equal(saver_wait(run.saver), 0);
    assert_int_equal(step_of(run.dir.last), 200);
    assert_int_equal(step_of(run.dir.best), 170);
    saver_counts(&counts, run.saver);
    assert_int_equal(counts.failed, 0);
    close_run(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(newest_are_kept),        cmocka_unit_test(one_is_enough),
        cmocka_unit_test(damaged_is_passed_over), cmocka_unit_test(full_disk_loses_nothing),
        cmocka_unit_test(saves_may_come_fast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
