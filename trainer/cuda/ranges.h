/* SPDX-License-Identifier: Apache-2.0 */
/* Named ranges for NVIDIA's profilers (NVTX 3, headers alone): one for each step of a schedule,
 * "layer1.0.conv1.weight backward", while it is queued. They do nothing when no tool is attached,
 * or when the toolkit has no NVTX. A CUDA graph keeps no ranges: look at steps with --cuda-graph
 * no. */
#ifndef TRAINER_CUDA_RANGES_H
#define TRAINER_CUDA_RANGES_H

#include <stdio.h>

#include "trainer/cuda/cuda.h"

#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>

static inline const char *range_phase(const struct step *step)
{
    switch ((int)step->kind) {
    case STEP_INPUT:
        return "input";
    case STEP_LOSS:
        return "loss";
    case STEP_GATHER:
        return "gather";
    case STEP_GRAPH:
        return step->at[GRAPH_DOUT].kind || step->at[GRAPH_DY].kind ? "backward" : "forward";
    case STEP_FC_BACKWARD:
        return "backward";
    default:
        return "forward";
    }
}

static inline void range_begin(const struct program *program, int index)
{
    const struct step *step = &program->schedule->steps[index];
    const struct net *net = program->net;
    int weight = step->node >= 0 ? net->nodes[step->node].weight : -1;
    char name[96];
    snprintf(name, sizeof name, "%s %s", weight >= 0 ? net->tensors[weight].name : net->model,
             range_phase(step));
    nvtxRangePushA(name);
}

static inline void range_end(void)
{
    nvtxRangePop();
}
#else
static inline void range_begin(const struct program *program, int index)
{
}

static inline void range_end(void)
{
}
#endif

#endif
