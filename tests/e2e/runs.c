/* SPDX-License-Identifier: Apache-2.0 */
/* Runs of the trainer over a loader, and what they leave. */
#include "tests/e2e/runs.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/file.h"
#include "datasets/store.h"

struct place place;

char *join(const char *directory, const char *name)
{
    char *path;
    if (asprintf(&path, "%s/%s", directory, name) < 0)
        abort();
    return path;
}

/* --- a store that can be learned: class c has a bright row c --- */

static void add_sample(struct store_writer *writer, uint32_t label, uint64_t *random)
{
    uint8_t image[SIZE_PX * SIZE_PX];
    for (int i = 0; i < SIZE_PX * SIZE_PX; i++) {
        uint32_t row = (uint32_t)(i / SIZE_PX);
        image[i] = (uint8_t)(testing_random(random) % 100 + (row == label ? 120 : 0));
    }
    const struct store_sample sample = {
        .label = label,
        .width = SIZE_PX,
        .height = SIZE_PX,
        .channels = 1,
        .encoding = STORE_RAW,
        .image = image,
        .image_bytes = sizeof image,
    };
    assert_int_equal(store_writer_add(writer, &sample), 0);
}

static void make_store(const char *path, uint32_t count, uint64_t seed)
{
    static const char *const ids[CLASSES] = {"0", "1", "2", "3", "4", "5", "6", "7"};
    const struct store_meta meta = {.class_count = CLASSES,
                                    .channels = 1,
                                    .encoding = STORE_RAW,
                                    .class_ids = ids,
                                    .class_names = ids,
                                    .split = "",
                                    .packed_by = "test"};
    struct store_writer *writer;
    assert_int_equal(store_writer_open(&writer, path, 0), 0);
    for (uint32_t i = 0; i < count; i++)
        add_sample(writer, i * CLASSES / count, &seed);
    assert_int_equal(store_writer_publish(writer, &meta, NULL), 0);
}

/* --- trainers --- */

static const char recipe[] = "model = resnet8b-w4\n"
                             "size = 8\n"
                             "resize-short = 8\n"
                             "augment = crop\n"
                             "crop = none\n"
                             "mean = 80\n"
                             "std = 60\n"
                             "total-batch = 64\n"
                             "micro-batch = 16\n"
                             "epochs = 5\n"
                             "lr = 0.1\n"
                             "schedule = cosine\n"
                             "mixup-alpha = 0.2\n"
                             "seed = 5\n";

pid_t start_with(const char *run, const char *const *options)
{
    const char *program = getenv("SATCHEL_TRAINER");
    assert_non_null(program);
    const char *arguments[ARGUMENTS_MAX] = {"satchel-trainer",
                                            "--out",
                                            run,
                                            "--loaders",
                                            place.endpoint,
                                            "--recipe",
                                            place.recipe,
                                            "--backend",
                                            "ref",
                                            "--threads",
                                            "1"};
    int count = 0;
    while (arguments[count])
        count++;
    while (*options)
        arguments[count++] = *options++;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid > 0)
        return pid;
    char *log = join(place.directory, "trainer.log");
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (fd < 0 || dup2(fd, STDERR_FILENO) < 0 || dup2(fd, STDOUT_FILENO) < 0)
        _exit(127);
    execv(program, (char *const *)arguments);
    _exit(127);
}

int finish(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

char *read_file(const char *directory, const char *name)
{
    uint8_t *text;
    size_t bytes;
    char *path = join(directory, name);
    int code = file_read(&text, &bytes, path, TEXT_BYTES);
    free(path);
    return code ? NULL : (char *)text;
}

int count_events(const char *run, const char *event)
{
    char *text = read_file(run, "metrics.jsonl"), wanted[64];
    int count = 0;
    snprintf(wanted, sizeof wanted, "{\"event\":\"%s\",", event);
    for (const char *at = text; at && (at = strstr(at, wanted)); at++)
        count += strchr(at, '\n') != NULL;
    free(text);
    return count;
}

void await_steps(const char *run, int steps, pid_t pid)
{
    siginfo_t ended = {0};
    stream_await(count_events(run, "step") >= steps || ended.si_pid, WAIT_SECONDS)
        waitid(P_PID, (id_t)pid, &ended, WEXITED | WNOHANG | WNOWAIT);
}

/* --- what a run left --- */

const cJSON *field(const cJSON *line, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(line, key);
    if (!value)
        fail_msg("a line of metrics.jsonl lacks '%s'", key);
    return value;
}

cJSON *event_line(const char *run, const char *event, int n)
{
    char *text = read_file(run, "metrics.jsonl"), *rest = text;
    cJSON *found = NULL;
    assert_non_null(text);
    for (char *line; !found && (line = strsep(&rest, "\n")) && *line;) {
        cJSON *parsed = cJSON_Parse(line);
        assert_non_null(parsed);
        if (strcmp(cJSON_GetStringValue(field(parsed, "event")), event) == 0 && n-- == 0)
            found = parsed;
        else
            cJSON_Delete(parsed);
    }
    free(text);
    if (!found)
        fail_msg("%s: no further '%s'", run, event);
    return found;
}

double event_number(const char *run, const char *event, int n, const char *key)
{
    cJSON *line = event_line(run, event, n);
    double value = cJSON_GetNumberValue(field(line, key));
    cJSON_Delete(line);
    return value;
}

void assert_same_metrics(const char *a, const char *b)
{
    static const struct {
        const char *event;
        const char *keys[5];
        int count;
    } compared[] = {
        {"step", {"step", "epoch", "loss", "lr"}, STEPS},
        {"eval", {"epoch", "top1", "top5", "loss", "samples"}, EPOCHS},
        {"epoch", {"epoch", "receipt"}, EPOCHS},
        {"done", {"epochs", "top1"}, 1},
    };
    for (size_t kind = 0; kind < sizeof compared / sizeof *compared; kind++) {
        assert_int_equal(count_events(a, compared[kind].event), compared[kind].count);
        assert_int_equal(count_events(b, compared[kind].event), compared[kind].count);
        for (int i = 0; i < compared[kind].count; i++) {
            cJSON *left = event_line(a, compared[kind].event, i);
            cJSON *right = event_line(b, compared[kind].event, i);
            for (int k = 0; k < 5 && compared[kind].keys[k]; k++)
                if (!cJSON_Compare(field(left, compared[kind].keys[k]),
                                   field(right, compared[kind].keys[k]), true))
                    fail_msg("%s %d: '%s' differs", compared[kind].event, i,
                             compared[kind].keys[k]);
            cJSON_Delete(left);
            cJSON_Delete(right);
        }
    }
}

/* The checkpoint files are equal in every byte: weights, momentum, statistics, receipts. */
static void assert_same_files(const char *a, const char *b)
{
    static const char *const names[] = {"last.safetensors", "best.safetensors", "best.predictions"};
    for (int i = 0; i < 3; i++) {
        char *left = join(a, names[i]), *right = join(b, names[i]), *command;
        assert_true(asprintf(&command, "cmp '%s' '%s'", left, right) > 0);
        if (system(command) != 0)
            fail_msg("%s of %s and %s differ", names[i], a, b);
        free(command);
        free(left);
        free(right);
    }
}

void assert_as_quiet(const char *run)
{
    assert_same_metrics(place.quiet, run);
    assert_same_files(place.quiet, run);
}

double mean_loss(const char *run, int epoch)
{
    double sum = 0;
    for (int i = 0; i < STEPS / EPOCHS; i++)
        sum += event_number(run, "step", epoch * STEPS / EPOCHS + i, "loss");
    return sum / (STEPS / EPOCHS);
}

int start_loader(void)
{
    stream_start(&place.loader, place.directory, place.endpoint, place.data, 1, 0);
    stream_wait_ready(&place.loader);
    return 0;
}

int open_place(void **state)
{
    place.directory = testing_directory();
    char *train = join(place.directory, "train.lmdb"), *val = join(place.directory, "val.lmdb");
    make_store(train, TRAIN_SAMPLES, 1);
    make_store(val, VAL_SAMPLES, 2);
    snprintf(place.train_data, sizeof place.train_data, "train=%s", train);
    snprintf(place.val_data, sizeof place.val_data, "val=%s", val);
    place.data[0] = place.train_data;
    place.data[1] = place.val_data;
    testing_endpoint(place.endpoint, place.directory);
    free(train);
    free(val);
    start_loader();
    place.recipe = join(place.directory, "tiny.ini");
    assert_int_equal(file_write_atomic(place.recipe, recipe, strlen(recipe)), 0);
    place.quiet = join(place.directory, "quiet");
    int64_t start_ns = clock_ns();
    int status = RUN(place.quiet);
    place.quiet_ns = clock_ns() - start_ns;
    return status;
}

int close_place(void **state)
{
    free(place.quiet);
    free(place.recipe);
    return place.loader.pid ? stream_stop(&place.loader) : 0;
}
