/* SPDX-License-Identifier: Apache-2.0 */
/* What plans.c has of plan.c. */
#ifndef TRAINER_CUDA_PLAN_BUILD_H
#define TRAINER_CUDA_PLAN_BUILD_H

#include "trainer/cuda/plan.h"

struct plan_context {                /* of one thread */
    cudnnHandle_t handle;            /* of the device; NULL: it is only described */
    cudnnBackendDescriptor_t device; /* then */
    size_t workspace_limit;
};

/* plan->spec is set, all else zero. ERR_UNSUPPORTED, ERR_NOMEM. */
int plan_build(struct plan *plan, const struct plan_context *context);
void plan_release(struct plan *plan);

struct plan *plans_plan(struct plans *plans, int number);

#endif
