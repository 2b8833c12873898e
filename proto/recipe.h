/* SPDX-License-Identifier: Apache-2.0 */
/* The recipe: every option that shapes the stream or the training. Trainer, bench-feed, preview,
 * bench-loader and inspect --replay read the same keys, so that a run's recipe.ini says all of it.
 */
#ifndef PROTO_RECIPE_H
#define PROTO_RECIPE_H

#include "common/opt.h"
#include "proto/spec.h"

struct recipe {
    /* The network. */
    const char *model;
    /* The batch. */
    int64_t total_batch, micro_batch;
    int64_t chunk_size; /* 0: spec_default_chunk_size() */
    /* The schedule. */
    int64_t epochs;
    double lr;            /* absolute, at the end of the warm-up; 0: base_lr * total_batch / 256 */
    double base_lr;       /* per 256 images (paper section 3.1) */
    const char *schedule; /* step | cosine */
    int64_t warmup_epochs;
    /* The optimiser. */
    double momentum, weight_decay;
    bool no_bias_decay, zero_gamma;
    const char *init_scheme; /* xavier | msra */
    const char *precision;   /* fp32 | bf16 | fp16 */
    const char *loss_scale;  /* dynamic, or a number */
    /* The loss. */
    double label_smoothing;
    const char *smoothing_off_value; /* k-1 | k */
    double kd_temperature, kd_hard_weight, kd_soft_weight;
    const char *teacher, *teacher_model;
    const char *init, *freeze; /* see recipe_freeze() */
    double head_lr;            /* of the last layer, at the end of the warm-up; 0: lr */
    double ema_decay;          /* 0: off */
    /* The stream. */
    uint64_t seed;
    int64_t size;         /* S, square side in px */
    int64_t eval_size;    /* 0: size */
    int64_t resize_short; /* R of the validation transform; 0: round(256 S / 224) */
    const char *augment;  /* full | crop | none */
    const char *crop;     /* rrc | pad:N | none */
    double area_min, area_max, aspect_min, aspect_max;
    const char *aspect_draw;          /* uniform | log */
    const char *interpolation;        /* bilinear | bicubic */
    const char *jitter;               /* hsv | bcs | none */
    struct opt_reals jitter_strength; /* hue, saturation, value (or brightness, contrast,
                                         saturation): factors U(1-x, 1+x) */
    double pca_sigma;
    struct opt_reals mean, std; /* 0..255 scale; 1 or 3 values */
    double mixup_alpha;         /* 0: off */
    const char *mixup_lam;      /* pair | batch */
    int64_t mixup_off_last_epochs;
    const char *wire; /* fp16 | uint8 */
};

/* The recipe's section over values; give it to opt_parse. */
struct opt_section recipe_section(struct recipe *values);

/* Keys of all programs that are not the recipe's (loaders, device, out, data, ...): what a recipe
 * file may hold and a program may ignore. NULL-terminated. */
const char *const *recipe_foreign_keys(void);

/* Finds a shipped recipe by name (satchel's recipes directory: $SATCHEL_RECIPES, the build tree's
 * recipes/, the installed share/satchel/recipes) or takes the path as it is. Allocates *path.
 * ERR_ARG names the shipped ones. */
int recipe_find(char **path, const char *name_or_path);

/* Checks what no single option can (batch divisible, mean's count, ...). ERR_ARG with one line. */
int recipe_check(const struct recipe *recipe, int64_t ranks);

/* The spec of the training stream, or of evaluation (split "val": identity order, validation
 * transform, no mixup; chunks are smaller where larger images would be too much for a message).
 * channels: of the store. Validates. */
int recipe_train_spec(struct spec *spec, const struct recipe *recipe, unsigned channels);
int recipe_eval_spec(struct spec *spec, const struct recipe *recipe, unsigned channels);

/* What stays frozen: -1 nothing, 0 the stem, N the stem and N stages. ERR_ARG. */
int recipe_freeze(int *stages, const struct recipe *recipe);

/* lr: recipe->lr or the scaled base_lr. */
double recipe_lr(const struct recipe *recipe);

#endif
