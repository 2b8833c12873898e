/* SPDX-License-Identifier: Apache-2.0 */
/* The recipe's table of options, and what no single option can check. */
#include "proto/recipe.h"

#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "proto/recipe_private.h"

#define FIELD(name) offsetof(struct recipe, name)

static const struct opt options[] = {
    {"model", OPT_STRING, FIELD(model), .fallback = "resnet50a", .value_name = "NAME",
     .help =
         "the network: resnet{10,18,34,50,101,152}{a,b,c,d}, with -small behind it of a 3x3 stem; "
         "for small images resnet{8,14,20,26,32,44,56}{b,d}; without a letter b; with -wN at "
         "the end of width N"},
    {"total-batch", OPT_INT, FIELD(total_batch), .fallback = "256", .min = 1, .max = 1 << 24,
     .help = "images a step, over all ranks"},
    {"micro-batch", OPT_INT, FIELD(micro_batch), .fallback = "32", .min = 1, .max = 1 << 20,
     .help = "images over which batch normalisation takes its statistics"},
    {"chunk-size", OPT_INT, FIELD(chunk_size), .fallback = "0", .min = 0,
     .max = SPEC_MAX_CHUNK_SIZE,
     .help = "images a message; divides the micro-batch; 0: a power of two that suits the image "
             "size"},
    {"epochs", OPT_INT, FIELD(epochs), .fallback = "120", .min = 1, .max = 1000000,
     .help = "passes over the training data; the schedule follows them"},
    {"lr", OPT_REAL, FIELD(lr), .fallback = "0", .min = 0, .max = 1e6,
     .help = "learning rate after the warm-up; 0: base-lr * total-batch / 256"},
    {"base-lr", OPT_REAL, FIELD(base_lr), .fallback = "0.1", .min = 0, .max = 1e6,
     .help = "learning rate for 256 images a step"},
    {"schedule", OPT_CHOICE, FIELD(schedule), .fallback = "step", .choices = "step|cosine",
     .help = "step: a tenth at 1/4, 1/2 and 3/4 of the epochs; cosine: to 0 at the end"},
    {"warmup-epochs", OPT_INT, FIELD(warmup_epochs), .fallback = "0", .min = 0, .max = 1000000,
     .help = "epochs in which the learning rate rises linearly from 0"},
    {"momentum", OPT_REAL, FIELD(momentum), .fallback = "0.9", .min = 0, .max = 1,
     .help = "Nesterov momentum"},
    {"weight-decay", OPT_REAL, FIELD(weight_decay), .fallback = "1e-4", .min = 0, .max = 1e3,
     .help = "L2 regularisation, part of the gradient"},
    {"no-bias-decay", OPT_FLAG, FIELD(no_bias_decay),
     .help = "weight decay on the weights of convolutions and the last layer only"},
    {"zero-gamma", OPT_FLAG, FIELD(zero_gamma),
     .help = "start the last normalisation of each residual block at 0"},
    {"init-scheme", OPT_CHOICE, FIELD(init_scheme), .fallback = "xavier", .choices = "xavier|msra",
     .help = "initial weights: xavier is uniform, msra is normal by the fan-out"},
    {"precision", OPT_CHOICE, FIELD(precision), .fallback = "fp32", .choices = "fp32|bf16|fp16",
     .help = "of activations and gradients; master weights are fp32 always"},
    {"loss-scale", OPT_STRING, FIELD(loss_scale), .fallback = "dynamic", .value_name = "dynamic|X",
     .help = "factor of the loss with fp16"},
    {"label-smoothing", OPT_REAL, FIELD(label_smoothing), .fallback = "0", .min = 0, .max = 1,
     .help = "probability taken from the true class; 0: off"},
    {"smoothing-off-value", OPT_CHOICE, FIELD(smoothing_off_value), .fallback = "k-1",
     .choices = "k-1|k",
     .help = "the others get smoothing / (K - 1), or smoothing / K with the true class among them"},
    {"kd-temperature", OPT_REAL, FIELD(kd_temperature), .fallback = "20", .min = 1e-3, .max = 1e6,
     .help = "temperature of the distillation"},
    {"kd-hard-weight", OPT_REAL, FIELD(kd_hard_weight), .fallback = "1", .min = 0, .max = 1e6,
     .help = "weight of the true label's loss beside the teacher's"},
    {"kd-soft-weight", OPT_REAL, FIELD(kd_soft_weight), .fallback = "1", .min = 0, .max = 1e6,
     .help = "weight of the teacher's loss, times the temperature squared; GluonCV: 0.5 and 0.5"},
    {"teacher", OPT_STRING, FIELD(teacher), .value_name = "FILE",
     .help = "weights of a network to distil from"},
    {"teacher-model", OPT_STRING, FIELD(teacher_model), .value_name = "NAME",
     .help = "the teacher's network; without it, what its file says"},
    {"init", OPT_STRING, FIELD(init), .value_name = "FILE",
     .help = "weights to start from; the last layer is new when the classes differ"},
    {"freeze", OPT_STRING, FIELD(freeze), .value_name = "none|stem|N|all",
     .help = "what keeps the weights of --init: the stem, the stem and N stages, or all but the "
             "last layer"},
    {"head-lr", OPT_REAL, FIELD(head_lr), .fallback = "0", .min = 0, .max = 1e6,
     .help = "learning rate of the last layer after the warm-up; 0: as the others"},
    {"ema-decay", OPT_REAL, FIELD(ema_decay), .fallback = "0", .min = 0, .max = 1,
     .help = "keep an exponential moving average of the weights and judge it too; 0: off"},
    {"seed", OPT_UINT64, FIELD(seed), .fallback = "0",
     .help = "of everything random: order, augmentation, initial weights"},
    {"size", OPT_INT, FIELD(size), .fallback = "224", .min = 1, .max = SPEC_MAX_SIZE_PX,
     .value_name = "PX", .help = "side of the training images"},
    {"eval-size", OPT_INT, FIELD(eval_size), .fallback = "0", .min = 0, .max = SPEC_MAX_SIZE_PX,
     .value_name = "PX", .help = "side of the validation images; 0: size"},
    {"resize-short", OPT_INT, FIELD(resize_short), .fallback = "0", .min = 0,
     .max = 4 * SPEC_MAX_SIZE_PX, .value_name = "PX",
     .help = "short side before the centre crop of validation; 0: round(256 size / 224)"},
    {"augment", OPT_CHOICE, FIELD(augment), .fallback = "full", .choices = "full|crop|none",
     .help = "full: crop, flip, jitter and pca; crop: crop and flip; none: the validation "
             "transform in the training order; mixup goes by its alpha in all three"},
    {"crop", OPT_STRING, FIELD(crop), .fallback = "rrc", .value_name = "rrc|pad:PX|none",
     .help = "rrc: random area and aspect; pad: a random window after zeros on each side; none: "
             "the centre"},
    {"area-min", OPT_REAL, FIELD(area_min), .fallback = "0.08", .min = 1e-4, .max = 1,
     .help = "least share of the image's area in a crop"},
    {"area-max", OPT_REAL, FIELD(area_max), .fallback = "1", .min = 1e-4, .max = 1,
     .help = "largest share"},
    {"aspect-min", OPT_REAL, FIELD(aspect_min), .fallback = "0.75", .min = 0.01, .max = 100,
     .help = "least width / height of a crop"},
    {"aspect-max", OPT_REAL, FIELD(aspect_max), .fallback = "1.3333333333333333", .min = 0.01,
     .max = 100, .help = "largest width / height"},
    {"aspect-draw", OPT_CHOICE, FIELD(aspect_draw), .fallback = "uniform", .choices = "uniform|log",
     .help = "distribution of the aspect, or of its logarithm"},
    {"interpolation", OPT_CHOICE, FIELD(interpolation), .fallback = "bilinear",
     .choices = "bilinear|bicubic", .help = "filter of the resize, antialiased"},
    {"jitter", OPT_CHOICE, FIELD(jitter), .fallback = "hsv", .choices = "hsv|bcs|none",
     .help = "colour jitter: hue, saturation, value; or brightness, contrast, saturation"},
    {"jitter-strength", OPT_REALS, FIELD(jitter_strength), .fallback = "0.4,0.4,0.4", .min = 0,
     .max = 1, .value_name = "X,X,X",
     .help = "each factor is uniform in 1 - x to 1 + x; one number means all three"},
    {"pca-sigma", OPT_REAL, FIELD(pca_sigma), .fallback = "0.1", .min = 0, .max = 10,
     .help = "standard deviation of the noise along the colours' principal axes; 0: off"},
    {"mean", OPT_REALS, FIELD(mean), .fallback = "123.68,116.779,103.939", .min = 0, .max = 255,
     .value_name = "R,G,B",
     .help = "subtracted from pixels of 0 to 255; one number means all; a store of one channel "
             "takes the average of three"},
    {"std", OPT_REALS, FIELD(std), .fallback = "58.393,57.12,57.375", .min = 0.01, .max = 1e4,
     .value_name = "R,G,B", .help = "divides them after that; counts as with mean"},
    {"mixup-alpha", OPT_REAL, FIELD(mixup_alpha), .fallback = "0", .min = 0, .max = 1000,
     .help = "images mix in pairs by Beta(alpha, alpha); 0: off"},
    {"mixup-lam", OPT_CHOICE, FIELD(mixup_lam), .fallback = "pair", .choices = "pair|batch",
     .help = "what shares one draw of the mixing weight"},
    {"mixup-off-last-epochs", OPT_INT, FIELD(mixup_off_last_epochs), .fallback = "0", .min = 0,
     .max = 1000000, .help = "epochs at the end without mixup"},
    {"wire", OPT_CHOICE, FIELD(wire), .fallback = "fp16", .choices = "fp16|uint8",
     .help = "pixels on the wire: normalised half floats, or bytes that the trainer normalises"},
};

struct opt_section recipe_section(struct recipe *values)
{
    return (struct opt_section){
        .title = "Recipe",
        .options = options,
        .count = ARRAY_COUNT(options),
        .values = values,
        .in_recipe = true,
    };
}

/* By program; a name that several have stands once. */
static const char *const foreign_keys[] = {
    /* pack */
    "source", "out", "split", "labels", "class-names", "encoding", "index", "quality",
    "resize-long", "classes-of", "jobs", "resume", "verify", "skip-bad",
    /* loader */
    "data", "bind", "workers", "io-threads", "credits", "buffer-mib", "secret-key", "allow",
    "insecure", "metrics-file", "ready-file", "decoder", "strict", "read-ahead", "page-cache-mib",
    "shared-memory",
    /* trainer */
    "loaders", "device", "backend", "threads", "max-steps", "audit", "stall-limit", "server-keys",
    "save-every", "check-ranks", "cuda-graph", "eval-only", "keep", "allow-change", "fusion",
    "autotune",
    /* inspect, preview, predict, export */
    "check", "extract", "replay", "epoch", "chunk", "ema", "isolate", "top", "logits", "csv",
    "onnx", "timm", "tta",
    /* report */
    "title",
    /* bench-decode, bench-loader, bench-feed, bench-step */
    "seconds", "batch", "prefetch-mib", "rounds", "only", "channels", "steps", "warmup", "profile",
    "classes", "infer",
    /* all */
    "json", "verbose", NULL};

const char *const *recipe_foreign_keys(void)
{
    return foreign_keys;
}

double recipe_lr(const struct recipe *recipe)
{
    return recipe->lr > 0 ? recipe->lr : recipe->base_lr * (double)recipe->total_batch / 256;
}

static int check_batch(const struct recipe *recipe, int64_t ranks)
{
    if (ranks < 1 || recipe->total_batch % recipe->micro_batch != 0 ||
        recipe->total_batch / recipe->micro_batch % ranks != 0)
        return err_set(ERR_ARG,
                       "total-batch %lld is not divisible by %lld rank%s of micro-batch %lld",
                       (long long)recipe->total_batch, (long long)ranks, ranks == 1 ? "" : "s",
                       (long long)recipe->micro_batch);
    if (recipe->chunk_size && recipe->micro_batch % recipe->chunk_size != 0)
        return err_set(ERR_ARG, "micro-batch %lld is not divisible by chunk-size %lld",
                       (long long)recipe->micro_batch, (long long)recipe->chunk_size);
    bool odd = (recipe->chunk_size ? recipe->chunk_size : recipe->micro_batch) % 2 != 0;
    if (recipe->mixup_alpha > 0 && odd)
        return err_set(ERR_ARG, "mixup mixes pairs within a chunk: %s %lld must be even",
                       recipe->chunk_size ? "chunk-size" : "micro-batch",
                       (long long)(recipe->chunk_size ? recipe->chunk_size : recipe->micro_batch));
    return 0;
}

static int check_schedule(const struct recipe *recipe)
{
    if (recipe->warmup_epochs > recipe->epochs)
        return err_set(ERR_ARG, "warmup-epochs %lld is more than epochs %lld",
                       (long long)recipe->warmup_epochs, (long long)recipe->epochs);
    if (recipe->mixup_off_last_epochs > recipe->epochs)
        return err_set(ERR_ARG, "mixup-off-last-epochs %lld is more than epochs %lld",
                       (long long)recipe->mixup_off_last_epochs, (long long)recipe->epochs);
    if (strcmp(recipe->loss_scale, "dynamic") != 0) {
        char *end;
        double scale = strtod(recipe->loss_scale, &end);
        if (end == recipe->loss_scale || *end != '\0' || !(scale > 0 && scale <= 0x1p100))
            return err_set(ERR_ARG, "loss-scale '%s' is neither dynamic nor a positive number",
                           recipe->loss_scale);
    }
    if (!(recipe->label_smoothing < 1))
        return err_set(ERR_ARG, "label-smoothing must be less than 1");
    if (!(recipe->ema_decay < 1))
        return err_set(ERR_ARG, "ema-decay must be less than 1");
    if (!(recipe->momentum < 1))
        return err_set(ERR_ARG, "momentum must be less than 1");
    if (recipe->teacher_model && !recipe->teacher)
        return err_set(ERR_ARG, "teacher-model needs teacher, the file of its weights");
    return 0;
}

static int check_counts(const struct recipe *recipe)
{
    const struct {
        const char *name;
        int count;
    } lists[] = {{"jitter-strength", recipe->jitter_strength.count},
                 {"mean", recipe->mean.count},
                 {"std", recipe->std.count}};
    for (size_t i = 0; i < ARRAY_COUNT(lists); i++) {
        if (lists[i].count != 1 && lists[i].count != 3)
            return err_set(ERR_ARG, "%s needs 1 or 3 numbers, not %d", lists[i].name,
                           lists[i].count);
    }
    if (recipe->area_min > recipe->area_max)
        return err_set(ERR_ARG, "area-min %g is more than area-max %g", recipe->area_min,
                       recipe->area_max);
    if (recipe->aspect_min > recipe->aspect_max)
        return err_set(ERR_ARG, "aspect-min %g is more than aspect-max %g", recipe->aspect_min,
                       recipe->aspect_max);
    return recipe_check_crop(recipe);
}

int recipe_freeze(int *stages, const struct recipe *recipe)
{
    enum { ALL = 99 }; /* more than any network has */
    const char *text = recipe->freeze ? recipe->freeze : "none";
    char *end;
    long number = strtol(text, &end, 10);
    *stages = -1;
    if (*text == '\0' || strcmp(text, "none") == 0 || strcmp(text, "0") == 0)
        return 0;
    if (strcmp(text, "stem") == 0)
        *stages = 0;
    else if (strcmp(text, "all") == 0)
        *stages = ALL;
    else if (end != text && *end == '\0' && number >= 1 && number <= 4)
        *stages = (int)number;
    else
        return err_set(ERR_ARG, "freeze '%s' is not none, stem, all or a number of stages up to 4",
                       text);
    if (!recipe->init)
        return err_set(ERR_ARG, "freeze needs init, the file of the weights that are kept");
    return 0;
}

int recipe_check(const struct recipe *recipe, int64_t ranks)
{
    struct spec spec;
    int stages;
    int code = check_batch(recipe, ranks);
    code = code ? code : check_schedule(recipe);
    code = code ? code : check_counts(recipe);
    code = code ? code : recipe_freeze(&stages, recipe);
    code = code ? code : recipe_train_spec(&spec, recipe, 3);
    return code ? code : recipe_eval_spec(&spec, recipe, 3);
}
