/* SPDX-License-Identifier: Apache-2.0 */
/* Everything that a run needs to go on, in one safetensors file: weights and running statistics in
 * timm's names, momentum as "momentum.NAME", and the rest as strings of __metadata__:
 *
 *   format                "satchel-2"
 *   checksum              over the whole file (trainer/safetensors.h)
 *   satchel               version of the program
 *   model, classes, channels, size   the network
 *   recipe                the resolved recipe.ini
 *   epoch, step_in_epoch, step       what comes next; all count from 0
 *   finished              "1": the run came to its end
 *   receipt               of the epoch so far
 *   train_fingerprint, val_fingerprint ("": no validation)
 *   challenge             what the loaders made of the training stream's challenge; "": none asked
 *   loss_scale, loss_scale_good_steps, loss_scale_bad_steps
 *   top1, best_top1       percent, of the last evaluation and the best; "": none yet
 *   backend               library, precision, threads and instruction set
 *
 * Tensors and strings hold no time, host or path but those that the recipe names, so two runs that
 * do the same write the same file. */
#ifndef TRAINER_CHECKPOINT_H
#define TRAINER_CHECKPOINT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/hash.h"
#include "trainer/scaler.h"
#include "trainer/weights.h"

#define CHECKPOINT_FORMAT "satchel-2"

struct checkpoint {
    const char *recipe;  /* ini text */
    const char *backend; /* backend_ops.describe */
    uint64_t epoch;
    uint64_t step_in_epoch; /* may equal the epoch's steps: then its evaluation comes next */
    uint64_t step;
    bool finished;
    struct hash128 receipt;
    struct hash128 train_fingerprint, val_fingerprint;
    bool has_val;
    bool has_challenge;
    struct hash128 challenge; /* feed_challenge() */
    double loss_scale;
    uint64_t loss_scale_good_steps, loss_scale_bad_steps;
    double top1, best_top1; /* negative: none */
};

/* Reads what the strings say; those of the result belong to file. path is for messages. ERR_DATA
 * names file and key; ERR_UNSUPPORTED: of the format of another version, with the way out. */
int checkpoint_read(struct checkpoint *checkpoint, const struct safetensors *file,
                    const char *path);

/* Tensors of one kind of one state; in the file they are named prefix + name. */
struct checkpoint_part {
    const char *prefix;
    enum state_kind kind;
    struct weights weights;
};

enum { CHECKPOINT_PARTS_MAX = 4 };

/* What every run has: weights with running statistics, then momentum. Returns how many parts. */
int checkpoint_parts(struct checkpoint_part dst[CHECKPOINT_PARTS_MAX],
                     const struct weights *weights);

/* Loads all tensors of the parts. ERR_DATA: weights_load. */
int checkpoint_load(const struct checkpoint_part *parts, int count, const struct safetensors *file,
                    const char *path);

#endif
