/* SPDX-License-Identifier: Apache-2.0 */
/* Fills a state's tensors: with a scheme's initial values, or from a file by name. */
#ifndef TRAINER_WEIGHTS_H
#define TRAINER_WEIGHTS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/hash.h"
#include "trainer/backend.h"
#include "trainer/safetensors.h"

/* A net's state on a backend; net is the one that the state was opened with. */
struct weights {
    const struct backend_ops *ops;
    struct state *state;
    const struct net *net;
};

/* Initial values of every tensor (net_init_tensor). */
int weights_init(const struct weights *weights, const char *scheme, bool zero_gamma, uint64_t seed);

/* Reads every tensor of a kind from the tensors named prefix + name; other tensors of the file
 * (num_batches_tracked, momentum, ...) are left alone. head_kept: NULL, or a classifier of another
 * number of classes is left as it is in the state, and *head_kept says whether that was so.
 * ERR_DATA names file and tensor: missing, another shape, no real numbers, not finite. */
int weights_load(const struct weights *weights, const struct safetensors *file, const char *path,
                 enum state_kind kind, const char *prefix, bool *head_kept);

/* Reads one tensor of a net (dst has tensor->count floats) from the tensor named prefix + its name.
 * Errors as weights_load. */
int weights_read(float *dst, const struct net *net, int tensor, const struct safetensors *file,
                 const char *path, const char *prefix);

/* Copies weights and running statistics into the state of the same model for another input size. */
int weights_copy(const struct weights *dst, const struct weights *src);

/* XXH3-128 over all weights and running statistics, in the net's order: ranks that hold the same
 * model have the same. ERR_NOMEM, or what the backend says. */
int weights_hash(struct hash128 *hash, const struct weights *weights);

/* The largest count of the net's tensors: what a buffer for any of them needs. */
size_t weights_largest(const struct net *net);

#endif
