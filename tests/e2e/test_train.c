/* SPDX-License-Identifier: Apache-2.0 */
/* Training over real loaders: it learns; and however a run is interrupted, what comes out in the
 * end is bit for bit what the quiet run gives. */
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/file.h"
#include "tests/e2e/runs.h"
#include "trainer/safetensors.h"

static void it_learns(void **state)
{
    assert_int_equal(count_events(place.quiet, "step"), STEPS);
    double first = mean_loss(place.quiet, 0), last = mean_loss(place.quiet, EPOCHS - 1);
    if (!(last < 0.75 * first))
        fail_msg("loss %g in the first epoch, %g in the last", first, last);
    double top1 = event_number(place.quiet, "done", 0, "top1");
    if (!(top1 > 2 * 100.0 / CLASSES))
        fail_msg("top-1 %g %%", top1);
    for (int epoch = 0; epoch < EPOCHS; epoch++)
        assert_true(event_number(place.quiet, "eval", epoch, "samples") == VAL_SAMPLES);
}

/* Starts or goes on three times, each time until so many further steps are done, then the signal.
 * False: the run came to its end before one was noticed (a busy machine). */
static bool interrupt(const char *run, const int signals[3], int status, const char *every)
{
    for (int i = 0; i < 3; i++) {
        int before = count_events(run, "step");
        pid_t pid = START(run, "--resume", "--save-every", every);
        await_steps(run, before + 2, pid);
        kill(pid, signals[i]);
        int ended = finish(pid);
        if (ended == 0)
            return false;
        assert_int_equal(ended, status < 0 ? 128 + signals[i] : status);
        assert_int_equal(count_events(run, "done"), 0);
    }
    return true;
}

/* status: what the trainer ends with; negative: by the signal itself. */
static void interrupted_run_goes_on(const int signals[3], int status, const char *every)
{
    char *run = NULL;
    bool interrupted = false;
    for (int attempt = 0; attempt < 5 && !interrupted; attempt++) {
        char name[32];
        snprintf(name, sizeof name, "signal%d.%d", signals[0], attempt);
        free(run);
        run = join(place.directory, name);
        interrupted = interrupt(run, signals, status, every);
    }
    assert_true(interrupted);
    assert_int_equal(RUN(run, "--resume", "--save-every", every), 0);
    assert_as_quiet(run);
    free(run);
}

static void stopped_run_goes_on(void **state)
{
    interrupted_run_goes_on((const int[]){SIGTERM, SIGUSR1, SIGINT}, STOPPED, "0");
}

/* What the loaders made before is then no measure of what they make now. */
static void stream_may_be_changed(void **state)
{
    char *run = join(place.directory, "changed");
    assert_int_equal(RUN(run, "--max-steps", "3"), 0);
    assert_int_equal(
        RUN(run, "--resume", "--max-steps", "8", "--augment", "none", "--allow-change", "augment"),
        0);
    assert_int_equal(count_events(run, "step"), 8);
    /* But the checkpoint has to stand in the schedule; a refusal changes nothing. */
    char *recipe = read_file(run, "recipe.ini");
    assert_int_equal(RUN(run, "--resume", "--augment", "none", "--total-batch", "32",
                         "--allow-change", "total-batch,lr"),
                     2);
    char *left = read_file(run, "recipe.ini");
    assert_string_equal(left, recipe);
    free(recipe);
    free(left);
    free(run);
}

static void killed_run_goes_on(void **state)
{
    interrupted_run_goes_on((const int[]){SIGKILL, SIGKILL, SIGKILL}, -1, "2");
}

/* Until a random instant of the time that a process takes, or its end. */
static void await_instant(pid_t pid, int64_t span_ns, uint64_t *random)
{
    siginfo_t ended = {0};
    int64_t end_ns = clock_ns() + (int64_t)(testing_random(random) % (uint64_t)span_ns);
    stream_await(clock_ns() >= end_ns || ended.si_pid, WAIT_SECONDS)
        waitid(P_PID, (id_t)pid, &ended, WEXITED | WNOHANG | WNOWAIT);
}

/* Killed again and again, at the start, in steps, evaluations and saves, until it is through. */
static int kill_until_done(const char *run, int64_t *span_ns, uint64_t *random)
{
    for (int kills = 0;; kills++) {
        int64_t start_ns = clock_ns();
        pid_t pid = START(run, "--resume", "--save-every", "1");
        await_instant(pid, *span_ns, random);
        kill(pid, SIGKILL);
        int status = finish(pid);
        if (status == 0) {
            *span_ns = clock_ns() - start_ns; /* as fast as the machine is now */
            return kills;
        }
        assert_int_equal(status, 128 + SIGKILL);
        *span_ns += *span_ns / 4; /* a machine that became slow must get through as well */
    }
}

/* $SATCHEL_KILLS: how many at least. */
static void killed_at_random_instants(void **state)
{
    const char *wanted = getenv("SATCHEL_KILLS");
    uint64_t random = testing_seed();
    int64_t span_ns = place.quiet_ns;
    int kills = 0, runs = 0;
    while (kills < (wanted ? atoi(wanted) : 4)) {
        char name[32];
        snprintf(name, sizeof name, "kills%d", runs++);
        char *run = join(place.directory, name);
        kills += kill_until_done(run, &span_ns, &random);
        assert_as_quiet(run);
        free(run);
    }
    printf("%d kills in %d runs\n", kills, runs);
}

static void await_log(const char *text)
{
    bool found = false;
    stream_await(found, WAIT_SECONDS)
    {
        char *log = read_file(place.directory, "trainer.log");
        found = log && strstr(log, text);
        free(log);
    }
}

/* No save works: the run goes on to its end, says so, and once the cause is gone it needs only what
 * is missing. */
static void unsaved_run_goes_on(void **state)
{
    char *run = join(place.directory, "unsaved"), *last = join(run, "last.safetensors");
    assert_int_equal(stream_stop(&place.loader), 0); /* so that the trainer waits at its start */
    pid_t pid = START(run);
    await_log("unsaved");
    stream_await(mkdir(last, 0700) == 0, WAIT_SECONDS); /* no file can get this name now */
    start_loader();
    assert_int_equal(finish(pid), 1);
    await_log("training goes on (there is no checkpoint yet)");
    await_log("the run came to its end, but that could not be saved");
    assert_int_equal(count_events(run, "step"), STEPS);
    assert_int_equal(RUN(run, "--resume"), 1); /* found at the start */
    assert_int_equal(rmdir(last), 0);
    assert_int_equal(RUN(run, "--resume"), 0);
    assert_as_quiet(run);
    free(last);
    free(run);
}

/* The loaders go away for good: checkpoint and status 3; with new ones it goes on. */
static void stalled_run_goes_on(void **state)
{
    char *run = join(place.directory, "stalled");
    assert_int_equal(RUN(run, "--max-steps", "8"), 0);
    assert_int_equal(count_events(run, "step"), 8);
    assert_int_equal(stream_stop(&place.loader), 0);
    assert_int_equal(RUN(run, "--resume", "--stall-limit", "0.2"), STOPPED);
    char *fresh = join(place.directory, "never");
    assert_int_equal(RUN(fresh, "--stall-limit", "0.2"), 1);
    free(fresh);
    start_loader();
    assert_int_equal(RUN(run, "--resume"), 0);
    assert_same_metrics(place.quiet, run);
    free(run);
}

static void max_steps_counts_over_resumes(void **state)
{
    char *run = join(place.directory, "max");
    assert_int_equal(RUN(run, "--max-steps", "4"), 0);
    assert_int_equal(count_events(run, "step"), 4);
    assert_int_equal(count_events(run, "epoch"), 0); /* not whole: no receipt of it */
    assert_int_equal(count_events(run, "eval"), 1);
    assert_true(event_number(run, "done", 0, "epochs") == 0);
    assert_int_equal(RUN(run, "--resume", "--max-steps", "4"), 0);
    assert_int_equal(count_events(run, "done"), 1);
    assert_int_equal(RUN(run, "--resume", "--max-steps", "6"), 0); /* just one epoch */
    assert_int_equal(count_events(run, "step"), 6);
    assert_int_equal(count_events(run, "epoch"), 1);
    assert_int_equal(count_events(run, "eval"), 1);
    assert_true(event_number(run, "done", 0, "epochs") == 1);
    assert_int_equal(RUN(run, "--resume"), 0);
    assert_same_metrics(place.quiet, run);
    free(run);
}

static void finished_run_is_left_alone(void **state)
{
    char *before = read_file(place.quiet, "metrics.jsonl");
    assert_int_equal(RUN(place.quiet, "--resume"), 0);
    char *after = read_file(place.quiet, "metrics.jsonl");
    assert_string_equal(before, after);
    free(before);
    free(after);
}

/* Bytes on the wire: another stream, of which as much is learned. */
static void uint8_wire_learns(void **state)
{
    char *run = join(place.directory, "uint8");
    assert_int_equal(RUN(run, "--wire", "uint8"), 0);
    cJSON *ours = event_line(run, "epoch", 0), *quiet = event_line(place.quiet, "epoch", 0);
    assert_false(cJSON_Compare(field(ours, "receipt"), field(quiet, "receipt"), true));
    cJSON_Delete(ours);
    cJSON_Delete(quiet);
    for (int i = 0; i < STEPS / EPOCHS; i++) {
        double loss = event_number(run, "step", i, "loss");
        double expected = event_number(place.quiet, "step", i, "loss");
        if (!(fabs(loss - expected) < 0.05))
            fail_msg("step %d: loss %g, with the fp16 wire %g", i, loss, expected);
    }
    double top1 = event_number(run, "done", 0, "top1");
    if (!(top1 > 2 * 100.0 / CLASSES))
        fail_msg("top-1 %g %%", top1);
    free(run);
}

/* The values of a tensor of run/last.safetensors; the caller frees. */
static float *read_tensor(const char *run, const char *name, size_t *count)
{
    char *path = join(run, "last.safetensors");
    struct safetensors *file;
    assert_int_equal(safetensors_open(&file, path), 0);
    const struct safetensors_tensor *tensor = safetensors_find(file, name);
    assert_non_null(tensor);
    float *values = malloc(tensor->count * sizeof *values);
    *count = tensor->count;
    assert_int_equal(safetensors_read(values, file, tensor), 0);
    safetensors_close(file);
    free(path);
    return values;
}

static bool same_tensor(const char *a, const char *b, const char *name)
{
    size_t left_count, right_count;
    float *left = read_tensor(a, name, &left_count), *right = read_tensor(b, name, &right_count);
    bool same = left_count == right_count && memcmp(left, right, left_count * sizeof *left) == 0;
    free(left);
    free(right);
    return same;
}

/* A string of run/last.safetensors as a number. */
static double checkpoint_number(const char *run, const char *key)
{
    char *path = join(run, "last.safetensors");
    struct safetensors *file;
    assert_int_equal(safetensors_open(&file, path), 0);
    double value = atof(safetensors_metadata(file, key));
    safetensors_close(file);
    free(path);
    return value;
}

/* fp16, as a GPU stores it: it learns as fp32 does; overflowing steps are left out and the scale
 * follows, over a resume too. */
static void halves_learn(void **state)
{
    char *whole = join(place.directory, "halves"), *parts = join(place.directory, "halves-parts");
    assert_int_equal(RUN(whole, "--precision", "fp16", "--max-steps", "14"), 0);
    for (int i = 0; i < 14; i++) {
        double loss = event_number(whole, "step", i, "loss");
        double expected = event_number(place.quiet, "step", i, "loss");
        if (!(fabs(loss - expected) < 0.1))
            fail_msg("step %d: loss %g, in fp32 %g", i, loss, expected);
    }
    assert_true(checkpoint_number(whole, "loss_scale") == 65536);
    assert_true(checkpoint_number(whole, "loss_scale_good_steps") == 14);
    assert_int_equal(RUN(parts, "--precision", "fp16", "--max-steps", "5"), 0);
    assert_int_equal(RUN(parts, "--precision", "fp16", "--max-steps", "14", "--resume"), 0);
    assert_true(checkpoint_number(parts, "loss_scale_good_steps") == 14);
    assert_true(same_tensor(whole, parts, "conv1.weight"));
    assert_true(same_tensor(whole, parts, "momentum.fc.weight"));
    assert_false(same_tensor(whole, place.quiet, "conv1.weight"));
    free(whole);
    free(parts);
}

static void overflowing_steps_are_left_out(void **state)
{
    char *run = join(place.directory, "overflow");
    assert_int_equal(RUN(run, "--precision", "fp16", "--loss-scale", "1e9", "--max-steps", "6"), 0);
    await_log("step 5 is left out");
    assert_true(checkpoint_number(run, "loss_scale_bad_steps") == 6);
    size_t count;
    float *momentum = read_tensor(run, "momentum.fc.weight", &count);
    for (size_t i = 0; i < count; i++)
        assert_true(momentum[i] == 0);
    free(momentum);
    free(run);
}

/* The teacher's loss is added, its time is told, and it stays out of what is learned. */
static void teacher_teaches(void **state)
{
    char *run = join(place.directory, "taught"), *teacher = join(place.quiet, "last.safetensors");
    assert_int_equal(RUN(run, "--teacher", teacher, "--kd-temperature", "4", "--max-steps", "4"),
                     0);
    for (int i = 0; i < 4; i++) {
        double share = event_number(run, "step", i, "teacher_share");
        assert_true(share > 0 && share < 1);
        /* T^2 times a cross-entropy of nearly log 8 comes on top */
        assert_true(event_number(run, "step", i, "loss") >
                    event_number(place.quiet, "step", i, "loss") + 16);
    }
    char *plain = join(place.directory, "hard"), *same = join(place.directory, "same");
    assert_int_equal(RUN(plain, "--max-steps", "4"), 0);
    assert_int_equal(RUN(same, "--teacher", teacher, "--kd-soft-weight", "0", "--max-steps", "4"),
                     0);
    assert_true(same_tensor(plain, same, "fc.weight"));
    assert_false(same_tensor(plain, run, "fc.weight"));
    free(run);
    free(teacher);
    free(plain);
    free(same);
}

/* The average is judged beside the weights, changes nothing of them, and goes on over a resume. */
static void average_is_kept(void **state)
{
    char *run = join(place.directory, "ema"), *whole = join(place.directory, "ema.whole");
    assert_int_equal(RUN(run, "--ema-decay", "0.9", "--max-steps", "9"), 0);
    assert_int_equal(RUN(run, "--ema-decay", "0.9", "--resume"), 0);
    assert_int_equal(RUN(whole, "--ema-decay", "0.9"), 0);
    assert_same_metrics(place.quiet, whole);
    assert_true(same_tensor(place.quiet, whole, "fc.weight"));
    assert_true(same_tensor(run, whole, "ema.layer1.0.bn1.running_var"));
    assert_true(same_tensor(run, whole, "ema.fc.weight"));
    for (int epoch = 0; epoch < EPOCHS; epoch++) {
        double loss = event_number(whole, "eval", epoch, "ema_loss");
        assert_true(loss > 0 && loss != event_number(whole, "eval", epoch, "loss"));
    }
    assert_true(event_number(whole, "eval", EPOCHS - 1, "ema_top1") > 2 * 100.0 / CLASSES);
    char *late = join(place.directory, "ema.late"); /* kept from some step on */
    assert_int_equal(RUN(late, "--max-steps", "9"), 0);
    assert_int_equal(RUN(late, "--ema-decay", "0.9", "--resume"), 2);
    assert_int_equal(RUN(late, "--ema-decay", "0.9", "--allow-change", "ema-decay", "--resume"), 0);
    assert_true(same_tensor(late, whole, "fc.weight"));
    assert_false(same_tensor(late, whole, "ema.fc.weight"));
    free(run);
    free(whole);
    free(late);
}

/* Frozen stages keep the weights and the statistics of --init; the rest learns. */
static void frozen_stages_stay(void **state)
{
    static const char *const kept[] = {"conv1.weight", "bn1.running_mean", "layer1.0.bn2.weight"};
    char *run = join(place.directory, "frozen"), *init = join(place.quiet, "last.safetensors");
    assert_int_equal(RUN(run, "--init", init, "--freeze", "1", "--head-lr", "1", "--epochs", "1"),
                     0);
    for (int i = 0; i < 3; i++)
        assert_true(same_tensor(run, place.quiet, kept[i]));
    assert_false(same_tensor(run, place.quiet, "layer2.0.conv1.weight"));
    assert_false(same_tensor(run, place.quiet, "layer2.0.bn1.running_var"));
    /* Learns too from now on, with a momentum that begins at zero. */
    assert_int_equal(RUN(run, "--init", init, "--head-lr", "1", "--epochs", "2", "--resume",
                         "--freeze", "none", "--allow-change", "freeze,epochs"),
                     0);
    for (int i = 0; i < 3; i++)
        assert_false(same_tensor(run, place.quiet, kept[i]));
    assert_int_equal(RUN(place.directory, "--freeze", "1"), 2); /* of what? */
    assert_int_equal(RUN(place.directory, "--init", init, "--freeze", "most"), 2);
    free(run);
    free(init);
}

/* A rate of its own counts where all others have none. */
static void head_learns_alone(void **state)
{
    char *run = join(place.directory, "head"), *init = join(place.quiet, "last.safetensors");
    assert_int_equal(RUN(run, "--init", init, "--lr", "0", "--base-lr", "0", "--head-lr", "0.1",
                         "--max-steps", "2"),
                     0);
    assert_true(same_tensor(run, place.quiet, "layer2.0.conv1.weight"));
    assert_false(same_tensor(run, place.quiet, "fc.weight"));
    free(run);
    free(init);
}

static void wrong_calls_are_refused(void **state)
{
    char *log;
    assert_int_equal(RUN(place.quiet), 2); /* not empty */
    assert_int_equal(RUN(place.quiet, "--resume", "--lr", "0.2"), 2);
    log = read_file(place.directory, "trainer.log");
    assert_non_null(strstr(log, "lr is '0.2'"));
    free(log);
    char *fresh = join(place.directory, "fresh");
    assert_int_equal(RUN(fresh, "--total-batch", "60"), 2);
    assert_int_equal(RUN(fresh, "--audit", "1.5"), 2);
    assert_int_equal(RUN(fresh, "--init", place.quiet), 1);
    assert_int_equal(RUN(fresh, "--teacher", place.recipe), 1);
    log = read_file(place.directory, "trainer.log");
    assert_non_null(strstr(log, "--teacher: '"));
    free(log);
    free(fresh);
}

static void eval_only_agrees(void **state)
{
    char *best = join(place.quiet, "best.safetensors"), *fresh = join(place.directory, "eval");
    char wanted[128];
    double top1 = event_number(place.quiet, "eval", EPOCHS - 1, "top1");
    double loss = event_number(place.quiet, "eval", EPOCHS - 1, "loss");
    assert_int_equal(RUN(place.quiet, "--resume", "--eval-only", "--json"), 0);
    snprintf(wanted, sizeof wanted, "{\"top1\":%.17g,", top1);
    char *log = read_file(place.directory, "trainer.log");
    assert_non_null(strstr(log, wanted));
    snprintf(wanted, sizeof wanted, "\"loss\":%.17g,\"samples\":53}", loss);
    assert_non_null(strstr(log, wanted));
    free(log);
    assert_int_equal(RUN(fresh, "--init", best, "--eval-only"), 0);
    assert_int_not_equal(access(fresh, F_OK), 0); /* nothing is written */
    assert_int_equal(RUN(fresh, "--eval-only"), 2);
    free(best);
    free(fresh);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_learns),
        cmocka_unit_test(stopped_run_goes_on),
        cmocka_unit_test(stream_may_be_changed),
        cmocka_unit_test(killed_run_goes_on),
        cmocka_unit_test(killed_at_random_instants),
        cmocka_unit_test(unsaved_run_goes_on),
        cmocka_unit_test(max_steps_counts_over_resumes),
        cmocka_unit_test(finished_run_is_left_alone),
        cmocka_unit_test(uint8_wire_learns),
        cmocka_unit_test(halves_learn),
        cmocka_unit_test(overflowing_steps_are_left_out),
        cmocka_unit_test(teacher_teaches),
        cmocka_unit_test(average_is_kept),
        cmocka_unit_test(frozen_stages_stay),
        cmocka_unit_test(head_learns_alone),
        cmocka_unit_test(wrong_calls_are_refused),
        cmocka_unit_test(eval_only_agrees),
        cmocka_unit_test(stalled_run_goes_on),
    };
    return cmocka_run_group_tests(tests, open_place, close_place);
}
