/* SPDX-License-Identifier: Apache-2.0 */
/* The shipped recipes: each can be run, and the learning rates of the paper's rows are those that
 * tools/golden/schedule.py worked out from the paper. Usage: recipes_test RECIPES SCHEDULE */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/err.h"
#include "proto/chunk.h"
#include "proto/recipe.h"
#include "trainer/model/net.h"
#include "trainer/schedule.h"

enum { IMAGES = 1281167, NAME_BYTES = 64 };

static const char *folder, *golden;

/* Reads a recipe as --recipe does; the memory goes with the last one. */
static struct recipe read_recipe(const char *name)
{
    static struct opt_memory *memory;
    struct recipe recipe;
    struct opt_section section = recipe_section(&recipe);
    char *path;
    opt_memory_close(memory);
    memory = opt_memory_open();
    assert_int_equal(opt_defaults(&section), 0);
    assert_int_equal(recipe_find(&path, name), 0);
    if (opt_read_ini(&section, memory, path, recipe_foreign_keys()))
        fail_msg("%s", err_message());
    free(path);
    return recipe;
}

static struct schedule schedule_of(const struct recipe *recipe)
{
    uint64_t steps = chunk_steps(IMAGES, (uint64_t)recipe->total_batch);
    return (struct schedule){.lr = recipe_lr(recipe),
                             .cosine = strcmp(recipe->schedule, "cosine") == 0,
                             .warmup_steps = (uint64_t)recipe->warmup_epochs * steps,
                             .total_steps = (uint64_t)recipe->epochs * steps};
}

static void test_learning_rates(void **state)
{
    char name[NAME_BYTES];
    unsigned long long step;
    double expected;
    int lines = 0;
    FILE *file = fopen(golden, "r");
    assert_non_null(file);
    while (fscanf(file, "%63s %llu %lf", name, &step, &expected) == 3) {
        const struct recipe recipe = read_recipe(name);
        const struct schedule schedule = schedule_of(&recipe);
        double lr = schedule_lr(&schedule, step);
        if (!(fabs(lr - expected) <= 1e-15 + 4e-16 * expected))
            fail_msg("%s, iteration %llu: %.17g where %.17g was expected", name, step, lr,
                     expected);
        lines++;
    }
    fclose(file);
    assert_true(lines > 200);
}

/* Every file: a network that exists, sizes and batches that fit, on one rank and on eight. */
static void test_all_are_runnable(void **state)
{
    struct dirent **entries;
    int count = scandir(folder, &entries, NULL, alphasort), recipes = 0;
    assert_true(count > 0);
    for (int i = 0; i < count; i++) {
        char *name = entries[i]->d_name, *end = strstr(name, ".ini");
        if (end) {
            *end = '\0';
            struct recipe recipe = read_recipe(name);
            if (recipe.teacher_model)
                recipe.teacher = "teacher.safetensors"; /* the user's to give */
            bool paper = recipe.size == 224;
            if (recipe_check(&recipe, paper ? 8 : 1))
                fail_msg("%s: %s", name, err_message());
            struct net *net;
            assert_int_equal(net_open(&net, recipe.model, (int)recipe.size, 3, 10), 0);
            net_close(net);
            recipes++;
        }
        free(entries[i]);
    }
    free(entries);
    assert_true(recipes >= 20);
}

/* What each row adds is in it, and in no row before. */
static void test_rows_add_up(void **state)
{
    static const char *const rows[] = {"linear", "warmup", "zero-gamma", "no-bias-decay", "fp16"};
    for (int row = 0; row < 5; row++) {
        char name[NAME_BYTES];
        snprintf(name, sizeof name, "batch1024-%s", rows[row]);
        const struct recipe recipe = read_recipe(name);
        assert_int_equal(recipe.warmup_epochs, row >= 1 ? 5 : 0);
        assert_int_equal(recipe.zero_gamma, row >= 2);
        assert_int_equal(recipe.no_bias_decay, row >= 3);
        assert_string_equal(recipe.precision, row >= 4 ? "fp16" : "fp32");
        assert_true(recipe_lr(&recipe) == 0.4);
    }
    const struct recipe both = read_recipe("refine-distill-mixup");
    assert_true(both.label_smoothing == 0.1 && both.mixup_alpha == 0.2 && both.epochs == 200);
    assert_true(both.kd_temperature == 20 && both.kd_hard_weight == 1 && both.kd_soft_weight == 1);
    assert_string_equal(both.teacher_model, "resnet152d");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learning_rates),
        cmocka_unit_test(test_all_are_runnable),
        cmocka_unit_test(test_rows_add_up),
    };
    if (argc != 3)
        return 2;
    folder = argv[1];
    golden = argv[2];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
