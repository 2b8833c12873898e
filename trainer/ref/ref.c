/* SPDX-License-Identifier: Apache-2.0 */
/* The reference backend's operations table and its device, some threads. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/err.h"
#include "trainer/ref/ref.h"

static void ref_close(struct backend *backend)
{
    free(backend);
}

/* The processors that this process may use. */
static int processors(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

static int ref_open(struct backend **out, const struct backend_config *config)
{
    *out = NULL;
    struct backend *backend = calloc(1, sizeof *backend);
    if (!backend)
        return err_set(ERR_NOMEM, "no memory for the ref backend");
    backend->head.ops = &backend_ref;
    backend->threads = config->threads > 0 ? config->threads : processors();
    backend->halves = config->precision == PRECISION_FP16;
    backend->bf16 = config->precision == PRECISION_BF16;
    backend->fusion = backend->halves ? config->fusion : FUSION_NONE;
    snprintf(backend->text, sizeof backend->text, "ref (plain C), %s, %d thread%s",
             backend->halves ? "fp16 emulated"
             : backend->bf16 ? "bf16 emulated"
                             : REF_PRECISION,
             backend->threads, backend->threads == 1 ? "" : "s");
    *out = backend;
    return 0;
}

static const char *ref_describe(const struct backend *backend)
{
    return backend->text;
}

static void *ref_host_alloc(struct backend *backend, size_t bytes)
{
    size_t rounded = (bytes + 63) / 64 * 64;
    return rounded < bytes ? NULL : aligned_alloc(64, rounded ? rounded : 64);
}

static void ref_host_free(struct backend *backend, void *memory)
{
    free(memory);
}

/* run() returns when all is done. */
static int ref_inputs_read(struct program *program)
{
    return 0;
}

static int ref_synchronise(struct backend *backend)
{
    return 0;
}

static void *ref_queue(struct backend *backend)
{
    return NULL;
}

const struct backend_ops backend_ref = {
    .name = "ref",
    .device = "cpu",
    .open = ref_open,
    .close = ref_close,
    .describe = ref_describe,
    .host_alloc = ref_host_alloc,
    .host_free = ref_host_free,
    .state_open = state_ref_open,
    .state_close = state_ref_close,
    .state_set = state_ref_set,
    .state_get = state_ref_get,
    .program_open = program_ref_open,
    .program_close = program_ref_close,
    .program_bytes = program_ref_bytes,
    .program_seconds = program_ref_seconds,
    .run = pass_ref_run,
    .inputs_read = ref_inputs_read,
    .logits = pass_ref_logits,
    .slot_add = state_ref_slot_add,
    .slot_buckets = state_ref_buckets,
    .slot_bucket = state_ref_bucket,
    .slot_get = state_ref_slot_get,
    .update = state_ref_update,
    .state_average = state_ref_average,
    .metrics = state_ref_metrics,
    .synchronise = ref_synchronise,
    .queue = ref_queue,
};
