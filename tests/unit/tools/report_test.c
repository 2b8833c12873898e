/* SPDX-License-Identifier: Apache-2.0 */
/* satchel-report: the page is whole, small, loads nothing, and shows what the run did. */
#include <ctype.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/err.h"
#include "common/file.h"
#include "datasets/store.h"
#include "tests/unit/testing.h"
#include "trainer/metrics.h"
#include "trainer/predictions.h"

enum {
    CLASSES = 30,
    SAMPLES = 600,
    SIDE_PX = 28,
    EPOCHS = 120,
    STEPS = 100, /* an epoch; more than a curve has points in all */
    MOST_BYTES = 2000000,
    PAGE_BYTES = 16 << 20,
};

static const char *program;
static const char *directory;
static struct hash128 fingerprint;

static const char recipe_text[] = "model = resnet50d\nepochs = 120\nsize = 28\nresize-short = 28\n"
                                  "mean = 72\nstd = 90\nlabel-smoothing = 0.1\n";

static char *path_of(const char *name)
{
    char *path;
    if (asprintf(&path, "%s/%s", directory, name) < 0)
        abort();
    return path;
}

/* Class 3 has a name that is markup. */
static void make_store(const char *path, uint64_t seed)
{
    static char ids[CLASSES][16];
    const char *id_list[CLASSES], *names[CLASSES];
    struct store_writer *writer;
    uint64_t random = seed;
    uint8_t image[SIDE_PX * SIDE_PX];
    for (int c = 0; c < CLASSES; c++) {
        snprintf(ids[c], sizeof ids[c], "class%d", c);
        id_list[c] = ids[c];
        names[c] = c == 3 ? "<b onload='x'>&\"" : ids[c];
    }
    const struct store_meta meta = {.class_count = CLASSES,
                                    .channels = 1,
                                    .encoding = STORE_RAW,
                                    .class_ids = id_list,
                                    .class_names = names,
                                    .split = "val",
                                    .packed_by = "test"};
    assert_int_equal(store_writer_open(&writer, path, 0), 0);
    for (uint32_t i = 0; i < SAMPLES; i++) {
        for (size_t j = 0; j < sizeof image; j++)
            image[j] = (uint8_t)testing_random(&random);
        const struct store_sample sample = {.label = i * CLASSES / SAMPLES,
                                            .width = SIDE_PX,
                                            .height = SIDE_PX,
                                            .channels = 1,
                                            .encoding = STORE_RAW,
                                            .image = image,
                                            .image_bytes = sizeof image};
        assert_int_equal(store_writer_add(writer, &sample), 0);
    }
    assert_int_equal(store_writer_publish(writer, &meta, &fingerprint), 0);
}

static void write_metrics(const char *path, int epochs)
{
    struct metrics *metrics;
    uint64_t random = 2;
    assert_int_equal(metrics_open(&metrics, path, 0, 0), 0);
    for (int step = 0; step < epochs * STEPS; step++) {
        const struct metrics_step line = {
            .step = (uint64_t)step,
            .epoch = (uint64_t)(step / STEPS),
            .loss = step == 7 ? 0.0 / 0.0 : 2 + testing_unit(&random),
            .lr = 0.1,
            .images_per_second = 900 + 100 * testing_unit(&random),
            .wait_share = 0.25,
        };
        assert_int_equal(metrics_write_step(metrics, &line), 0);
        if (step % STEPS != STEPS - 1)
            continue;
        const struct metrics_eval eval = {.epoch = line.epoch,
                                          .top1 = 50 + (double)line.epoch / 10,
                                          .top5 = 80,
                                          .loss = 1.5,
                                          .has_ema = epochs > 1,
                                          .ema_top1 = 60};
        assert_int_equal(metrics_write_eval(metrics, &eval), 0);
        const struct hash128 receipt = {line.epoch, 77};
        assert_int_equal(metrics_write_epoch(metrics, line.epoch, receipt, 40), 0);
    }
    metrics_close(metrics);
}

/* Class 3 is never right: its samples are taken for the next one. */
static void write_predictions(const char *path)
{
    struct predictions *predictions;
    assert_int_equal(predictions_open(&predictions, SAMPLES, CLASSES), 0);
    predictions->val_fingerprint = fingerprint;
    for (uint32_t i = 0; i < SAMPLES; i++) {
        float logits[CLASSES] = {0};
        uint32_t label = i * CLASSES / SAMPLES;
        logits[label == 3 || i % 7 == 0 ? (label + 1) % CLASSES : label] = 4;
        predictions_enter(predictions, i, 1, logits);
    }
    predictions_clear(predictions, 5);
    assert_int_equal(predictions_write(predictions, path), 0);
    predictions_close(predictions);
}

static void make_run(const char *name, int epochs)
{
    char *run = path_of(name), *path;
    assert_int_equal(file_make_directory(run), 0);
    assert_true(asprintf(&path, "%s/recipe.ini", run) > 0);
    assert_int_equal(file_write_atomic(path, recipe_text, strlen(recipe_text)), 0);
    free(path);
    assert_true(asprintf(&path, "%s/metrics.jsonl", run) > 0);
    write_metrics(path, epochs);
    free(path);
    assert_true(asprintf(&path, "%s/best.predictions", run) > 0);
    write_predictions(path);
    free(path);
    free(run);
}

/* Runs satchel-report in the directory; its exit status. */
static int report(const char *const *arguments)
{
    const char *argv[16] = {program};
    for (int i = 0; arguments[i]; i++)
        argv[i + 1] = arguments[i];
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int log = open("/dev/null", O_WRONLY);
        if (chdir(directory) == 0 && log >= 0) {
            dup2(log, STDOUT_FILENO);
            dup2(log, STDERR_FILENO);
            execv(program, (char *const *)argv);
        }
        _exit(127);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define REPORT(...) report((const char *const[]){__VA_ARGS__, NULL})

static char *read_page(const char *name)
{
    uint8_t *text;
    size_t bytes;
    char *path = path_of(name);
    if (file_read(&text, &bytes, path, PAGE_BYTES))
        fail_msg("%s", err_message());
    free(path);
    assert_int_equal(strlen((char *)text), bytes);
    return (char *)text;
}

/* --- is it well-formed? --- */

/* Behind a tag that begins at `at`; attributes are quoted, and no quote stays open. */
static const char *tag_end(const char *at)
{
    char quote = 0;
    for (; *at; at++) {
        if (quote)
            quote = *at == quote ? 0 : quote;
        else if (*at == '\'' || *at == '"')
            quote = *at;
        else if (*at == '<')
            fail_msg("'<' within a tag: %.60s", at);
        else if (*at == '>')
            return at + 1;
    }
    fail_msg("a tag without end");
    return at;
}

/* Every tag that is opened is closed, in order. */
static void assert_balanced(const char *page)
{
    enum { DEEPEST = 32, NAME_BYTES = 16 };
    char open[DEEPEST][NAME_BYTES];
    int depth = 0;
    const char *at = page;
    while ((at = strchr(at, '<'))) {
        char name[NAME_BYTES] = "";
        bool closes = at[1] == '/';
        const char *from = at + 1 + closes, *end = tag_end(from);
        if (*from == '!') {
            at = end;
            continue;
        }
        for (int i = 0; i < NAME_BYTES - 1 && isalnum((unsigned char)from[i]); i++)
            name[i] = from[i];
        if (closes) {
            if (depth == 0 || strcmp(open[depth - 1], name) != 0)
                fail_msg("</%s> closes <%s>", name, depth ? open[depth - 1] : "");
            depth--;
        } else if (end[-2] != '/') {
            assert_true(depth < DEEPEST);
            memcpy(open[depth++], name, NAME_BYTES);
        }
        at = end;
        if (!closes && (strcmp(name, "script") == 0 || strcmp(name, "style") == 0)) {
            char close[NAME_BYTES + 4];
            snprintf(close, sizeof close, "</%s>", name);
            at = strstr(at, close);
            assert_non_null(at);
        }
    }
    assert_int_equal(depth, 0);
}

/* Nothing is fetched: no address, no file, no import. */
static void assert_alone(const char *page)
{
    static const char *const never[] = {"http:", "https:", "//fonts", "@import", "url(",
                                        "<link", "fetch(", "XMLHttp", "import(", "href="};
    for (size_t i = 0; i < sizeof never / sizeof *never; i++)
        if (strstr(page, never[i]))
            fail_msg("the page has '%s'", never[i]);
    for (const char *at = page; (at = strstr(at, "src='")); at++)
        assert_memory_equal(at, "src='data:image/png;base64,", 27);
}

static int count_of(const char *page, const char *text)
{
    int count = 0;
    for (const char *at = page; (at = strstr(at, text)); at++)
        count++;
    return count;
}

static void one_run(void **state)
{
    assert_int_equal(REPORT("long", "--out", "one.html", "--data", "val.lmdb"), 0);
    char *page = read_page("one.html");
    if (strlen(page) >= MOST_BYTES)
        fail_msg("%zu bytes", strlen(page));
    assert_balanced(page);
    assert_alone(page);
    assert_int_equal(count_of(page, "<svg "), 5);
    assert_non_null(strstr(page, "61.90 %")); /* the best */
    assert_non_null(strstr(page, "top-1 of the average"));
    assert_non_null(strstr(page, "25 % of the time was spent waiting"));
    assert_non_null(strstr(page, "&lt;b onload=&#39;x&#39;&gt;&amp;&quot;"));
    assert_null(strstr(page, "<b onload"));
    assert_int_equal(count_of(page, "<img "), 6 * 6 - 3 * 5); /* others have 3 errors each */
    assert_non_null(strstr(page, "resnet50d"));
    assert_int_equal(count_of(page, "<code>"), EPOCHS);
    free(page);
}

static void several_runs(void **state)
{
    assert_int_equal(REPORT("long", "short", "--out", "two.html", "--title", "A <title>"), 0);
    char *page = read_page("two.html");
    assert_true(strlen(page) < MOST_BYTES);
    assert_balanced(page);
    assert_alone(page);
    assert_int_equal(count_of(page, "<h1>A &lt;title&gt;</h1>"), 1);
    assert_true(count_of(page, ">short<") >= 3);
    assert_int_equal(count_of(page, "<img "), 0);
    free(page);
}

/* Equal names in two places; a run that was not judged yet has no pictures. */
static void names_are_told_apart(void **state)
{
    assert_int_equal(REPORT("short", "other/short", "--out", "same.html", "--data", "val.lmdb"), 0);
    char *page = read_page("same.html");
    assert_balanced(page);
    assert_true(count_of(page, ">other/short<") >= 3);
    assert_int_equal(count_of(page, "What is confused"), 1);
    free(page);
}

/* A network that overflows is judged all the same; nobody may be surest of what is no number. */
static void overflows_are_no_probability(void **state)
{
    const float logits[3][CLASSES] = {{0, INFINITY}, {NAN}, {0, 0, 4, NAN}};
    char *path = path_of("overflowed.predictions");
    struct predictions *predictions;
    assert_int_equal(predictions_open(&predictions, 3, CLASSES), 0);
    predictions_enter(predictions, 0, 3, logits[0]);
    assert_int_equal(predictions_write(predictions, path), 0);
    predictions_close(predictions);
    assert_int_equal(predictions_read(&predictions, path), 0);
    for (int i = 0; i < 3; i++)
        assert_true(predictions->class_index[i] >= 0 && predictions->probability[i] == 0);
    predictions_close(predictions);
    free(path);
}

/* Its metrics are a pipe, which nobody writes to: refused, not waited for. */
static void make_piped_run(const char *name)
{
    char *run = path_of(name), *recipe, *metrics;
    assert_int_equal(file_make_directory(run), 0);
    assert_true(asprintf(&recipe, "%s/recipe.ini", run) > 0);
    assert_true(asprintf(&metrics, "%s/metrics.jsonl", run) > 0);
    assert_int_equal(file_write_atomic(recipe, recipe_text, strlen(recipe_text)), 0);
    assert_int_equal(mkfifo(metrics, 0600), 0);
    free(metrics);
    free(recipe);
    free(run);
}

static void wrong_calls(void **state)
{
    make_piped_run("piped");
    assert_int_equal(REPORT("piped", "--out", "x.html"), 1);
    assert_int_equal(REPORT("--out", "x.html"), 2);
    assert_int_equal(REPORT("nowhere", "--out", "x.html"), 1);
    assert_int_equal(REPORT("long", "--out", "x.html", "--data", "other.lmdb"), 2);
    char *page = path_of("x.html");
    assert_int_not_equal(access(page, F_OK), 0);
    free(page);
}

int main(int argc, char **argv)
{
    assert_true(argc == 2);
    program = realpath(argv[1], NULL); /* it is started elsewhere */
    directory = testing_directory();
    char *other = path_of("other.lmdb"), *store = path_of("val.lmdb");
    make_store(other, 1);
    make_store(store, 2);
    free(other);
    free(store);
    make_run("long", EPOCHS);
    make_run("short", 1);
    make_run("other/short", 1);
    char *judged = path_of("other/short/best.predictions");
    assert_int_equal(unlink(judged), 0);
    free(judged);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_run),
        cmocka_unit_test(several_runs),
        cmocka_unit_test(names_are_told_apart),
        cmocka_unit_test(overflows_are_no_probability),
        cmocka_unit_test(wrong_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
