/* SPDX-License-Identifier: Apache-2.0 */
/* The specs of the streams that a recipe asks for; canonical: what has no meaning is zero. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "proto/recipe_private.h"

static bool is(const char *text, const char *name)
{
    return strcmp(text, name) == 0;
}

static int read_crop(const struct recipe *recipe, enum spec_crop *crop, uint16_t *pad_px)
{
    *pad_px = 0;
    *crop = is(recipe->crop, "rrc") ? SPEC_CROP_RRC : SPEC_CROP_NONE;
    if (is(recipe->crop, "rrc") || is(recipe->crop, "none"))
        return 0;
    char *end = NULL;
    bool pad = strncmp(recipe->crop, "pad:", 4) == 0;
    long number = pad ? strtol(recipe->crop + 4, &end, 10) : 0;
    if (!pad || *end != '\0' || number < 1 || number > recipe->size)
        return err_set(ERR_ARG, "crop '%s' is not rrc, none or pad:PX with PX from 1 to size",
                       recipe->crop);
    *crop = SPEC_CROP_PAD;
    *pad_px = (uint16_t)number;
    return 0;
}

int recipe_check_crop(const struct recipe *recipe)
{
    enum spec_crop crop;
    uint16_t pad_px;
    return read_crop(recipe, &crop, &pad_px);
}

/* R of the validation transform: GluonCV's and torchvision's 256 for 224, in proportion. */
static uint16_t resize_short_px(const struct recipe *recipe, int64_t size)
{
    if (recipe->resize_short)
        return (uint16_t)recipe->resize_short;
    return (uint16_t)((256 * size + 112) / 224);
}

/* name: of the option that size comes from. */
static int check_resize_short(const struct recipe *recipe, int64_t size, const char *name)
{
    if (recipe->resize_short == 0 || recipe->resize_short >= size)
        return 0;
    return err_set(ERR_ARG, "resize-short %" PRId64 " is less than %s %" PRId64,
                   recipe->resize_short, name, size);
}

/* One number stands for all channels; one channel takes the average of three. */
static void set_channels(float dst[3], const struct opt_reals *src, unsigned channels)
{
    double sum = 0;
    for (int i = 0; i < src->count; i++)
        sum += src->values[i];
    for (unsigned i = 0; i < channels; i++)
        dst[i] = (float)(channels == 1 || src->count == 1 ? sum / src->count : src->values[i]);
}

/* What both streams have. */
static void set_common(struct spec *spec, const struct recipe *recipe, unsigned channels,
                       const char *store, int64_t size)
{
    enum spec_wire wire = is(recipe->wire, "uint8") ? SPEC_WIRE_UINT8 : SPEC_WIRE_FP16;
    *spec = (struct spec){
        .channels = (uint8_t)channels,
        .interpolation = is(recipe->interpolation, "bicubic") ? SPEC_BICUBIC : SPEC_BILINEAR,
        .wire = (uint8_t)wire,
        .size_px = (uint16_t)size,
        .chunk_size = (uint32_t)recipe->chunk_size,
    };
    strcpy(spec->store, store);
    if (spec->chunk_size == 0)
        spec->chunk_size =
            spec_default_chunk_size((uint64_t)recipe->micro_batch, (unsigned)size, channels, wire);
    set_channels(spec->mean, &recipe->mean, channels);
    set_channels(spec->std, &recipe->std, channels);
}

static void set_crop(struct spec *spec, const struct recipe *recipe, enum spec_crop crop)
{
    spec->crop = (uint8_t)crop;
    if (crop == SPEC_CROP_NONE) {
        spec->resize_short_px = resize_short_px(recipe, recipe->size);
    } else if (crop == SPEC_CROP_PAD) {
        spec->resize_short_px = spec->size_px;
    } else {
        spec->aspect = is(recipe->aspect_draw, "log") ? SPEC_ASPECT_LOG : SPEC_ASPECT_UNIFORM;
        spec->area_min = (float)recipe->area_min;
        spec->area_max = (float)recipe->area_max;
        spec->aspect_min = (float)recipe->aspect_min;
        spec->aspect_max = (float)recipe->aspect_max;
    }
}

static void set_colour(struct spec *spec, const struct recipe *recipe)
{
    const struct opt_reals *strength = &recipe->jitter_strength;
    bool any = false;
    for (int i = 0; i < 3; i++) {
        double value = strength->values[strength->count == 1 ? 0 : i];
        spec->jitter_strength[i] = (float)value;
        any |= value > 0;
    }
    if (!any || is(recipe->jitter, "none"))
        memset(spec->jitter_strength, 0, sizeof spec->jitter_strength);
    else
        spec->jitter = is(recipe->jitter, "bcs") ? SPEC_JITTER_BCS : SPEC_JITTER_HSV;
    spec->pca_sigma = (float)recipe->pca_sigma;
}

static void set_mixup(struct spec *spec, const struct recipe *recipe)
{
    int64_t off_epoch = recipe->epochs - recipe->mixup_off_last_epochs;
    if (recipe->mixup_alpha <= 0 || off_epoch <= 0)
        return;
    spec->mixup_alpha = (float)recipe->mixup_alpha;
    spec->mixup_off_epoch = recipe->mixup_off_last_epochs > 0 ? (uint32_t)off_epoch : UINT32_MAX;
    if (is(recipe->mixup_lam, "batch")) {
        spec->mixup_lam = SPEC_LAM_BATCH;
        spec->chunks_per_batch = (uint32_t)(recipe->total_batch / spec->chunk_size);
    }
}

int recipe_train_spec(struct spec *spec, const struct recipe *recipe, unsigned channels)
{
    enum spec_crop crop;
    uint16_t pad_px;
    int code = read_crop(recipe, &crop, &pad_px);
    if (code)
        return code;
    set_common(spec, recipe, channels, "train", recipe->size);
    spec->order = SPEC_ORDER_SHUFFLED;
    spec->seed = recipe->seed;
    if (is(recipe->augment, "none")) {
        crop = SPEC_CROP_NONE;
        pad_px = 0;
    } else {
        spec->flip = 1;
    }
    if (crop == SPEC_CROP_NONE && (code = check_resize_short(recipe, recipe->size, "size")))
        return code;
    set_crop(spec, recipe, crop);
    spec->pad_px = pad_px;
    if (is(recipe->augment, "full") && channels == 3)
        set_colour(spec, recipe);
    set_mixup(spec, recipe);
    return spec_check(spec);
}

int recipe_eval_spec(struct spec *spec, const struct recipe *recipe, unsigned channels)
{
    int64_t size = recipe->eval_size ? recipe->eval_size : recipe->size;
    int code = check_resize_short(recipe, size, recipe->eval_size ? "eval-size" : "size");
    if (code)
        return code;
    set_common(spec, recipe, channels, "val", size);
    spec->order = SPEC_ORDER_IDENTITY;
    spec->damaged_masked = 1;
    spec->crop = SPEC_CROP_NONE;
    spec->resize_short_px = resize_short_px(recipe, size);
    /* What suits the training's images may be more than a message may have of larger ones. */
    while (size > recipe->size && spec->chunk_size > 1 &&
           spec_sample_bytes(spec) * spec->chunk_size > SPEC_MAX_CHUNK_BYTES)
        spec->chunk_size = spec->chunk_size % 2 ? 1 : spec->chunk_size / 2;
    return spec_check(spec);
}
