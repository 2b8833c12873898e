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
#include "common/file.h"
#include "tests/unit/testing.h"
#include "tests/unit/trainer/fixture.h"
#include "trainer/snapshot.h"

static const char *directory;

/* What a training does, without its thread. */
static int save(const char *path, const struct checkpoint *checkpoint,
                const struct weights *weights)
{
    struct checkpoint_part parts[CHECKPOINT_PARTS_MAX];
    struct snapshot *snapshot;
    int count = checkpoint_parts(parts, weights);
    int code = snapshot_open(&snapshot, parts, count);
    if (!code)
        code = snapshot_take(snapshot, checkpoint);
    if (!code)
        code = snapshot_write(snapshot, path);
    snapshot_close(snapshot);
    return code;
}

static int load(const struct weights *weights, const struct safetensors *file, const char *path)
{
    struct checkpoint_part parts[CHECKPOINT_PARTS_MAX];
    int count = checkpoint_parts(parts, weights);
    return checkpoint_load(parts, count, file, path);
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
    assert_int_equal(save(path, &saved, &written.weights), 0);
    assert_int_equal(safetensors_open(&file, path), 0);
    assert_int_equal(checkpoint_read(&loaded, file, path), 0);
    assert_int_equal(load(&read.weights, file, path), 0);
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
    assert_true(loaded.loss_scale_bad_steps == saved.loss_scale_bad_steps);
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
    assert_int_equal(save(path, &saved, &fixture.weights), 0);
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
        save(testing_path(first, directory, "1.safetensors"), &saved, &fixture.weights), 0);
    assert_int_equal(
        save(testing_path(second, testing_directory(), "2.safetensors"), &saved, &fixture.weights),
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
    assert_int_equal(save(path, &saved, &written.weights), 0);
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
    assert_int_equal(save(path, &saved, &written.weights), 0);
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
    assert_int_equal(save(path, &saved, &fixture.weights), 0);
    assert_int_equal(safetensors_open(&file, path), 0);
    assert_int_equal(load(&fixture.weights, file, path), ERR_DATA);
    assert_non_null(strstr(err_message(), "fc.bias"));
    safetensors_close(file);

    const struct safetensors_pair pairs[] = {
        {"format", CHECKPOINT_FORMAT}, {"recipe", ""}, {"backend", ""}, {"epoch", "1x"}};
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

static int read_as(const char *format, const char *path)
{
    const struct safetensors_pair pair = {"format", format};
    struct safetensors_writer *writer;
    struct safetensors *file;
    struct checkpoint checkpoint;
    assert_int_equal(safetensors_write_open(&writer, path, NULL, 0, &pair, 1), 0);
    assert_int_equal(safetensors_write_commit(writer), 0);
    assert_int_equal(safetensors_open(&file, path), 0);
    int code = checkpoint_read(&checkpoint, file, path);
    safetensors_close(file);
    return code;
}

static void other_formats_are_refused(void **state)
{
    char path[TESTING_PATH_BYTES];
    testing_path(path, directory, "old.safetensors");
    assert_int_equal(read_as("satchel-1", path), ERR_UNSUPPORTED);
    assert_non_null(strstr(err_message(), "earlier version"));
    assert_non_null(strstr(err_message(), "--init"));
    assert_int_equal(read_as("satchel-3", path), ERR_UNSUPPORTED);
    assert_non_null(strstr(err_message(), CHECKPOINT_FORMAT));
}

static int verify(const char *path)
{
    struct safetensors *file;
    int code = safetensors_open(&file, path);
    if (!code)
        code = safetensors_verify(file);
    safetensors_close(file);
    return code;
}

/* Whichever bit of the file flips, in header or tensors, it is noticed. */
static void every_flip_is_found(void **state)
{
    char path[TESTING_PATH_BYTES];
    uint64_t random = testing_seed();
    struct fixture fixture;
    struct checkpoint saved = example();
    uint8_t *bytes;
    size_t count;
    open_fixture(&fixture, "resnet8b-w4", 3);
    fill(&fixture, &random);
    testing_path(path, directory, "flip.safetensors");
    assert_int_equal(save(path, &saved, &fixture.weights), 0);
    assert_int_equal(verify(path), 0);
    assert_int_equal(file_read(&bytes, &count, path, 1 << 24), 0);
    for (int i = 0; i < 300; i++) {
        /* A third in the header, where damage may pass for something else. */
        size_t at = (size_t)(testing_random(&random) % (i % 3 ? count : 6000));
        uint8_t bit = (uint8_t)(1 << testing_random(&random) % 8);
        FILE *file = fopen(path, "r+");
        assert_non_null(file);
        fseek(file, (long)at, SEEK_SET);
        fputc(bytes[at] ^ bit, file);
        fclose(file);
        if (verify(path) == 0)
            fail_msg("bit %u of byte %zu", bit, at);
        file = fopen(path, "r+");
        fseek(file, (long)at, SEEK_SET);
        fputc(bytes[at], file);
        fclose(file);
    }
    assert_int_equal(verify(path), 0);
    free(bytes);
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
        cmocka_unit_test(other_formats_are_refused),
        cmocka_unit_test(every_flip_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
