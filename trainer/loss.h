/* SPDX-License-Identifier: Apache-2.0 */
/* The loss and the metrics of a micro-batch on the host, shared by the CPU backends: in double, so
 * that it is a reference for everyone. Threads: pure functions. */
#ifndef TRAINER_LOSS_H
#define TRAINER_LOSS_H

#include "proto/chunk.h"
#include "trainer/backend.h"

struct loss_sums { /* over the samples that are not masked */
    double loss, top1, top5, samples;
};

/* The plain cross-entropy, which inference reports. */
extern const struct loss_config loss_plain;

/* Softmax cross-entropy against the soft target q = lam smooth(a) + (1 - lam) smooth(b), where
 * smooth(y) is 1 - eps at y and eps / (K - 1) elsewhere (paper section 5.2), or under
 * smoothing_over_k 1 - eps + eps / K and eps / K; and, when teacher is given and kd_temperature
 * T > 0, distillation (section 5.3):
 *   hard_weight * l(q, softmax(z)) + soft_weight * T^2 * l(softmax(r / T), softmax(z / T)).
 *
 * logits z, teacher r (NULL: none): [samples][classes]. gradient (NULL: not wanted):
 * [samples][classes], of factor * the sum of the losses; 0 for masked samples. top1, top5: label a,
 * or b where it weighs more; a class counts as ranked before another of the same logit when its
 * index is lower; NaN is never right. */
void loss_batch(struct loss_sums *sums, double *gradient, const double *logits,
                const double *teacher, const struct chunk_label *labels, int samples, int classes,
                const struct loss_config *config, double factor);

#endif
