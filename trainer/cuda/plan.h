/* SPDX-License-Identifier: Apache-2.0 */
/* How cuDNN runs a graph on a device: the first engine of its heuristics that may be taken and that
 * it builds; and the plans of a process, built in parallel, each graph once. */
#ifndef TRAINER_CUDA_PLAN_H
#define TRAINER_CUDA_PLAN_H

#include <stdbool.h>

#include "trainer/cuda/graph.h"

#define PLAN_WORKSPACE_LIMIT ((size_t)1 << 30)

struct plan_device {
    bool present;            /* the current device; else it is only described: */
    const char *description; /* properties as JSON (CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION) */
    int ordinal;             /* present: for cudaSetDevice in threads */
    size_t workspace_limit;  /* bytes; engines that want more are left out */
};

struct plan {
    struct graph_spec spec;
    struct graph *graph; /* owns all descriptors */
    cudnnBackendDescriptor_t executable;
    size_t workspace_bytes;
    int pick;          /* of the configurations that may be taken and were built; 0: the first */
    double measured_s; /* of a run, where it was timed */
    bool settled;      /* timed, or recalled: stays as it is */
    bool refused;      /* a fused graph that no engine takes */
    int tried;         /* engine configurations until one was built */
    double seconds;
};

/* What a plan runs on: pointers in the order of graph->roles. ERR_INTERNAL. The caller destroys it.
 */
int plan_pack(cudnnBackendDescriptor_t *pack, const struct plan *plan, void *const *pointers,
              void *workspace);

struct plans; /* of one device */

/* ERR_NOMEM. close accepts NULL. */
int plans_open(struct plans **out, const struct plan_device *device);
void plans_close(struct plans *plans);

/* Notes that a graph is wanted; returns its number, the same for an equal one; -1 when memory is
 * out. */
int plans_want(struct plans *plans, const struct graph_spec *spec);

/* Builds what is wanted and not there yet, on `threads` threads (0: as many as processors, 16 at
 * most), and shows progress when it takes long. A fused graph that the library has no engine for is
 * marked as refused, with a line under --verbose. ERR_UNSUPPORTED names the first other graph that
 * it refuses, and why; ERR_STOPPED. */
int plans_build(struct plans *plans, int threads);

bool plans_refused(const struct plans *plans, const struct graph_spec *spec);

const struct plan *plans_get(const struct plans *plans, int number);
int plans_count(const struct plans *plans);

#endif
