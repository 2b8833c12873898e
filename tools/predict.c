/* SPDX-License-Identifier: Apache-2.0 */
/* satchel-predict: what a trained network says of images. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/file.h"
#include "common/log.h"
#include "common/opt.h"
#include "common/progress.h"
#include "common/stop.h"
#include "datasets/fault.h"
#include "datasets/pack.h"
#include "tools/npy.h"
#include "tools/predict_input.h"
#include "trainer/model_file.h"
#include "trainer/openmp.h"

enum { TOP_MAX = 100, BATCH_MAX = 32, NAME_BYTES = 512 };

struct values {
    const char *data, *logits, *csv, *class_names, *classes_of, *tta, *device, *backend;
    int64_t top, threads;
};

static const struct opt options[] = {
    {"data", OPT_STRING, offsetof(struct values, data), .value_name = "FILE.lmdb",
     .help = "a store to look at instead of image files; its labels are judged too"},
    {"top", OPT_INT, offsetof(struct values, top), .fallback = "5", .min = 1, .max = TOP_MAX,
     .value_name = "N", .help = "classes to name for each image"},
    {"logits", OPT_STRING, offsetof(struct values, logits), .value_name = "FILE.npy",
     .help = "write the logits: float32 [images, classes]; NaN where an image is damaged"},
    {"csv", OPT_STRING, offsetof(struct values, csv), .value_name = "FILE.csv",
     .help = "write a table: image, label, then class and probability of each of the top"},
    {"class-names", OPT_STRING, offsetof(struct values, class_names), .value_name = "FILE",
     .help = "a name a line, in the order of the classes; without it those of --data's store"},
    {"classes-of", OPT_STRING, offsetof(struct values, classes_of), .value_name = "STORE.lmdb",
     .help = "take the names of the classes from this store (train's)"},
    {"tta", OPT_CHOICE, offsetof(struct values, tta), .fallback = "none", .choices = "none|flip",
     .help = "test-time augmentation; flip: the mean of the logits of each image and of its mirror "
             "image, in twice the time"},
    {"device", OPT_CHOICE, offsetof(struct values, device), .fallback = "auto",
     .choices = "auto|cpu|cuda", .help = "where the network runs"},
    {"backend", OPT_CHOICE, offsetof(struct values, backend), .fallback = "auto",
     .choices = "auto|ref|dnnl|cuda",
     .help = "what runs it; auto takes the fastest that works here"},
    {"threads", OPT_INT, offsetof(struct values, threads), .fallback = "0", .max = 1024,
     .value_name = "N", .help = "threads of a CPU backend; 0: all that the process may use"},
};

/* One call of the program. */
struct predict {
    struct values values;
    struct recipe recipe;
    struct opt_program program;
    struct model_file file;
    struct spec spec;
    struct predict_input *input;
    const struct backend_ops *ops;
    struct backend *backend;
    struct net *net;
    struct state *state;
    struct program *compiled;
    uint16_t *pixels;
    struct chunk_label *labels;
    float *logits, *flipped; /* [batch][classes]; flipped: of the mirror images, NULL without */
    char **names;            /* of --class-names */
    size_t name_count;
    struct store *named; /* of --classes-of */
    struct npy *npy;
    struct file_atomic *csv;
    uint64_t judged, right1, right5, damaged;
};

static const char *class_text(char dst[NAME_BYTES], const struct predict *predict, uint32_t label)
{
    const struct store *store =
        predict->named ? predict->named : predict_input_store(predict->input);
    const char *name = label < predict->name_count ? predict->names[label]
                       : store                     ? store_class_name(store_meta(store), label)
                                                   : NULL;
    if (name)
        snprintf(dst, NAME_BYTES, "%s", name);
    else
        snprintf(dst, NAME_BYTES, "class %u", label);
    return dst;
}

/* --- one image's words --------------------------------------------------------------------------
 */

struct ranked {
    uint32_t label[TOP_MAX];
    double probability[TOP_MAX];
    int count;
};

/* The most likely first; of equal ones the lower label. */
static void rank(struct ranked *ranked, const float *logits, int classes, int top)
{
    double largest = logits[0], sum = 0;
    for (int i = 1; i < classes; i++)
        largest = fmax(largest, logits[i]);
    for (int i = 0; i < classes; i++)
        sum += exp(logits[i] - largest);
    ranked->count = 0;
    for (int i = 0; i < classes; i++) {
        int at = ranked->count;
        while (at > 0 && logits[ranked->label[at - 1]] < logits[i])
            at--;
        if (at == top)
            continue;
        ranked->count += ranked->count < top;
        for (int k = ranked->count - 1; k > at; k--)
            ranked->label[k] = ranked->label[k - 1];
        ranked->label[at] = (uint32_t)i;
    }
    for (int k = 0; k < ranked->count; k++)
        ranked->probability[k] = exp(logits[ranked->label[k]] - largest) / sum;
}

static void print_ranked(const struct predict *predict, const char *image,
                         const struct ranked *ranked)
{
    char name[NAME_BYTES], clean[4 * NAME_BYTES]; /* a terminal must not act on names */
    log_escape(clean, sizeof clean, image);
    printf("%s:", clean);
    for (int k = 0; k < ranked->count; k++) {
        log_escape(clean, sizeof clean, class_text(name, predict, ranked->label[k]));
        printf("%s %s %.2f %%", k ? "," : "", clean, 100 * ranked->probability[k]);
    }
    printf("\n");
}

static void write_quoted(FILE *stream, const char *text)
{
    if (!strpbrk(text, ",\"\n\r")) {
        fputs(text, stream);
        return;
    }
    fputc('"', stream);
    for (; *text; text++) {
        if (*text == '"')
            fputc('"', stream);
        fputc(*text, stream);
    }
    fputc('"', stream);
}

static void csv_head(const struct predict *predict)
{
    FILE *stream = file_atomic_stream(predict->csv);
    fputs("image,label", stream);
    for (int k = 1; k <= predict->values.top && k <= predict->net->classes; k++)
        fprintf(stream, ",class%d,name%d,probability%d", k, k, k);
    fputc('\n', stream);
}

/* ranked NULL: damaged. */
static void csv_row(const struct predict *predict, const char *image, uint32_t label,
                    const struct ranked *ranked)
{
    FILE *stream = file_atomic_stream(predict->csv);
    char name[NAME_BYTES];
    write_quoted(stream, image);
    fputc(',', stream);
    if (predict_input_store(predict->input) && ranked)
        fprintf(stream, "%u", label);
    for (int k = 0; ranked && k < ranked->count; k++) {
        fprintf(stream, ",%u,", ranked->label[k]);
        write_quoted(stream, class_text(name, predict, ranked->label[k]));
        fprintf(stream, ",%.9g", ranked->probability[k]);
    }
    fputc('\n', stream);
}

/* Counts the label as satchel-trainer's evaluation does. */
static void judge(struct predict *predict, uint32_t label, const float *logits)
{
    int before = 0;
    for (int i = 0; i < predict->net->classes; i++)
        before += logits[i] > logits[label] || (logits[i] == logits[label] && i < (int)label);
    predict->judged++;
    predict->right1 += before < 1;
    predict->right5 += before < 5;
}

static void tell(struct predict *predict, uint64_t index, struct chunk_label label,
                 const float *logits)
{
    char image[NAME_BYTES];
    struct ranked ranked;
    bool damaged = label.a == CHUNK_LABEL_MASKED;
    bool store = predict_input_store(predict->input);
    predict_input_name(image, predict->input, index);
    predict->damaged += damaged;
    if (!damaged) {
        rank(&ranked, logits, predict->net->classes, (int)predict->values.top);
        if (store)
            judge(predict, label.a, logits);
    }
    if (predict->csv)
        csv_row(predict, image, label.a, damaged ? NULL : &ranked);
    else if (!damaged && !store)
        print_ranked(predict, image, &ranked);
}

/* --- all images ---------------------------------------------------------------------------------
 */

/* Turns each row around. */
static void mirror_pixels(uint16_t *pixels, const struct spec *spec, uint32_t count)
{
    size_t size = spec->size_px, channels = spec->channels;
    for (size_t row = 0; row < count * size; row++, pixels += size * channels)
        for (size_t x = 0; x < size / 2; x++)
            for (size_t c = 0; c < channels; c++) {
                uint16_t *left = &pixels[x * channels + c];
                uint16_t *right = &pixels[(size - 1 - x) * channels + c];
                uint16_t value = *left;
                *left = *right;
                *right = value;
            }
}

static int run_network(struct predict *predict, float *logits, uint32_t count)
{
    const struct batch batch = {
        .pixels = predict->pixels, .labels = predict->labels, .samples = (int)count};
    int code = predict->ops->run(predict->compiled, &batch, 0, 1, NULL, NULL);
    return code ? code : predict->ops->logits(logits, predict->compiled);
}

static int add_mirrored(struct predict *predict, uint32_t count)
{
    mirror_pixels(predict->pixels, &predict->spec, count);
    int code = run_network(predict, predict->flipped, count);
    for (size_t i = 0; i < count * (size_t)predict->net->classes && !code; i++)
        predict->logits[i] = (predict->logits[i] + predict->flipped[i]) / 2;
    return code;
}

static int run_batch(struct predict *predict, uint64_t first, uint32_t count)
{
    int classes = predict->net->classes;
    int code = predict_input_read(predict->input, predict->pixels, predict->labels, first, count);
    if (!code)
        code = run_network(predict, predict->logits, count);
    if (!code && predict->flipped)
        code = add_mirrored(predict, count);
    for (uint32_t i = 0; i < count && !code; i++) {
        float *logits = predict->logits + (size_t)i * (size_t)classes;
        for (int k = 0; k < classes && predict->labels[i].a == CHUNK_LABEL_MASKED; k++)
            logits[k] = NAN;
        tell(predict, first + i, predict->labels[i], logits);
    }
    if (!code && predict->npy)
        npy_add(predict->npy, predict->logits, count);
    return code;
}

static int run_all(struct predict *predict)
{
    uint64_t count = predict_input_count(predict->input), batch = predict->spec.chunk_size;
    bool quiet = !predict->values.data && !predict->csv; /* every image has a line already */
    struct progress *progress = quiet ? NULL : progress_open("predicting", count, "images");
    int code = 0;
    for (uint64_t first = 0; first < count && !code; first += batch) {
        uint64_t left = count - first;
        code = stop_requested() ? err_set(ERR_STOPPED, "stopped at image %" PRIu64, first) : 0;
        if (!code)
            code = run_batch(predict, first, (uint32_t)(left < batch ? left : batch));
        progress_update(progress, first + (left < batch ? left : batch), NULL);
    }
    progress_close(progress);
    return code;
}

static void print_summary(const struct predict *predict)
{
    double judged = (double)predict->judged, top1 = 0, top5 = 0;
    if (predict->damaged)
        log_warn("damaged images left out: %" PRIu64, predict->damaged);
    if (predict->judged) {
        top1 = 100 * (double)predict->right1 / judged;
        top5 = 100 * (double)predict->right5 / judged;
        printf("top-1 %.2f %%, top-5 %.2f %% of %" PRIu64 " images%s\n", top1, top5,
               predict->judged, predict->flipped ? ", each with its mirror image" : "");
    }
    if (!predict->program.json_wanted)
        return;
    printf("{\"samples\":%" PRIu64 ",\"damaged\":%" PRIu64, predict_input_count(predict->input),
           predict->damaged);
    if (predict->judged)
        printf(",\"top1\":%.17g,\"top5\":%.17g", top1, top5);
    printf("%s}\n", predict->flipped ? ",\"tta\":\"flip\"" : "");
}

/* --- opening ------------------------------------------------------------------------------------
 */

static int open_file(struct predict *predict)
{
    const char *model = opt_was_given(&predict->program, "model") ? predict->recipe.model : NULL;
    int code = model_file_open(&predict->file, predict->program.positional[0], model);
    if (code)
        return code;
    model_file_settle(&predict->recipe, &predict->program, &predict->file);
    code = recipe_eval_spec(&predict->spec, &predict->recipe, (unsigned)predict->file.channels);
    if (code)
        return code;
    predict->spec.wire = SPEC_WIRE_FP16;
    size_t most = SPEC_MAX_CHUNK_BYTES / spec_sample_bytes(&predict->spec); /* of large images */
    predict->spec.chunk_size = most < BATCH_MAX ? (uint32_t)most : BATCH_MAX;
    return spec_check(&predict->spec);
}

/* store: NULL is fine. */
static int check_classes(const struct predict *predict, const struct store *store)
{
    uint32_t classes = store ? store_meta(store)->class_count : 0;
    if (classes > (uint32_t)predict->file.classes ||
        (store && store == predict->named && classes != (uint32_t)predict->file.classes))
        return err_set(ERR_ARG, "'%s' has %u classes, the network of '%s' knows %d",
                       store_path(store), classes, predict->file.path, predict->file.classes);
    return 0;
}

static int open_input(struct predict *predict)
{
    const char *const *paths = predict->program.positional + 1;
    int count = predict->program.positional_count - 1;
    if (!count == !predict->values.data)
        return err_set(ERR_ARG, "give image files or --data FILE.lmdb, one of the two");
    int code = predict_input_open(&predict->input, predict->values.data ? NULL : paths,
                                  (uint64_t)count, predict->values.data, &predict->spec);
    return code ? code : check_classes(predict, predict_input_store(predict->input));
}

static int open_network(struct predict *predict)
{
    const struct values *values = &predict->values;
    const struct backend_config config = {.threads = (int)values->threads};
    size_t batch = predict->spec.chunk_size;
    const struct program_config infer = {.mode = PROGRAM_INFER, .batch = (int)batch};
    int code =
        backend_open(&predict->backend, &predict->ops, values->device, values->backend, &config);
    if (!code)
        code = model_file_load(&predict->net, &predict->state, &predict->file, predict->ops,
                               predict->backend, predict->spec.size_px, 1);
    if (!code)
        code = predict->ops->program_open(&predict->compiled, predict->state, &infer);
    if (code)
        return code;
    log_info("%s, %d classes, images of %d px (short side %d, %s), %s", predict->net->model,
             predict->net->classes, predict->spec.size_px, predict->spec.resize_short_px,
             predict->recipe.interpolation, predict->ops->describe(predict->backend));
    predict->pixels =
        predict->ops->host_alloc(predict->backend, batch * spec_sample_bytes(&predict->spec));
    predict->labels = predict->ops->host_alloc(predict->backend, batch * sizeof *predict->labels);
    size_t logits_bytes = batch * (size_t)predict->net->classes * sizeof *predict->logits;
    bool flip = strcmp(values->tta, "flip") == 0;
    predict->logits = malloc(logits_bytes);
    predict->flipped = flip ? malloc(logits_bytes) : NULL;
    return predict->pixels && predict->labels && predict->logits && (!flip || predict->flipped)
               ? 0
               : err_set(ERR_NOMEM, "out of memory for a batch of images");
}

/* output: NULL is fine. */
static int check_output(const struct predict *predict, const char *output)
{
    const struct values *values = &predict->values;
    const struct opt_program *program = &predict->program;
    int code = file_check_output(output, program->positional[0], "the file of weights");
    for (int i = 1; i < program->positional_count && !code; i++)
        code = file_check_output(output, program->positional[i], "one of the images");
    if (!code)
        code = file_check_output(output, values->data, "the store");
    if (!code)
        code = file_check_output(output, values->classes_of, "the store of --classes-of");
    return code ? code : file_check_output(output, values->class_names, "the file of names");
}

static int check_outputs(struct predict *predict)
{
    const struct values *values = &predict->values;
    if (values->csv && values->logits && strcmp(values->csv, values->logits) == 0)
        return err_set(ERR_ARG, "--csv and --logits write two files: give them two names");
    int code = check_output(predict, values->csv);
    return code ? code : check_output(predict, values->logits);
}

static int open_outputs(struct predict *predict)
{
    const struct values *values = &predict->values;
    int code = 0;
    if (values->class_names && values->classes_of)
        return err_set(ERR_ARG, "give --class-names or --classes-of, one of the two");
    if (values->classes_of)
        code = store_open(&predict->named, values->classes_of);
    if (!code)
        code = check_classes(predict, predict->named);
    if (!code && values->class_names) {
        predict->name_count = (size_t)predict->net->classes;
        code = class_names_read(&predict->names, values->class_names, NULL, predict->name_count);
        predict->name_count = code ? 0 : predict->name_count;
    }
    if (!code && values->logits)
        code = npy_open(&predict->npy, values->logits, predict_input_count(predict->input),
                        (uint64_t)predict->net->classes);
    if (!code && values->csv)
        code = file_atomic_open(&predict->csv, values->csv);
    if (!code && values->csv)
        csv_head(predict);
    return code;
}

static int publish(struct predict *predict)
{
    int code = predict->npy ? npy_commit(predict->npy) : 0;
    predict->npy = NULL;
    if (!code && predict->csv) {
        code = file_atomic_commit(predict->csv);
        predict->csv = NULL;
    }
    return code;
}

static void close_all(struct predict *predict)
{
    npy_discard(predict->npy);
    file_atomic_discard(predict->csv);
    class_names_free(predict->names, predict->name_count);
    store_close(predict->named);
    if (predict->compiled)
        predict->ops->program_close(predict->compiled);
    if (predict->state)
        predict->ops->state_close(predict->state);
    net_close(predict->net);
    if (predict->backend) {
        predict->ops->host_free(predict->backend, predict->pixels);
        predict->ops->host_free(predict->backend, predict->labels);
        predict->ops->close(predict->backend);
    }
    free(predict->logits);
    free(predict->flipped);
    predict_input_close(predict->input);
    model_file_close(&predict->file);
}

static int predict_images(struct predict *predict)
{
    int (*const steps[])(struct predict *) = {check_outputs, open_file, open_input, open_network,
                                              open_outputs,  run_all,   publish};
    int code = 0;
    for (size_t i = 0; i < ARRAY_COUNT(steps) && !code; i++)
        code = steps[i](predict);
    if (!code)
        print_summary(predict);
    if (!code && predict->damaged == predict_input_count(predict->input))
        code = err_set(ERR_DATA, "none of the images could be read");
    return code;
}

int main(int argc, char **argv)
{
    static struct predict predict;
    openmp_limit_spinning(argv);
    struct opt_section sections[] = {
        {"Predict", options, ARRAY_COUNT(options), &predict.values, false},
        recipe_section(&predict.recipe)};
    predict.program = (struct opt_program){
        .name = "satchel-predict",
        .usage = "WEIGHTS.safetensors {IMAGE...|--data FILE.lmdb} [OPTIONS]",
        .summary = "Names the most likely classes of images. Images go through the evaluation's "
                   "own path; what the weights were trained with is in a checkpoint, for other "
                   "files give --eval-size, --resize-short, --interpolation, --mean and --std.",
        .sections = sections,
        .section_count = ARRAY_COUNT(sections),
        .min_positional = 1,
        .max_positional = -1,
        .find_recipe = recipe_find,
        .foreign_keys = recipe_foreign_keys(),
        .json = true,
    };
    log_open(predict.program.name);
    fault_install();
    stop_install(false);
    int code = opt_parse(&predict.program, argc, argv);
    if (!code && !predict.program.finished)
        code = predict_images(&predict);
    int status = opt_end(&predict.program, code); /* first: closing may fail as well */
    close_all(&predict);
    return status;
}
