/* SPDX-License-Identifier: Apache-2.0 */
/* The frozen network that a run distils from. */
#include "trainer/teacher.h"

#include "common/err.h"
#include "common/log.h"
#include "trainer/model_file.h"

static int check_fit(const struct model_file *file, const struct net *student)
{
    if (file->classes != student->classes || file->channels != student->channels)
        return err_set(
            ERR_ARG, "--teacher '%s' is for %d classes and %d channels, the data has %d and %d",
            file->path, file->classes, file->channels, student->classes, student->channels);
    return 0;
}

static bool equal_reals(const struct opt_reals *a, const struct opt_reals *b)
{
    bool equal = a->count == b->count;
    for (int i = 0; equal && i < a->count; i++)
        equal = a->values[i] == b->values[i];
    return equal;
}

/* It will see what the student sees. */
static void warn_of_input(const struct model_file *file, const struct recipe *recipe)
{
    if (file->has_recipe && (!equal_reals(&file->recipe.mean, &recipe->mean) ||
                             !equal_reals(&file->recipe.std, &recipe->std)))
        log_warn("the teacher '%s' was trained with another --mean or --std than this run's, whose "
                 "images it will see",
                 file->path);
}

int teacher_open(struct teacher *teacher, struct program_config *config,
                 const struct recipe *recipe, const struct net *student,
                 const struct backend_ops *ops, struct backend *backend)
{
    struct model_file file;
    *teacher = (struct teacher){.ops = ops};
    if (!recipe->teacher)
        return 0;
    int code = model_file_open(&file, recipe->teacher, recipe->teacher_model);
    if (code)
        return err_wrap(code, "--teacher");
    code = check_fit(&file, student);
    if (!code)
        code = model_file_load(&teacher->net, &teacher->state, &file, ops, backend,
                               student->size_px, 0);
    struct program_config mine = *config;
    mine.mode = PROGRAM_INFER;
    mine.micro_batches = 1;
    if (!code)
        code = ops->program_open(&teacher->program, teacher->state, &mine);
    if (!code) {
        config->teacher = teacher->program;
        config->loss.kd_temperature = recipe->kd_temperature;
        config->loss.kd_hard_weight = recipe->kd_hard_weight;
        config->loss.kd_soft_weight = recipe->kd_soft_weight;
        log_info("teacher: %s from '%s', %.3f G multiply-adds an image, temperature %g",
                 teacher->net->model, recipe->teacher, (double)net_macs(teacher->net) / 1e9,
                 recipe->kd_temperature);
        warn_of_input(&file, recipe);
    }
    model_file_close(&file);
    return code;
}

void teacher_close(struct teacher *teacher)
{
    if (teacher->program)
        teacher->ops->program_close(teacher->program);
    if (teacher->state)
        teacher->ops->state_close(teacher->state);
    net_close(teacher->net);
    *teacher = (struct teacher){0};
}

double teacher_seconds(struct teacher *teacher, const struct net *student, double step_seconds)
{
    if (!teacher->program)
        return 0;
    if (!teacher->ops->program_seconds) {
        double mine = (double)net_macs(teacher->net), its = 3 * (double)net_macs(student);
        return step_seconds * mine / (mine + its);
    }
    double before = teacher->seen_s;
    teacher->seen_s = teacher->ops->program_seconds(teacher->program);
    return teacher->seen_s - before;
}
