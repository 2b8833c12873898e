/* SPDX-License-Identifier: Apache-2.0 */
/* The oneDNN backend's operations table and its device, some threads. */
#include "trainer/dnnl/dnnl.h"

#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/err.h"

static void dnnl_backend_close(struct backend *backend)
{
    if (!backend)
        return;
    engine_close(((struct backend_cpu *)backend)->engine);
    free(backend);
}

static int processors(void) /* that this process may use */
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return omp_get_num_procs();
    int count = CPU_COUNT(&set);
    return count < 1 ? 1 : count;
}

/* Those for the instructions that the library uses, so that DNNL_MAX_CPU_ISA counts for both. */
static const struct kernels *choose_kernels(bool bf16)
{
#ifdef DNNL_KERNELS_X86
    if (bf16)
        return engine_has_avx512_bf16() ? &kernels_avx512_bf16 : NULL;
    if (engine_has_avx512())
        return &kernels_avx512;
    if (engine_has_avx2())
        return &kernels_avx2;
#endif
    return bf16 ? NULL : &kernels_base;
}

static int check_precision(enum precision precision)
{
    if (precision == PRECISION_FP16)
        return err_set(ERR_UNSUPPORTED,
                       "dnnl computes in fp32 or bf16; fp16 is for cuda: take --precision fp32");
    if (!choose_kernels(precision == PRECISION_BF16))
        return err_set(ERR_UNSUPPORTED,
                       "bf16 needs a processor with AVX512-BF16, which this is not "
                       "(or DNNL_MAX_CPU_ISA hides it): take --precision fp32");
    return 0;
}

static int dnnl_backend_open(struct backend **out, const struct backend_config *config)
{
    *out = NULL;
    int code = check_precision(config->precision);
    if (code)
        return code;
    struct backend_cpu *cpu = calloc(1, sizeof *cpu);
    if (!cpu)
        return err_set(ERR_NOMEM, "no memory for the dnnl backend");
    cpu->base.head.ops = &backend_dnnl;
    cpu->base.threads = config->threads > 0 ? config->threads : processors();
    cpu->bf16 = config->precision == PRECISION_BF16;
    cpu->kernels = choose_kernels(cpu->bf16);
    snprintf(cpu->base.text, sizeof cpu->base.text, "oneDNN %s, %s, %d thread%s, %s",
             engine_version(), cpu->bf16 ? "bf16" : "fp32", cpu->base.threads,
             cpu->base.threads == 1 ? "" : "s", cpu->kernels->name);
    code = engine_open(&cpu->engine);
    if (code) {
        dnnl_backend_close(&cpu->base);
        return code;
    }
    *out = &cpu->base;
    return 0;
}

static const char *dnnl_describe(const struct backend *backend)
{
    return backend->text;
}

static void *dnnl_host_alloc(struct backend *backend, size_t bytes)
{
    size_t rounded = (bytes + 63) / 64 * 64;
    return rounded < bytes ? NULL : aligned_alloc(64, rounded ? rounded : 64);
}

static void dnnl_host_free(struct backend *backend, void *memory)
{
    free(memory);
}

static int dnnl_state_set(struct state *state, enum state_kind kind, int tensor, const float *src)
{
    state->version++;
    return state_ref_set(state, kind, tensor, src);
}

/* run() returns when all is done. */
static int dnnl_inputs_read(struct program *program)
{
    return 0;
}

static int dnnl_synchronise(struct backend *backend)
{
    return 0;
}

static void *dnnl_queue(struct backend *backend)
{
    return NULL;
}

const struct backend_ops backend_dnnl = {
    .name = "dnnl",
    .device = "cpu",
    .open = dnnl_backend_open,
    .close = dnnl_backend_close,
    .describe = dnnl_describe,
    .host_alloc = dnnl_host_alloc,
    .host_free = dnnl_host_free,
    .state_open = state_ref_open,
    .state_close = state_ref_close,
    .state_set = dnnl_state_set,
    .state_get = state_ref_get,
    .program_open = program_dnnl_open,
    .program_close = program_dnnl_close,
    .program_bytes = program_dnnl_bytes,
    .program_seconds = program_dnnl_seconds,
    .profile_start = profile_dnnl_start,
    .profile_read = profile_dnnl_read,
    .peaks = profile_dnnl_peaks,
    .run = pass_dnnl_run,
    .inputs_read = dnnl_inputs_read,
    .logits = pass_dnnl_logits,
    .slot_add = state_ref_slot_add,
    .slot_buckets = state_ref_buckets,
    .slot_bucket = state_ref_bucket,
    .slot_get = state_ref_slot_get,
    .update = update_dnnl,
    .state_average = state_ref_average,
    .metrics = state_ref_metrics,
    .synchronise = dnnl_synchronise,
    .queue = dnnl_queue,
};
