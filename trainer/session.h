/* SPDX-License-Identifier: Apache-2.0 */
/* What a run works with, put together once: the ranks, the device, the loaders, the network. */
#ifndef TRAINER_SESSION_H
#define TRAINER_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "trainer/average.h"
#include "trainer/backend.h"
#include "trainer/checkpoint.h"
#include "trainer/comm.h"
#include "trainer/feed.h"
#include "trainer/options.h"
#include "trainer/teacher.h"
#include "trainer/weights.h"

struct session {
    struct options *options;
    struct comm *comm;
    const char *poisonous; /* feed_config.poisonous */
    const struct backend_ops *ops;
    struct backend *backend;
    struct feed *feed;
    const struct feed_store *train; /* NULL with --eval-only */
    const struct feed_store *val;   /* NULL: no evaluation */
    struct spec train_spec, eval_spec;
    struct net *net, *eval_net; /* equal but for the input size; eval_net NULL: no evaluation */
    struct state *state;
    struct state *eval_state; /* state itself when the sizes are equal */
    struct program *train_program, *eval_program;
    struct teacher teacher;
    struct average average;
    int micro_batches; /* of this rank in a step */
    uint64_t steps_per_epoch;
    bool stalled; /* session_open failed because of --stall-limit */
};

/* Opens everything; all tensors are zero then. poisonous: feed_config.poisonous. ERR_PEER: the
 * loaders' stores do not fit each other or the recipe. On failure what was opened is closed. */
int session_open(struct session *session, struct options *options, struct comm *comm,
                 const char *poisonous);
void session_close(struct session *session); /* accepts a zeroed one; comm stays open */

/* The state that is trained, for weights.h. */
struct weights session_weights(const struct session *session);

/* All that a checkpoint holds. Returns how many parts. */
int session_parts(struct checkpoint_part dst[CHECKPOINT_PARTS_MAX], const struct session *session);

#endif
