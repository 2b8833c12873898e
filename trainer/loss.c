/* SPDX-License-Identifier: Apache-2.0 */
#include "trainer/loss.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

const struct loss_config loss_plain = {.kd_hard_weight = 1.0};

/* log of the sum over i of exp(z_i / temperature), safe from overflow. */
static double log_sum_exp(const double *z, int classes, double temperature)
{
    double largest = z[0];
    for (int i = 1; i < classes; i++)
        largest = z[i] > largest ? z[i] : largest;
    double sum = 0;
    for (int i = 0; i < classes; i++)
        sum += exp((z[i] - largest) / temperature);
    return largest / temperature + log(sum);
}

struct target { /* q_i = off, plus on_a at a and on_b at b */
    double off, on_a, on_b;
};

static struct target target_of(const struct loss_config *config, double lam, int classes)
{
    double epsilon = config->label_smoothing;
    double off = epsilon / (config->smoothing_over_k ? classes : classes - 1);
    double on = config->smoothing_over_k ? 1.0 - epsilon : 1.0 - epsilon - off;
    return (struct target){.off = off, .on_a = lam * on, .on_b = (1.0 - lam) * on};
}

/* Adds weight * l(q, softmax(z)); the gradient is softmax(z) - q, for q sums to 1. */
static double hard_loss(double *gradient, const double *z, struct chunk_label label, int classes,
                        const struct loss_config *config, double weight)
{
    const struct target target = target_of(config, label.lam, classes);
    double norm = log_sum_exp(z, classes, 1.0), loss = 0;
    for (int i = 0; i < classes; i++) {
        double q = target.off;
        if ((uint32_t)i == label.a)
            q += target.on_a;
        if ((uint32_t)i == label.b)
            q += target.on_b;
        if (q != 0) /* 0 * infinity is no loss */
            loss += q * (norm - z[i]);
        if (gradient)
            gradient[i] += weight * (exp(z[i] - norm) - q);
    }
    return weight * loss;
}

/* Adds weight * T^2 * l(softmax(r / T), softmax(z / T)), whose gradient is weight * T * the
 * difference of the two. */
static double soft_loss(double *gradient, const double *z, const double *r, int classes, double T,
                        double weight)
{
    double norm_z = log_sum_exp(z, classes, T), norm_r = log_sum_exp(r, classes, T), loss = 0;
    for (int i = 0; i < classes; i++) {
        double q = exp(r[i] / T - norm_r);
        if (q != 0)
            loss += q * (norm_z - z[i] / T);
        if (gradient)
            gradient[i] += weight * T * (exp(z[i] / T - norm_z) - q);
    }
    return weight * T * T * loss;
}

/* How many classes rank before the target; NaN ranks before everything and after nothing. */
static int rank_of(const double *z, uint32_t target, int classes)
{
    int before = 0;
    for (int i = 0; i < classes; i++) {
        bool after = z[i] < z[target] || (z[i] == z[target] && (uint32_t)i >= target);
        before += !after;
    }
    return before;
}

void loss_batch(struct loss_sums *sums, double *gradient, const double *logits,
                const double *teacher, const struct chunk_label *labels, int samples, int classes,
                const struct loss_config *config, double factor)
{
    *sums = (struct loss_sums){0};
    bool distils = teacher && config->kd_temperature > 0;
    for (int n = 0; n < samples; n++) {
        const double *z = logits + (ptrdiff_t)n * classes;
        double *dz = gradient ? gradient + (ptrdiff_t)n * classes : NULL;
        for (int i = 0; dz && i < classes; i++)
            dz[i] = 0;
        if (labels[n].a == CHUNK_LABEL_MASKED)
            continue;
        double hard_weight = distils ? config->kd_hard_weight : 1.0;
        sums->loss += hard_loss(dz, z, labels[n], classes, config, hard_weight);
        if (distils)
            sums->loss += soft_loss(dz, z, teacher + (ptrdiff_t)n * classes, classes,
                                    config->kd_temperature, config->kd_soft_weight);
        for (int i = 0; dz && i < classes; i++)
            dz[i] *= factor;
        int rank = rank_of(z, labels[n].lam >= 0.5f ? labels[n].a : labels[n].b, classes);
        sums->top1 += rank < 1;
        sums->top5 += rank < 5;
        sums->samples += 1;
    }
}
