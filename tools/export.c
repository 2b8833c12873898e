/* SPDX-License-Identifier: Apache-2.0 */
/* satchel-export: weights for other programs. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/file.h"
#include "common/log.h"
#include "common/opt.h"
#include "tools/export_onnx.h"
#include "trainer/model_file.h"

enum { FLOAT_DIGITS = 9 }; /* enough to give the same float32 back */

struct values {
    const char *onnx, *timm;
    bool ema;
};

static const struct opt options[] = {
    {"onnx", OPT_STRING, offsetof(struct values, onnx), .value_name = "FILE.onnx",
     .help = "write an ONNX model (opset 13): normalised pixels in, logits out"},
    {"timm", OPT_STRING, offsetof(struct values, timm), .value_name = "FILE.safetensors",
     .help = "write the weights in timm's and torchvision's names"},
    {"ema", OPT_FLAG, offsetof(struct values, ema),
     .help = "the moving average of the weights, where the run kept one"},
};

/* One call of the program. */
struct export
{
    struct values values;
    struct recipe recipe;
    struct opt_program program;
    struct model_file file;
    struct spec spec; /* of the evaluation: what images must be like */
    struct net *net;
    float **tensors; /* [tensor_count] */
    char *recipe_text;
};

static int read_tensors(struct export *export)
{
    const struct net *net = export->net;
    const char *prefix = export->values.ema ? "ema." : "";
    export->tensors = calloc((size_t)net->tensor_count, sizeof *export->tensors);
    int code = export->tensors ? 0 : ERR_NOMEM;
    for (int i = 0; i < net->tensor_count && !code; i++) {
        export->tensors[i] = malloc(net->tensors[i].count * sizeof **export->tensors);
        code = export->tensors[i] ? weights_read(export->tensors[i], net, i, export->file.file,
                                                 export->file.path, prefix)
                                  : ERR_NOMEM;
    }
    return code == ERR_NOMEM ? err_set(code, "out of memory for %s", net->model) : code;
}

static int open_file(struct export *export)
{
    const char *model = opt_was_given(&export->program, "model") ? export->recipe.model : NULL;
    int code = model_file_open(&export->file, export->program.positional[0], model);
    if (code)
        return code;
    model_file_settle(&export->recipe, &export->program, &export->file);
    code = recipe_eval_spec(&export->spec, &export->recipe, (unsigned)export->file.channels);
    if (!code)
        code = net_open(&export->net, export->file.model, export->spec.size_px,
                        export->file.channels, export->file.classes);
    return code ? code : read_tensors(export);
}

/* The resolved recipe: for --timm files read back by these programs. */
static int write_recipe_text(struct export *export)
{
    struct opt_section section = recipe_section(&export->recipe);
    size_t bytes;
    export->recipe.model = export->file.model;
    FILE *stream = open_memstream(&export->recipe_text, &bytes);
    int code = stream ? opt_write_ini(stream, &section, false) : ERR_NOMEM;
    if (stream && fclose(stream) != 0)
        code = ERR_NOMEM;
    return code ? err_set(ERR_NOMEM, "out of memory for the recipe") : 0;
}

/* --- timm ---------------------------------------------------------------------------------------
 */

static int check_timm(const struct export *export)
{
    const char *model = export->net->model;
    size_t length = strlen(model);
    if (strchr("a", model[strcspn(model, "abcd")]) && model[strcspn(model, "abcd")])
        return err_set(ERR_UNSUPPORTED,
                       "%s has its stride in the first 1x1 convolution of a stage; timm and "
                       "torchvision have no such network, and these weights would be wrong in "
                       "theirs: export --onnx, or train variant b, c or d",
                       model);
    if (strchr(model, '-') || length > strlen("resnet152d") ||
        net_tensor(export->net, "layer4.0.conv1.weight") < 0)
        log_warn("timm has no network like %s; its tensors have timm's names all the same", model);
    return 0;
}

static bool begins_bn(const struct tensor *tensor)
{
    return tensor->kind == TENSOR_GAMMA;
}

/* Scalars first: int64 wants to lie on multiples of 8 bytes. */
static size_t collect_entries(struct safetensors_entry *dst, const struct net *net)
{
    static const char weight[] = "weight";
    size_t count = 0;
    for (int i = 0; i < net->tensor_count; i++) {
        if (!begins_bn(&net->tensors[i]))
            continue;
        struct safetensors_entry *entry = &dst[count++];
        int stem = (int)(strlen(net->tensors[i].name) - strlen(weight));
        snprintf(entry->name, sizeof entry->name, "%.*snum_batches_tracked", stem,
                 net->tensors[i].name);
        entry->integers = true;
    }
    for (int i = 0; i < net->tensor_count; i++) {
        const struct tensor *tensor = &net->tensors[i];
        struct safetensors_entry *entry = &dst[count++];
        snprintf(entry->name, sizeof entry->name, "%s", tensor->name);
        entry->rank = tensor->rank;
        for (int d = 0; d < tensor->rank; d++)
            entry->shape[d] = (uint64_t)tensor->shape[d];
    }
    return count;
}

static int write_entries(struct safetensors_writer *writer, const struct export *export)
{
    const char *text = safetensors_metadata(export->file.file, "step");
    int64_t steps = text ? strtoll(text, NULL, 10) : 0; /* the statistics moved once a step */
    int code = 0;
    for (int i = 0; i < export->net->tensor_count && !code; i++)
        if (begins_bn(&export->net->tensors[i]))
            code = safetensors_write_next(writer, &steps);
    for (int i = 0; i < export->net->tensor_count && !code; i++)
        code = safetensors_write_next(writer, export->tensors[i]);
    return code;
}

static int export_timm(struct export *export)
{
    char classes[16], channels[16], size[16];
    snprintf(classes, sizeof classes, "%d", export->net->classes);
    snprintf(channels, sizeof channels, "%d", export->net->channels);
    snprintf(size, sizeof size, "%d", export->net->size_px);
    const struct safetensors_pair pairs[] = {
        {"format", "pt"},     {"model", export->net->model},
        {"classes", classes}, {"channels", channels},
        {"size", size},       {"recipe", export->recipe_text},
    };
    struct safetensors_writer *writer;
    int code = check_timm(export);
    if (code)
        return code;
    struct safetensors_entry *entries =
        calloc(2 * (size_t) export->net->tensor_count, sizeof *entries);
    if (!entries)
        return err_set(ERR_NOMEM, "out of memory for '%s'", export->values.timm);
    code = safetensors_write_open(&writer, export->values.timm, entries,
                                  collect_entries(entries, export->net), pairs, ARRAY_COUNT(pairs));
    free(entries);
    if (code)
        return code;
    code = write_entries(writer, export);
    if (!code)
        return safetensors_write_commit(writer);
    safetensors_write_discard(writer);
    return code;
}

/* --- ONNX ---------------------------------------------------------------------------------------
 */

static void reals_text(char dst[64], const float values[3], unsigned count, int digits)
{
    int used = 0;
    for (unsigned i = 0; i < count; i++)
        used += snprintf(dst + used, 64 - (size_t)used, "%s%.*g", i ? "," : "", digits,
                         (double)values[i]);
}

static int export_model(const struct export *export)
{
    char mean[64], std[64], short_side[16];
    reals_text(mean, export->spec.mean, export->spec.channels, FLOAT_DIGITS);
    reals_text(std, export->spec.std, export->spec.channels, FLOAT_DIGITS);
    snprintf(short_side, sizeof short_side, "%u", export->spec.resize_short_px);
    const struct onnx_property properties[] = {
        {"model", export->net->model},
        {"mean", mean}, /* of pixels 0..255, subtracted ... */
        {"std", std},   /* ... and divided by */
        {"resize_short", short_side},
        {"interpolation", export->recipe.interpolation},
    };
    return export_onnx(export->values.onnx, export->net, export->tensors, properties,
                       ARRAY_COUNT(properties));
}

/* --- the program --------------------------------------------------------------------------------
 */

static int run(struct export *export)
{
    char mean[64], std[64];
    if (!export->values.onnx && !export->values.timm)
        return err_set(ERR_ARG, "nothing to write: give --onnx FILE or --timm FILE");
    const char *timm = export->values.timm, *onnx = export->values.onnx;
    if (timm && onnx && strcmp(timm, onnx) == 0)
        return err_set(ERR_ARG, "--timm and --onnx write two files: give them two names");
    int code = file_check_output(timm, export->program.positional[0], "the checkpoint");
    if (!code)
        code = file_check_output(onnx, export->program.positional[0], "the checkpoint");
    if (!code)
        code = open_file(export);
    if (!code)
        code = write_recipe_text(export);
    if (!code && export->values.timm)
        code = export_timm(export);
    if (!code && export->values.onnx)
        code = export_model(export);
    if (code)
        return code;
    reals_text(mean, export->spec.mean, export->spec.channels, 6);
    reals_text(std, export->spec.std, export->spec.channels, 6);
    log_info("%s, %d classes, for images of %d px, normalised with mean %s and std %s",
             export->net->model, export->net->classes, export->net->size_px, mean, std);
    if (export->values.timm)
        printf("%s\n", export->values.timm);
    if (export->values.onnx)
        printf("%s\n", export->values.onnx);
    return 0;
}

static void close_all(struct export *export)
{
    for (int i = 0; export->tensors && i < export->net->tensor_count; i++)
        free(export->tensors[i]);
    free(export->tensors);
    net_close(export->net);
    free(export->recipe_text);
    model_file_close(&export->file);
}

int main(int argc, char **argv)
{
    static struct export export;
    struct opt_section sections[] = {
        {"Export", options, ARRAY_COUNT(options), &export.values, false},
        recipe_section(&export.recipe)};
    export.program = (struct opt_program){
        .name = "satchel-export",
        .usage = "CKPT.safetensors {--onnx FILE.onnx|--timm FILE.safetensors} [OPTIONS]",
        .summary = "Writes a checkpoint's network for other programs.",
        .sections = sections,
        .section_count = ARRAY_COUNT(sections),
        .min_positional = 1,
        .max_positional = 1,
        .find_recipe = recipe_find,
        .foreign_keys = recipe_foreign_keys(),
    };
    log_open(export.program.name);
    int code = opt_parse(&export.program, argc, argv);
    if (!code && !export.program.finished)
        code = run(&export);
    int status = opt_end(&export.program, code); /* first: closing may fail as well */
    close_all(&export);
    return status;
}
