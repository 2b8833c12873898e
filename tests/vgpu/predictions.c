/* SPDX-License-Identifier: Apache-2.0 */
/* How often two trained models agree, each run by its own backend: the first by cuda on the double,
 * the second by oneDNN. tools/compare_double.sh calls it. vgpu_predictions STORE.lmdb COUNT
 * CUDA.safetensors DNNL.safetensors The store has raw images of the models' size; COUNT of them are
 * taken, evenly. Prints "agree N of COUNT". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/half.h"
#include "datasets/store.h"
#include "trainer/backend.h"
#include "trainer/model_file.h"

extern const struct backend_ops backend_cuda;

enum { BATCH = 50 };

struct model {
    const struct backend_ops *ops;
    struct backend *backend;
    struct model_file file;
    struct net *net;
    struct state *state;
    struct program *program;
    uint16_t *pixels;
    struct chunk_label *labels;
    float *logits;
};

static int model_open(struct model *model, const struct backend_ops *ops, enum precision precision,
                      const char *path)
{
    const struct backend_config config = {.threads = 2, .precision = precision};
    const struct program_config how = {.mode = PROGRAM_INFER, .batch = BATCH};
    *model = (struct model){.ops = ops};
    int code = model_file_open(&model->file, path, NULL);
    if (!code)
        code = ops->open(&model->backend, &config);
    if (!code)
        code = model_file_load(&model->net, &model->state, &model->file, ops, model->backend,
                               model->file.size_px, 1);
    if (!code)
        code = ops->program_open(&model->program, model->state, &how);
    if (code)
        return code;
    size_t image = (size_t)model->net->size_px * model->net->size_px;
    model->pixels = ops->host_alloc(model->backend, BATCH * image * sizeof *model->pixels);
    model->labels = ops->host_alloc(model->backend, BATCH * sizeof *model->labels);
    model->logits = calloc((size_t)BATCH * model->net->classes, sizeof *model->logits);
    return model->pixels && model->labels && model->logits ? 0 : err_set(ERR_NOMEM, "no memory");
}

static void model_close(struct model *model)
{
    if (!model->backend)
        return;
    model->ops->program_close(model->program);
    model->ops->state_close(model->state);
    model->ops->host_free(model->backend, model->pixels);
    model->ops->host_free(model->backend, model->labels);
    model->ops->close(model->backend);
    net_close(model->net);
    model_file_close(&model->file);
    free(model->logits);
}

/* Sample `at` of the batch: normalised as in training. */
static int put(struct model *model, int at, const struct store_record *record)
{
    size_t image = (size_t)model->net->size_px * model->net->size_px;
    const struct recipe *recipe = &model->file.recipe;
    if (record->encoding != STORE_RAW || record->image_bytes != image)
        return err_set(ERR_ARG, "the store's images are not raw %d x %d with one channel",
                       model->net->size_px, model->net->size_px);
    double mean = recipe->mean.values[0], std = recipe->std.values[0];
    for (size_t i = 0; i < image; i++)
        model->pixels[at * image + i] = half_from_float((float)((record->image[i] - mean) / std));
    model->labels[at] = (struct chunk_label){record->label, record->label, 1.0f};
    return 0;
}

static int run(struct model *model)
{
    const struct batch batch = {.pixels = model->pixels, .labels = model->labels, .samples = BATCH};
    int code = model->ops->run(model->program, &batch, 0, 1, NULL, NULL);
    return code ? code : model->ops->logits(model->logits, model->program);
}

static int best(const struct model *model, int at)
{
    int classes = model->net->classes, first = 0;
    const float *logits = model->logits + (size_t)at * classes;
    for (int i = 1; i < classes; i++)
        if (logits[i] > logits[first])
            first = i;
    return first;
}

struct counts {
    int agree, right[2];
};

static void count_batch(struct counts *counts, const struct model models[2])
{
    for (int i = 0; i < BATCH; i++) {
        int a = best(&models[0], i), b = best(&models[1], i), label = (int)models[0].labels[i].a;
        counts->agree += a == b;
        counts->right[0] += a == label;
        counts->right[1] += b == label;
    }
}

static int compare(struct counts *counts, struct model models[2], const struct store *store,
                   int count)
{
    uint32_t stride = store_meta(store)->sample_count / (uint32_t)count;
    for (int begin = 0; begin < count; begin += BATCH) {
        for (int i = 0; i < BATCH; i++) {
            struct store_record record;
            int code = store_read(&record, store, (uint32_t)(begin + i) * stride);
            for (int m = 0; m < 2 && !code; m++)
                code = put(&models[m], i, &record);
            if (code)
                return code;
        }
        int code = run(&models[0]);
        if (!code)
            code = run(&models[1]);
        if (code)
            return code;
        count_batch(counts, models);
    }
    return 0;
}

int main(int argc, char **argv)
{
    int count = argc == 5 ? atoi(argv[2]) / BATCH * BATCH : 0;
    struct counts counts = {0};
    if (count < BATCH) {
        fprintf(stderr, "usage: %s STORE.lmdb COUNT CUDA.safetensors DNNL.safetensors\n", argv[0]);
        return 2;
    }
    struct store *store = NULL;
    struct model models[2] = {{0}, {0}};
    int code = store_open(&store, argv[1]);
    if (!code)
        code = model_open(&models[0], &backend_cuda, PRECISION_FP16, argv[3]);
    if (!code)
        code = model_open(&models[1], &backend_dnnl, PRECISION_FP32, argv[4]);
    if (!code)
        code = compare(&counts, models, store, count);
    if (code)
        fprintf(stderr, "%s: %s\n", argv[0], err_message());
    else
        printf("agree %d of %d, right %d and %d\n", counts.agree, count, counts.right[0],
               counts.right[1]);
    model_close(&models[0]);
    model_close(&models[1]);
    store_close(store);
    return err_exit_status(code);
}
