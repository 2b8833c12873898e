/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of satchel-trainer: the recipe's keys and the options of the run itself. */
#ifndef TRAINER_OPTIONS_H
#define TRAINER_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/opt.h"
#include "proto/recipe.h"
#include "trainer/backend.h"

struct run_options {
    const char *loaders;
    const char *device, *backend, *fusion;
    int64_t threads;          /* 0: all */
    const char *cuda_graph;   /* "yes" or "no" */
    int64_t max_steps;        /* of the whole run, over resumes; 0: no limit */
    int64_t keep;             /* checkpoints: the newest and those before it */
    const char *allow_change; /* recipe keys, comma-separated; NULL: none */
    int64_t save_every;       /* steps between checkpoints within an epoch; 0: none */
    int64_t check_ranks;      /* steps between comparisons of the ranks' weights; 0: never */
    double stall_limit;       /* seconds without a chunk; 0: wait for ever */
    double audit;
    const char *secret_key, *server_keys;
    bool resume, eval_only, autotune;
    bool shared_memory; /* pixels of loaders on this host */
    const char *out;
};

struct options {
    struct recipe recipe; /* resolved: lr is absolute */
    struct run_options run;
    enum precision precision;
    enum fusion fusion;
    bool stream_changed; /* by --allow-change, since the checkpoint: options_check_resume */
    int frozen_then;     /* stages that were frozen then, as recipe_freeze() */
    struct opt_section sections[2]; /* recipe, run */
    struct opt_program program;
};

/* Fills *options (which must stay where it is). When options->program.finished, there is nothing to
 * do. ERR_ARG: one line; ERR_UNSUPPORTED: an option whose work this build cannot do. */
int options_parse(struct options *options, int argc, char **argv);
void options_release(struct options *options);

/* Prints everything that a run will do to stderr, as it could stand in a recipe. */
void options_print(const struct options *options);

/* The resolved recipe as ini text; caller frees. NULL when memory is out. */
char *options_recipe_text(const struct options *options);

/* Whether a run that was begun with the recipe of `text` may go on with this one: every key must be
 * the same, but for those that --allow-change names (then a warning says what changes). A chunk
 * size that was left open now is taken from there; stream_changed and frozen_then are set. ERR_ARG
 * names the key, both values and the checkpoint (name). */
int options_check_resume(struct options *options, const char *text, const char *name);

#endif
