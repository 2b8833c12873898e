/* SPDX-License-Identifier: Apache-2.0 */
/* What the network took each validation sample for, at the best evaluation: best.predictions of a
 * run directory, a safetensors file with the tensors "class" and "probability", both [N] by sample
 * id; class is -1 for a sample that was not judged. satchel-report shows from it what is confused.
 */
#ifndef TRAINER_PREDICTIONS_H
#define TRAINER_PREDICTIONS_H

#include <stdint.h>

#include "common/hash.h"
#include "trainer/comm.h"

struct predictions {
    uint32_t count, classes;
    uint64_t epoch;
    struct hash128 val_fingerprint; /* of the store whose ids they are */
    float *class_index;             /* [count]; exact, for there are fewer than 2^24 classes */
    float *probability;             /* [count], of that class; 0: its logits are no numbers */
};

/* All samples not judged. ERR_NOMEM. */
int predictions_open(struct predictions **out, uint32_t count, uint32_t classes);
int predictions_copy(struct predictions **out, const struct predictions *src);
void predictions_close(struct predictions *predictions); /* accepts NULL */
void predictions_reset(struct predictions *predictions, uint64_t epoch);

/* Enters samples first..first+samples-1; logits: [samples][classes]. Those past count are ignored.
 */
void predictions_enter(struct predictions *predictions, uint64_t first, uint32_t samples,
                       const float *logits);
void predictions_clear(struct predictions *predictions, uint64_t id); /* it was masked */

/* Every rank gets what all have entered. */
int predictions_gather(struct predictions *predictions, struct comm *comm);

/* Writes atomically. ERR_IO, ERR_NOMEM. */
int predictions_write(const struct predictions *predictions, const char *path);

/* ERR_IO: there is no such file; ERR_DATA: it is damaged or something else. */
int predictions_read(struct predictions **out, const char *path);

#endif
