/* SPDX-License-Identifier: Apache-2.0 */
/* The recipe: its defaults are the paper's baseline, and the specs that follow are canonical. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/file.h"
#include "proto/recipe.h"
#include "tests/unit/baseline_spec.h"
#include "tests/unit/testing.h"

static struct recipe recipe;
static struct opt_memory *memory;

/* The defaults with the lines of an .ini on top. */
static int read_text(const char *ini)
{
    struct opt_section section = recipe_section(&recipe);
    opt_memory_close(memory);
    memory = opt_memory_open();
    assert_non_null(memory);
    assert_int_equal(opt_defaults(&section), 0);
    return opt_read_ini_text(&section, memory, ini, "test", recipe_foreign_keys());
}

static struct spec train_spec(const char *ini, unsigned channels)
{
    struct spec spec;
    assert_int_equal(read_text(ini), 0);
    if (recipe_train_spec(&spec, &recipe, channels) != 0)
        fail_msg("%s: %s", ini, err_message());
    return spec;
}

static struct spec eval_spec(const char *ini, unsigned channels)
{
    struct spec spec;
    assert_int_equal(read_text(ini), 0);
    if (recipe_eval_spec(&spec, &recipe, channels) != 0)
        fail_msg("%s: %s", ini, err_message());
    return spec;
}

static void assert_same(struct spec a, struct spec b)
{
    assert_true(hash128_equal(spec_hash(&a), spec_hash(&b)));
}

static int close_memory(void **state)
{
    opt_memory_close(memory);
    return 0;
}

static void test_baseline(void **state)
{
    assert_int_equal(read_text(""), 0);
    assert_int_equal(recipe_check(&recipe, 8), 0);
    assert_string_equal(recipe.model, "resnet50a");
    assert_int_equal(recipe.total_batch, 256);
    assert_int_equal(recipe.micro_batch, 32);
    assert_int_equal(recipe.epochs, 120);
    assert_true(recipe_lr(&recipe) == 0.1);
    assert_string_equal(recipe.schedule, "step");
    assert_true(recipe.momentum == 0.9 && recipe.weight_decay == 1e-4);
    assert_false(recipe.no_bias_decay || recipe.zero_gamma);
    assert_string_equal(recipe.precision, "fp32");
    assert_true(recipe.label_smoothing == 0 && recipe.mixup_alpha == 0 && !recipe.teacher);
    assert_true(recipe.kd_temperature == 20 && recipe.kd_hard_weight == 1);
}

static void test_lr_scales(void **state)
{
    assert_int_equal(read_text("total-batch = 1024"), 0);
    assert_true(recipe_lr(&recipe) == 0.1 * 1024 / 256);
    assert_int_equal(read_text("total-batch = 1024\nlr = 0.3"), 0);
    assert_true(recipe_lr(&recipe) == 0.3);
}

static void test_baseline_train_spec(void **state)
{
    assert_same(train_spec("seed = 9", 3), baseline_spec(9, 224, 8));
}

static void test_baseline_eval_spec(void **state)
{
    const struct spec want = {
        .store = "val",
        .damaged_masked = 1,
        .channels = 3,
        .size_px = 224,
        .resize_short_px = 256,
        .chunk_size = 8,
        .mean = {123.68f, 116.779f, 103.939f},
        .std = {58.393f, 57.12f, 57.375f},
    };
    assert_same(eval_spec("seed = 9\nmixup-alpha = 0.2\nwire = fp16", 3), want);
    assert_int_equal(eval_spec("eval-size = 299", 3).resize_short_px, 342);
    assert_int_equal(eval_spec("eval-size = 299", 3).chunk_size, 4);
    assert_int_equal(eval_spec("chunk-size = 8\neval-size = 1024", 3).chunk_size, 4);
    assert_int_equal(eval_spec("chunk-size = 9\neval-size = 1024", 3).chunk_size, 1);
    assert_int_equal(eval_spec("size = 160", 3).resize_short_px, 183); /* 182.86 */
    assert_int_equal(eval_spec("size = 28\nresize-short = 28", 3).resize_short_px, 28);
}

static void test_augment(void **state)
{
    struct spec full = train_spec("", 3), crop = train_spec("augment = crop", 3);
    assert_true(crop.crop == SPEC_CROP_RRC && crop.flip == 1);
    assert_true(crop.jitter == SPEC_JITTER_NONE && crop.pca_sigma == 0);
    crop.jitter = full.jitter;
    crop.pca_sigma = full.pca_sigma;
    memcpy(crop.jitter_strength, full.jitter_strength, sizeof crop.jitter_strength);
    assert_same(crop, full);
    /* none: the validation transform, in the training order. */
    struct spec none = train_spec("augment = none\nseed = 3", 3), val = eval_spec("", 3);
    assert_int_equal(none.order, SPEC_ORDER_SHUFFLED);
    assert_int_equal(none.damaged_masked, 0);
    assert_true(none.seed == 3);
    none.order = val.order;
    none.seed = 0;
    none.damaged_masked = 1;
    strcpy(none.store, "val");
    assert_same(none, val);
    struct spec mixed = train_spec("augment = none\nmixup-alpha = 0.2", 3);
    assert_true(mixed.mixup_alpha == 0.2f && mixed.mixup_off_epoch == UINT32_MAX);
}

/* Keys that make no difference to a pixel make none to the hash. */
static void test_equal_streams_are_equal(void **state)
{
    assert_same(
        train_spec("augment = crop\njitter = bcs\npca-sigma = 0.3\njitter-strength = 0.1", 3),
        train_spec("augment = crop", 3));
    assert_same(train_spec("jitter = none\njitter-strength = 0.1", 3),
                train_spec("jitter-strength = 0,0,0", 3));
    assert_same(train_spec("crop = none\narea-min = 0.3\naspect-draw = log", 3),
                train_spec("crop = none", 3));
    assert_same(train_spec("mixup-lam = batch\nmixup-off-last-epochs = 5", 3), train_spec("", 3));
    assert_same(train_spec("mixup-alpha = 0.2\nmixup-off-last-epochs = 120", 3), train_spec("", 3));
    assert_same(train_spec("resize-short = 300", 3), train_spec("", 3));
    assert_same(train_spec("mean = 5\nstd = 2", 3), train_spec("mean = 5,5,5\nstd = 2,2,2", 3));
    assert_same(train_spec("epochs = 7\nlr = 3\nmodel = resnet18", 3), train_spec("", 3));
    assert_same(eval_spec("augment = none\ncrop = pad:4\nseed = 8\nmixup-alpha = 1", 3),
                eval_spec("", 3));
}

static void test_crops(void **state)
{
    struct spec pad = train_spec("crop = pad:4\nsize = 32", 3);
    assert_int_equal(pad.crop, SPEC_CROP_PAD);
    assert_int_equal(pad.pad_px, 4);
    assert_int_equal(pad.resize_short_px, 32);
    assert_int_equal(pad.chunk_size, 32);
    assert_true(pad.area_min == 0 && pad.aspect_max == 0);
    struct spec none = train_spec("crop = none\nresize-short = 230", 3);
    assert_int_equal(none.resize_short_px, 230);
    assert_int_equal(none.flip, 1);
    const char *bad[] = {"crop = pad",     "crop = pad:",   "crop = pad:0",
                         "crop = pad:225", "crop = pad:4x", "crop = centre"};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        struct spec spec;
        assert_int_equal(read_text(bad[i]), 0);
        assert_int_equal(recipe_train_spec(&spec, &recipe, 3), ERR_ARG);
        assert_int_equal(recipe_check(&recipe, 1), ERR_ARG);
    }
}

static void test_one_channel(void **state)
{
    struct spec spec = train_spec("size = 28\nmicro-batch = 64", 1);
    assert_int_equal(spec.channels, 1);
    assert_int_equal(spec.chunk_size, 64);
    assert_true(spec.jitter == 0 && spec.pca_sigma == 0 && spec.flip == 1);
    assert_true(spec.mean[0] == (float)((123.68 + 116.779 + 103.939) / 3) && spec.mean[1] == 0);
    assert_true(spec.std[0] == (float)((58.393 + 57.12 + 57.375) / 3) && spec.std[2] == 0);
    assert_true(train_spec("mean = 72.9", 1).mean[0] == 72.9f);
}

static void test_mixup(void **state)
{
    struct spec spec = train_spec("epochs = 200\nmixup-alpha = 0.2\nmixup-off-last-epochs = 20", 3);
    assert_int_equal(spec.mixup_off_epoch, 180);
    assert_true(spec.mixup_lam == SPEC_LAM_PAIR && spec.chunks_per_batch == 0);
    spec = train_spec("mixup-alpha = 0.2\nmixup-lam = batch\ntotal-batch = 512", 3);
    assert_true(spec.mixup_lam == SPEC_LAM_BATCH && spec.chunks_per_batch == 64);
    assert_true(spec.mixup_off_epoch == UINT32_MAX);
}

static void test_values_of_later_versions(void **state)
{
    struct spec spec = train_spec("jitter = bcs\ninterpolation = bicubic\nwire = uint8", 3);
    assert_true(spec.jitter == SPEC_JITTER_BCS && spec.interpolation == SPEC_BICUBIC);
    assert_true(spec.wire == SPEC_WIRE_UINT8);
}

static void assert_refused(const char *ini, int64_t ranks, const char *part)
{
    assert_int_equal(read_text(ini), 0);
    assert_int_equal(recipe_check(&recipe, ranks), ERR_ARG);
    if (!strstr(err_message(), part))
        fail_msg("'%s' does not contain '%s'", err_message(), part);
}

static void test_check(void **state)
{
    assert_refused("", 3, "total-batch 256");
    assert_refused("total-batch = 250", 1, "total-batch 250");
    assert_refused("", 16, "16 ranks");
    assert_refused("", 0, "total-batch");
    assert_refused("micro-batch = 512", 1, "micro-batch 512");
    assert_refused("chunk-size = 12", 1, "micro-batch 32 is not divisible by chunk-size 12");
    assert_refused("chunk-size = 1\nmixup-alpha = 0.2", 1, "chunk-size 1 must be even");
    assert_refused("total-batch = 10\nmicro-batch = 5\nmixup-alpha = 0.2", 1, "micro-batch 5");
    assert_refused("warmup-epochs = 5\nepochs = 4", 1, "warmup-epochs");
    assert_refused("mixup-off-last-epochs = 5\nepochs = 4", 1, "mixup-off-last-epochs");
    assert_refused("loss-scale = big", 1, "loss-scale");
    assert_refused("loss-scale = -1", 1, "loss-scale");
    assert_refused("loss-scale = nan", 1, "loss-scale");
    assert_refused("label-smoothing = 1", 1, "label-smoothing");
    assert_refused("teacher-model = resnet152d", 1, "teacher");
    assert_refused("mean = 1,2", 1, "mean needs 1 or 3");
    assert_refused("std = 1,2,3,4", 1, "std needs 1 or 3");
    assert_refused("jitter-strength = 1,1", 1, "jitter-strength");
    assert_refused("area-min = 0.5\narea-max = 0.4", 1, "area-min");
    assert_refused("aspect-min = 2", 1, "aspect-min");
    assert_refused("mixup-alpha = 0.0001", 1, "mixup_alpha");
    assert_refused("resize-short = 100", 1, "resize-short 100 is less than size 224");
    assert_int_equal(read_text("loss-scale = 128\ntotal-batch = 1024\nmicro-batch = 128"), 0);
    assert_int_equal(recipe_check(&recipe, 8), 0);
}

static void test_foreign_keys(void **state)
{
    struct opt_section section = recipe_section(&recipe);
    assert_int_equal(read_text("loaders = x\nout = run\nmax_steps = 3\ndata = a\nserver-keys = k"),
                     0);
    assert_int_equal(read_text("epochs = 3\nlaoders = x"), ERR_ARG);
    assert_non_null(strstr(err_message(), "test:2: unknown key 'laoders'"));
    for (const char *const *key = recipe_foreign_keys(); *key; key++) {
        for (size_t i = 0; i < section.count; i++)
            assert_string_not_equal(section.options[i].name, *key);
    }
}

/* What a run writes is the run's recipe again. */
static void test_written_recipe_reads_back(void **state)
{
    char *text = NULL;
    size_t bytes;
    struct spec before = train_spec(
        "mixup-alpha = 0.2\nseed = 18446744073709551615\ncrop = pad:3\nmean = 1.1,2.2,3.3", 3);
    struct opt_section section = recipe_section(&recipe);
    FILE *stream = open_memstream(&text, &bytes);
    assert_non_null(stream);
    assert_int_equal(opt_write_ini(stream, &section, true), 0);
    fclose(stream);
    assert_same(train_spec(text, 3), before);
    free(text);
}

static void test_find(void **state)
{
    char path[TESTING_PATH_BYTES], *found;
    const char *directory = testing_directory();
    testing_path(path, directory, "mine.ini");
    assert_int_equal(file_write_atomic(path, "epochs = 3\n", 11), 0);
    setenv("SATCHEL_RECIPES", directory, 1);
    assert_int_equal(recipe_find(&found, "mine"), 0);
    assert_string_equal(found, path);
    free(found);
    assert_int_equal(recipe_find(&found, path), 0);
    assert_string_equal(found, path);
    free(found);
    assert_int_equal(recipe_find(&found, "none-such"), ERR_ARG);
    assert_null(found);
    assert_non_null(strstr(err_message(), "'none-such'"));
    assert_non_null(strstr(err_message(), "mine"));
    assert_int_equal(recipe_find(&found, directory), ERR_ARG); /* a directory is no recipe */
    assert_int_equal(recipe_find(&found, "../mine"), ERR_ARG);
    unsetenv("SATCHEL_RECIPES");
    assert_int_equal(recipe_find(&found, "mine"), ERR_ARG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_baseline),
        cmocka_unit_test(test_lr_scales),
        cmocka_unit_test(test_baseline_train_spec),
        cmocka_unit_test(test_baseline_eval_spec),
        cmocka_unit_test(test_augment),
        cmocka_unit_test(test_equal_streams_are_equal),
        cmocka_unit_test(test_crops),
        cmocka_unit_test(test_one_channel),
        cmocka_unit_test(test_mixup),
        cmocka_unit_test(test_values_of_later_versions),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_foreign_keys),
        cmocka_unit_test(test_written_recipe_reads_back),
        cmocka_unit_test(test_find),
    };
    return cmocka_run_group_tests(tests, NULL, close_memory);
}
