/* SPDX-License-Identifier: Apache-2.0 */
/* Which network a file of weights is of. */
#include "trainer/model_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"

enum { STAGES_MAX = 4, BLOCKS_MAX = 1000 };

static const struct safetensors_tensor *find(const struct model_file *file, const char *name,
                                             int rank)
{
    const struct safetensors_tensor *tensor = safetensors_find(file->file, name);
    return tensor && tensor->rank == rank ? tensor : NULL;
}

static bool has(const struct model_file *file, int stage, int block, const char *part, int rank)
{
    char name[64];
    snprintf(name, sizeof name, "layer%d.%d.%s.weight", stage, block, part);
    return find(file, name, rank) != NULL;
}

/* What the tensors' names and shapes tell. */
struct shape {
    int stages, blocks, width;
    bool bottleneck, deep_stem, pooled, wide_stem; /* wide: 7 x 7 */
};

static struct shape look(const struct model_file *file)
{
    struct shape shape = {.bottleneck = has(file, 1, 0, "conv3", 4),
                          .deep_stem = find(file, "conv1.0.weight", 4) != NULL};
    for (int stage = 1; stage <= STAGES_MAX && has(file, stage, 0, "conv1", 4); stage++) {
        shape.stages = stage;
        for (int block = 0; block < BLOCKS_MAX && has(file, stage, block, "conv1", 4); block++)
            shape.blocks++;
        shape.pooled = shape.pooled || has(file, stage, 0, "downsample.1", 4);
    }
    const struct safetensors_tensor *stem = find(file, "conv1.weight", 4);
    const struct safetensors_tensor *first = find(file, "layer1.0.conv1.weight", 4);
    shape.wide_stem = stem && stem->shape[2] == 7;
    shape.width = first && first->shape[0] <= 1024 ? (int)first->shape[0] : 0;
    return shape;
}

/* The name that trainer/model/resnet.c gives to such a network. */
static int name_by_tensors(char name[48], const struct model_file *file)
{
    struct shape shape = look(file);
    if (!shape.stages || !shape.width)
        return err_set(ERR_DATA,
                       "'%s': no residual network is known by these tensors: there is no "
                       "'layer1.0.conv1.weight'",
                       file->path);
    int layers = shape.blocks * (shape.bottleneck ? 3 : 2) + 2;
    bool small = shape.stages == 4 && !shape.deep_stem && !shape.wide_stem;
    char variant = shape.pooled ? 'd' : shape.deep_stem ? 'c' : 'b';
    int used = snprintf(name, 48, "resnet%d%c%s", layers, variant, small ? "-small" : "");
    if (shape.width != (shape.stages == 3 ? 16 : 64))
        snprintf(name + used, 48 - (size_t)used, "-w%d", shape.width);
    return 0;
}

static int read_number(int *dst, const struct model_file *file, const char *key)
{
    const char *text = safetensors_metadata(file->file, key);
    char *end;
    long value = text ? strtol(text, &end, 10) : 0;
    *dst = (int)value;
    if (text && (end == text || *end || value < 1 || value > 1 << 20))
        return err_set(ERR_DATA, "'%s': the metadata's '%s' is '%.80s', which it cannot be",
                       file->path, key, text);
    return 0;
}

static int choose_model(struct model_file *file, const char *model)
{
    const char *text = model ? model : safetensors_metadata(file->file, "model");
    if (!text)
        return name_by_tensors(file->model, file);
    if (strlen(text) >= sizeof file->model)
        return err_set(model ? ERR_ARG : ERR_DATA, "'%s': a model named '%.64s'", file->path, text);
    strcpy(file->model, text);
    return 0;
}

static int count_channels(struct model_file *file)
{
    const struct safetensors_tensor *fc = find(file, "fc.weight", 2);
    const struct safetensors_tensor *stem = find(file, "conv1.weight", 4);
    if (!stem)
        stem = find(file, "conv1.0.weight", 4);
    if (!fc || !stem)
        return err_set(ERR_DATA, "'%s' has no tensor '%s', which %s needs", file->path,
                       fc ? "conv1.weight" : "fc.weight", file->model);
    if (fc->shape[0] > 1 << 20 || stem->shape[1] > 64)
        return err_set(ERR_DATA, "'%s': tensor '%s' has a shape that no network has", file->path,
                       fc->shape[0] > 1 << 20 ? fc->name : stem->name);
    file->classes = (int)fc->shape[0];
    file->channels = (int)stem->shape[1];
    return 0;
}

static int read_recipe(struct model_file *file)
{
    struct opt_section section = recipe_section(&file->recipe);
    const char *text = safetensors_metadata(file->file, "recipe");
    file->memory = opt_memory_open();
    int code = file->memory
                   ? opt_defaults(&section)
                   : err_set(ERR_NOMEM, "out of memory for the recipe of '%s'", file->path);
    file->has_recipe = text != NULL;
    if (!code && text)
        code = opt_read_ini_text(&section, file->memory, text, file->path, recipe_foreign_keys());
    return code == ERR_ARG ? err_set(ERR_DATA, "%s", err_message()) : code;
}

int model_file_open(struct model_file *out, const char *path, const char *model)
{
    *out = (struct model_file){.path = path};
    int code = safetensors_open(&out->file, path);
    if (!code)
        code = choose_model(out, model);
    if (!code)
        code = count_channels(out);
    if (!code)
        code = read_number(&out->size_px, out, "size");
    if (!code)
        code = read_recipe(out);
    if (code)
        model_file_close(out);
    return code;
}

void model_file_close(struct model_file *file)
{
    safetensors_close(file->file);
    opt_memory_close(file->memory);
    *file = (struct model_file){0};
}

int model_file_load(struct net **net, struct state **state, const struct model_file *file,
                    const struct backend_ops *ops, struct backend *backend, int size_px, int slots)
{
    *state = NULL;
    int code = net_open(net, file->model, size_px, file->channels, file->classes);
    if (code)
        return err_wrap(code, "'%s'", file->path);
    code = ops->state_open(state, backend, *net, slots);
    const struct weights weights = {ops, *state, *net};
    if (!code)
        code = weights_load(&weights, file->file, file->path, STATE_WEIGHT, "", NULL);
    if (code) {
        if (*state)
            ops->state_close(*state);
        net_close(*net);
        *state = NULL;
        *net = NULL;
    }
    return code;
}

void model_file_settle(struct recipe *given, const struct opt_program *program,
                       const struct model_file *file)
{
    struct opt_section section = recipe_section(given);
    if (file->has_recipe)
        opt_fill(&section, program, &file->recipe);
}
