/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of satchel-trainer. */
#include "trainer/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"

#define FIELD(name) offsetof(struct run_options, name)

static const struct opt run_table[] = {
    {"loaders", OPT_STRING, FIELD(loaders), .value_name = "ENDPOINT,ENDPOINT...|@FILE|synthetic",
     .help = "where the loaders are; @FILE has one endpoint a line and is watched; synthetic makes "
             "batches without meaning here"},
    {"device", OPT_CHOICE, FIELD(device), .fallback = "auto", .choices = "auto|cpu|cuda",
     .help = "where the network runs"},
    {"backend", OPT_CHOICE, FIELD(backend), .fallback = "auto", .choices = "auto|ref|dnnl|cuda",
     .help = "what runs it; auto takes the fastest that works here"},
    {"fusion", OPT_CHOICE, FIELD(fusion), .fallback = "auto", .choices = "auto|none|prologue|block",
     .help = "how much of batch normalisation a GPU's convolutions take over, where cuDNN can "
             "(block: sm_90); only with none, which auto is, a second run has the same bits"},
    {"autotune", OPT_FLAG, FIELD(autotune),
     .help = "time the GPU library's engines at the start and keep the choice in --out"},
    {"threads", OPT_INT, FIELD(threads), .fallback = "0", .max = 1024, .value_name = "N",
     .help = "threads of a CPU backend; 0: all that the process may use"},
    {"cuda-graph", OPT_CHOICE, FIELD(cuda_graph), .fallback = "yes", .choices = "yes|no",
     .help = "run each step on a GPU as one CUDA graph; no: queue its work anew, to find faults"},
    {"max-steps", OPT_INT, FIELD(max_steps), .fallback = "0", .max = 1e15, .value_name = "N",
     .help =
         "end after this many steps, counted over resumes; the schedule follows --epochs; 0: no "
         "limit"},
    {"save-every", OPT_INT, FIELD(save_every), .fallback = "0", .max = 1e15, .value_name = "STEPS",
     .help = "steps between checkpoints within an epoch; 0: only after each epoch"},
    {"keep", OPT_INT, FIELD(keep), .fallback = "2", .min = 1, .max = 1e6, .value_name = "N",
     .help = "newest checkpoints that are kept, best.safetensors not counted"},
    {"allow-change", OPT_STRING, FIELD(allow_change), .value_name = "KEY,KEY...",
     .help = "recipe keys that may differ from the checkpoint's on --resume"},
    {"stall-limit", OPT_REAL, FIELD(stall_limit), .fallback = "0", .max = 1e9,
     .value_name = "SECONDS",
     .help = "give up (checkpoint, status 3) when no chunk came for so long; 0: wait for ever"},
    {"audit", OPT_REAL, FIELD(audit), .fallback = "0", .max = 1, .value_name = "SHARE",
     .help = "share of chunks that are fetched from two loaders and compared"},
    {"shared-memory", OPT_FLAG, FIELD(shared_memory), .fallback = "true",
     .help = "take pixels from the memory of ipc:// loaders that offer it; on unless =false"},
    {"secret-key", OPT_STRING, FIELD(secret_key), .value_name = "FILE",
     .help = "this trainer's key (satchel-keygen); goes with --server-keys"},
    {"server-keys", OPT_STRING, FIELD(server_keys), .value_name = "DIR",
     .help = "public keys of the loaders that are trusted"},
    {"check-ranks", OPT_INT, FIELD(check_ranks), .fallback = "500", .max = 1e15,
     .value_name = "STEPS",
     .help = "steps between two comparisons of the weights of all ranks; 0: never"},
    {"resume", OPT_FLAG, FIELD(resume),
     .help = "go on from the checkpoint in --out; start afresh when there is none"},
    {"eval-only", OPT_FLAG, FIELD(eval_only),
     .help = "evaluate the weights of --init, or of --out with --resume, and end"},
    {"out", OPT_STRING, FIELD(out), .fallback = "run", .value_name = "DIR",
     .help = "run directory: recipe.ini, metrics.jsonl, last.safetensors, best.safetensors"},
};

static int check_run(const struct options *options)
{
    const struct run_options *run = &options->run;
    if (!run->loaders || !*run->loaders)
        return err_set(ERR_ARG,
                       "--loaders is missing: give ENDPOINT,ENDPOINT..., @FILE or synthetic "
                       "(see --help)");
    if (run->eval_only && !run->resume && !options->recipe.init)
        return err_set(ERR_ARG,
                       "--eval-only needs weights: --init FILE, or --resume with --out DIR");
    if (!*run->out)
        return err_set(ERR_ARG, "--out: give a directory");
    return 0;
}

static enum precision precision_of(const char *name)
{
    if (strcmp(name, "bf16") == 0)
        return PRECISION_BF16;
    return strcmp(name, "fp16") == 0 ? PRECISION_FP16 : PRECISION_FP32;
}

int options_parse(struct options *options, int argc, char **argv)
{
    *options = (struct options){
        .program =
            {
                .name = "satchel-trainer",
                .usage = "--loaders ENDPOINT,... [--recipe NAME|FILE.ini] [--out DIR] [OPTIONS]",
                .summary =
                    "Trains an image classifier on batches that satchel-loader makes. Without "
                    "a recipe: the paper's baseline.",
                .section_count = 2,
                .find_recipe = recipe_find,
                .foreign_keys = recipe_foreign_keys(),
                .json = true,
                .print_parts = backend_list,
            },
    };
    options->program.sections = options->sections;
    options->sections[0] = recipe_section(&options->recipe);
    options->sections[1] = (struct opt_section){
        .title = "The run",
        .options = run_table,
        .count = ARRAY_COUNT(run_table),
        .values = &options->run,
        .in_recipe = true,
    };
    int code = opt_parse(&options->program, argc, argv);
    if (code || options->program.finished)
        return code;
    code = check_run(options);
    if (!code)
        code = recipe_check(&options->recipe, 1);
    options->precision = precision_of(options->recipe.precision);
    options->fusion = backend_fusion(options->run.fusion);
    options->recipe.lr = recipe_lr(&options->recipe);
    return code;
}

void options_release(struct options *options)
{
    opt_release(&options->program);
}

void options_print(const struct options *options)
{
    for (int i = 0; i < 2; i++) {
        fprintf(stderr, "# %s\n", options->sections[i].title);
        opt_write_ini(stderr, &options->sections[i], false);
    }
}

char *options_recipe_text(const struct options *options)
{
    char *text = NULL;
    size_t bytes;
    FILE *stream = open_memstream(&text, &bytes);
    if (!stream)
        return NULL;
    int code = opt_write_ini(stream, &options->sections[0], false);
    if (fclose(stream) != 0 || code) {
        free(text);
        return NULL;
    }
    return text;
}

/* Whether name is one of the comma-separated list. */
static bool listed(const char *list, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = list; at && *at; at += *at == ',') {
        size_t span = strcspn(at, ",");
        if (span == length && strncmp(at, name, length) == 0)
            return true;
        at += span;
    }
    return false;
}

/* Every name in --allow-change is a recipe key. */
static int check_allowed(const struct opt_section *section, const char *list)
{
    for (const char *at = list; at && *at; at += *at == ',') {
        bool known = false;
        size_t span = strcspn(at, ",");
        for (size_t i = 0; i < section->count && !known; i++)
            known = strlen(section->options[i].name) == span &&
                    strncmp(section->options[i].name, at, span) == 0;
        if (!known)
            return err_set(ERR_ARG, "--allow-change: '%.*s' is no key of a recipe (see --help)",
                           (int)span, at);
        at += span;
    }
    return 0;
}

/* One key: equal in text, or allowed to change, or an error. */
static int compare_key(const struct opt *option, const void *now, const void *then,
                       const char *name, bool allowed)
{
    char *new_text = opt_value_text(option, now), *old_text = opt_value_text(option, then);
    const char *a = new_text ? new_text : "", *b = old_text ? old_text : "";
    int code = 0;
    if (strcmp(a, b) != 0 && allowed)
        log_warn("--allow-change: %s was '%s' and is now '%s'", option->name, b, a);
    else if (strcmp(a, b) != 0)
        code = err_set(ERR_ARG,
                       "--resume with another recipe: %s is '%s', but '%s' was begun with '%s'; "
                       "use the recipe.ini beside it, or a new --out, or say --allow-change %s",
                       option->name, a, name, b, option->name);
    free(new_text);
    free(old_text);
    return code;
}

/* Whether loaders make other chunks of one recipe than of the other. Three channels: with one, less
 * matters. */
static bool streams_differ(const struct recipe *a, const struct recipe *b)
{
    struct spec first, second;
    return recipe_train_spec(&first, a, 3) || recipe_train_spec(&second, b, 3) ||
           !hash128_equal(spec_hash(&first), spec_hash(&second));
}

int options_check_resume(struct options *options, const char *text, const char *name)
{
    struct recipe then;
    struct opt_section section = recipe_section(&then);
    struct opt_memory *memory = opt_memory_open();
    int code = memory ? opt_defaults(&section)
                      : err_set(ERR_NOMEM, "out of memory for the recipe of '%s'", name);
    if (!code)
        code = opt_read_ini_text(&section, memory, text, name, recipe_foreign_keys());
    if (!code)
        code = check_allowed(&section, options->run.allow_change);
    if (!code && options->recipe.chunk_size == 0)
        options->recipe.chunk_size = then.chunk_size;
    for (size_t i = 0; i < section.count && !code; i++)
        code = compare_key(&section.options[i], &options->recipe, &then, name,
                           listed(options->run.allow_change, section.options[i].name));
    if (!code)
        code = recipe_freeze(&options->frozen_then, &then);
    if (!code)
        options->stream_changed = streams_differ(&options->recipe, &then);
    opt_memory_close(memory);
    return code;
}
