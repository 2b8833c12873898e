/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints: everything comes back, from the ref backend's own state; what does not fit is named.
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
#include "tests/unit/testing.h"
#include "trainer/checkpoint.h"

static const char *directory;

/* A net and its state on the ref backend. */
struct fixture {
    struct backend *backend;
    struct net *net;
    struct weights weights;
};

static void open_fixture(struct fixture *fixture, const char *model, int classes)
{
    const struct backend_config config = {.threads = 1};
    assert_int_equal(backend_ref.open(&fixture->backend, &config), 0);
    assert_int_equal(net_open(&fixture->net, model, 16, 3, classes), 0);
    fixture->weights = (struct weights){.ops = &backend_ref, .net = fixture->net};
    assert_int_equal(
        backend_ref.state_open(&fixture->weights.state, fixture->backend, fixture->net, 1), 0);
}

static void close_fixture(struct fixture *fixture)
{
    backend_ref.state_close(fixture->weights.state);
    net_close(fixture->net);
    backend_ref.close(fixture->backend);
}

static void fill(struct fixture *fixture, uint64_t *random)
{
    float *values = malloc(weights_largest(fixture->net) * sizeof *values);
    for (int i = 0; i < fixture->net->tensor_count; i++) {
        const struct tensor *tensor = &fixture->net->tensors[i];
        for (int kind = 0; kind < (tensor->trained ? 2 : 1); kind++) {
            for (size_t j = 0; j < tensor->count; j++)
                values[j] = (float)(testing_unit(random) - 0.25);
            assert_int_equal(
                backend_ref.state_set(fixture->weights.state, (enum state_kind)kind, i, values), 0);
        }
    }
    free(values);
}

static void assert_same(struct fixture *a, struct fixture *b, enum state_kind kind, bool head)
{
    size_t bytes = weights_largest(a->net) * sizeof(float);
    float *left = malloc(bytes), *right = malloc(bytes);
    for (int i = 0; i < a->net->tensor_count; i++) {
        const struct tensor *tensor = &a->net->tensors[i];
        if ((kind == STATE_MOMENTUM && !tensor->trained) || (tensor->head && !head))
            continue;
        assert_int_equal(backend_ref.state_get(left, a->weights.state, kind, i), 0);
        assert_int_equal(backend_ref.state_get(right, b->weights.state, kind, i), 0);
        assert_memory_equal(left, right, tensor->count * sizeof *left);
    }
    free(left);
    free(right);
}

static struct checkpoint example(void)
{
    return (struct checkpoint){
        .recipe = "model = resnet8d\nseed = 7\n# \"quoted\"\n",
        .backend = "ref, fp32, 1 thread",
        .epoch = 3,
        .step_in_epoch = 17,
        .step = UINT64_C(1) << 60, /* more than a double holds exactly with 1 added */
        .receipt = {.low = 0x0123456789abcdef, .high = 0xfedcba9876543210},
        .train_fingerprint = {.low = 1, .high = 2},
        .val_fingerprint = {.low = 3, .high = 4},
        .has_val = true,
        .loss_scale = 32768,
        .loss_scale_good_steps = 1999,
        .top1 = 91.0 + 1.0 / 3,
        .best_top1 = 92.00000000000001,
    };
}

static void everything_comes_back(void **state)
{
    char path[TESTING_PATH_BYTES];
    uint64_t random = testing_seed();
    struct fixture written, read;
    struct checkpoint saved = example(), loaded;
    struct safetensors *file;
    saved.step += 1;
    open_fixture(&written, "resnet8d", 10);
    open_fixture(&read, "resnet8d", 10);
    fill(&written, &random);
    testing_path(path, directory, "all.safetensors");
    assert_int_equal(checkpoint_save(path, &saved, &written.weights), 0);
    assert_int_equal(safetensors_open(&file, path), 0);
    assert_int_equal(checkpoint_read(&loaded, file, path), 0);
    assert_int_equal(checkpoint_load(&read.weights, file, path), 0);
    assert_same(&written, &read, STATE_WEIGHT, true);
    assert_same(&written, &read, STATE_MOMENTUM, true);
    assert_string_equal(loaded.recipe, saved.recipe);
    assert_string_equal(loaded.backend, saved.backend);
    assert_true(loaded.epoch == saved.epoch && loaded.step_in_epoch == saved.step_in_epoch);
    assert_true(loaded.step == saved.step && !loaded.finished && loaded.has_val);
    assert_true(hash128_equal(loaded.receipt, saved.receipt));
    assert_true(hash128_equal(loaded.train_fingerprint, saved.train_fingerprint));
    assert_true(hash128_equal(loaded.val_fingerprint, saved.val_fingerprint));
    assert_true(loaded.loss_scale == saved.loss_scale);
    assert_true(loaded.loss_scale_good_steps == saved.loss_scale_good_steps);
    assert_true(loaded.top1 == saved.top1 && loaded.best_top1 == saved.best_top1);
    assert_string_equal(safetensors_metadata(file, "model"), "resnet8d");
    assert_non_null(safetensors_find(file, "momentum.fc.weight"));
    safetensors_close(file);
    close_fixture(&written);
    close_fixture(&read);
}

static void no_evaluation_comes_back(void **state)
{
    char path[TESTING_PATH_BYTES];
    struct fixture fixture;
    struct checkpoint saved = example(), loaded;
    struct safetensors *file;
    saved.has_val = false;
    saved.top1 = saved.best_top1 = -1;
    saved.finished = true;
    open_fixture(&fixture, "resnet8b", 2);
    testing_path(path, directory, "noval.safetensors");
    assert_int_equal(checkpoint_save(path, &saved, &fixture.weights), 0);
    assert_int_equal(safetensors_open(&file, path), 0);
    assert_int_equal(checkpoint_read(&loaded, file, path), 0);
    assert_true(!loaded.has_val && loaded.finished && loaded.top1 < 0 && loaded.best_top1 < 0);
    safetensors_close(file);
    close_fixture(&fixture);
}

/* Equal states give equal files: nothing in them depends on time, host or path. */
static void equal_runs_write_equal_files(void **state)
{
    char first[TESTING_PATH_BYTES], second[TESTING_PATH_BYTES], command[2 * TESTING_PATH_BYTES + 8];
    struct fixture fixture;
    struct checkpoint saved = example();
    uint64_t random = testing_seed();
    open_fixture(&fixture, "resnet8b", 3);
    fill(&fixture, &random);
    assert_int_equal(
        checkpoint_save(testing_path(first, directory, "1.safetensors"), &saved, &fixture.weights),
        0);
    assert_int_equal(checkpoint_save(testing_path(second, testing_directory(), "2.safetensors"),
                                     &saved, &fixture.weights),
                     0);
    snprintf(command, sizeof command, "cmp %s %s", first, second);
    assert_int_equal(system(command), 0);
    close_fixture(&fixture);
}

static void another_head_is_kept(void **state)
{
    char path[TESTING_PATH_BYTES];
    uint64_t random = testing_seed();
    struct fixture written, read, untouched;
    struct checkpoint saved = example();
    struct safetensors *file;
    bool kept;
    open_fixture(&written, "resnet8d", 10);
    open_fixture(&read, "resnet8d", 7);
    open_fixture(&untouched, "resnet8d", 7);
    fill(&written, &random);
    assert_int_equal(weights_init(&read.weights, "xavier", false, 5), 0);
    assert_int_equal(weights_init(&untouched.weights, "xavier", false, 5), 0);
    testing_path(path, directory, "head.safetensors");
    assert_int_equal(checkpoint_save(path, &saved, &written.weights), 0);
    assert_int_equal(safetensors_open(&file, path), 0);
    assert_int_equal(weights_load(&read.weights, file, path, STATE_WEIGHT, "", NULL), ERR_DATA);
    assert_non_null(strstr(err_message(), "fc.weight"));
    assert_non_null(strstr(err_message(), path));
    assert_int_equal(weights_load(&read.weights, file, path, STATE_WEIGHT, "", &kept), 0);
    assert_true(kept);
    assert_same(&read, &written, STATE_WEIGHT, false);
    int head = net_tensor(read.net, "fc.weight");
    float a[7 * 64], b[7 * 64];
    assert_int_equal(read.net->tensors[head].count, 7 * 64);
    assert_int_equal(backend_ref.state_get(a, read.weights.state, STATE_WEIGHT, head), 0);
    assert_int_equal(backend_ref.state_get(b, untouched.weights.state, STATE_WEIGHT, head), 0);
    assert_memory_equal(a, b, sizeof a);
    safetensors_close(file);
    close_fixture(&written);
    close_fixture(&read);
    close_fixture(&untouched);
}

static void another_model_is_named(void **state)
{
    char path[TESTING_PATH_BYTES];
    struct fixture written, read;
    struct checkpoint saved = example();
    struct safetensors *file;
    bool kept;
    open_fixture(&written, "resnet8b", 4);
    open_fixture(&read, "resnet14b", 4);
    testing_path(path, directory, "model.safetensors");
    assert_int_equal(checkpoint_save(path, &saved, &written.weights), 0);
    assert_int_equal(safetensors_open(&file, path), 0);
    assert_int_equal(weights_load(&read.weights, file, path, STATE_WEIGHT, "", &kept), ERR_DATA);
    assert_non_null(strstr(err_message(), "layer1.1"));
    safetensors_close(file);
    close_fixture(&written);
    close_fixture(&read);
}

/* A file of weights that is no checkpoint, and values that are not finite. */
static void damaged_checkpoints_are_named(void **state)
{
    char path[TESTING_PATH_BYTES];
    struct fixture fixture;
    struct checkpoint saved = example();
    struct safetensors *file;
    float nan[3] = {1, NAN, 2};
    open_fixture(&fixture, "resnet8b", 3);
    int bias = net_tensor(fixture.net, "fc.bias");
    assert_int_equal(backend_ref.state_set(fixture.weights.state, STATE_WEIGHT, bias, nan), 0);
    testing_path(path, directory, "nan.safetensors");
    assert_int_equal(checkpoint_save(path, &saved, &fixture.weights), 0);
    assert_int_equal(safetensors_open(&file, path), 0);
    assert_int_equal(checkpoint_load(&fixture.weights, file, path), ERR_DATA);
    assert_non_null(strstr(err_message(), "fc.bias"));
    safetensors_close(file);

    const struct safetensors_pair pairs[] = {
        {"format", "satchel-1"}, {"recipe", ""}, {"backend", ""}, {"epoch", "1x"}};
    struct safetensors_writer *writer;
    assert_int_equal(safetensors_write_open(&writer, path, NULL, 0, pairs, 4), 0);
    assert_int_equal(safetensors_write_commit(writer), 0);
    assert_int_equal(safetensors_open(&file, path), 0);
    assert_int_equal(checkpoint_read(&saved, file, path), ERR_DATA);
    assert_non_null(strstr(err_message(), path));
    safetensors_close(file);
    assert_int_equal(safetensors_write_open(&writer, path, NULL, 0, pairs + 1, 3), 0);
    assert_int_equal(safetensors_write_commit(writer), 0);
    assert_int_equal(safetensors_open(&file, path), 0);
    assert_int_equal(checkpoint_read(&saved, file, path), ERR_DATA);
    assert_non_null(strstr(err_message(), "no checkpoint"));
    safetensors_close(file);
    close_fixture(&fixture);
}

int main(void)
{
    directory = testing_directory();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_comes_back),
        cmocka_unit_test(no_evaluation_comes_back),
        cmocka_unit_test(equal_runs_write_equal_files),
        cmocka_unit_test(another_head_is_kept),
        cmocka_unit_test(another_model_is_named),
        cmocka_unit_test(damaged_checkpoints_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
