/* SPDX-License-Identifier: Apache-2.0 */
/* The cuda backend's operations table, and opening a GPU. */
#include "trainer/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"

extern const struct backend_ops backend_cuda;

enum { OLDEST_MAJOR = 8 }; /* sm_80: older chips have no engine for batch normalisation in fp16 */

int cuda_check(cudaError_t error, const char *what)
{
    if (error == cudaSuccess)
        return 0;
    return err_set(error == cudaErrorMemoryAllocation ? ERR_NOMEM : ERR_INTERNAL,
                   "the GPU failed at %s: %s (%s)", what, cudaGetErrorString(error),
                   cudaGetErrorName(error));
}

int cuda_check_dnn(cudnnStatus_t status, const char *what)
{
    if (status == CUDNN_STATUS_SUCCESS)
        return 0;
    return err_set(ERR_INTERNAL, "cuDNN failed at %s: %s", what, cudnnGetErrorString(status));
}

int cuda_alloc(void *memory, struct backend *backend, size_t bytes, const char *what)
{
    size_t free_bytes = 0, total = 0;
    void **out = memory;
    if (bytes == 0)
        bytes = 16; /* a net without such a part */
    int code = cuda_outside(backend);
    if (code)
        return code;
    cudaError_t error = cudaMalloc(out, bytes);
    if (error == cudaErrorMemoryAllocation) {
        *out = NULL;
        cudaGetLastError(); /* it is told here */
        cudaMemGetInfo(&free_bytes, &total);
        return err_set(ERR_NOMEM, "no %zu MiB of the GPU's memory for %s: %zu of %zu MiB are free",
                       bytes >> 20, what, free_bytes >> 20, total >> 20);
    }
    if (!error)
        error = cudaMemsetAsync(*out, 0, bytes, backend->compute);
    return cuda_check(error, what);
}

int cuda_upload(void *memory, struct backend *backend, const void *src, size_t bytes,
                const char *what)
{
    int code = cuda_alloc(memory, backend, bytes, what);
    if (code)
        return code;
    cudaError_t error =
        cudaMemcpyAsync(*(void **)memory, src, bytes, cudaMemcpyHostToDevice, backend->compute);
    if (!error)
        error = cudaStreamSynchronize(backend->compute);
    return cuda_check(error, what);
}

int cuda_order(struct backend *backend, cudaStream_t earlier, cudaStream_t later)
{
    cudaError_t error = cudaEventRecord(backend->passed, earlier);
    if (!error)
        error = cudaStreamWaitEvent(later, backend->passed, 0);
    return cuda_check(error, "putting work behind other work");
}

int cuda_outside(struct backend *backend)
{
    int turn = backend->latest_turn;
    if (turn < 0)
        return 0;
    backend->latest_turn = -1;
    return cuda_order(backend, backend->turns[turn], backend->compute);
}

int cuda_finish(struct backend *backend)
{
    const cudaStream_t streams[] = {backend->turns[0], backend->turns[1], backend->compute};
    cudaError_t error = cudaSuccess;
    for (int i = 0; i < 3 && !error; i++)
        error = streams[i] ? cudaStreamSynchronize(streams[i]) : cudaSuccess;
    return cuda_check(error, "finishing the work");
}

/* How many GPUs there are; one clear line when there is none to use. */
static int find_devices(int *count)
{
    int driver = 0, runtime = 0;
    cudaError_t error = cudaGetDeviceCount(count);
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    cudaGetLastError(); /* a failure is told here */
    if (driver > 0 && driver / 1000 < runtime / 1000)
        return err_set(
            ERR_UNSUPPORTED,
            "the NVIDIA driver is too old: it knows CUDA %d.%d, this build needs %d.0 or "
            "newer; install a newer driver",
            driver / 1000, driver % 1000 / 10, runtime / 1000);
    if (driver == 0)
        return err_set(ERR_UNSUPPORTED, "no NVIDIA driver is loaded on this machine: there is no "
                                        "GPU to use; take --device cpu");
    if (error == cudaErrorNoDevice || (!error && *count == 0))
        return err_set(ERR_UNSUPPORTED,
                       "this machine has no GPU that may be used (CUDA_VISIBLE_DEVICES?); take "
                       "--device cpu");
    if (error)
        return err_set(ERR_UNSUPPORTED, "the GPUs cannot be used: %s (%s)",
                       cudaGetErrorString(error), cudaGetErrorName(error));
    return 0;
}

static int check_config(const struct backend_config *config)
{
    if (config->precision == PRECISION_FP16)
        return 0;
    return err_set(ERR_UNSUPPORTED,
                   "the cuda backend computes in fp16; take --precision fp16 (with "
                   "fp32 master weights and loss scaling)");
}

static int describe_device(struct backend *backend)
{
    struct cudaDeviceProp properties;
    int code = cuda_check(cudaGetDeviceProperties(&properties, backend->device),
                          "asking for the GPU's properties");
    if (code)
        return code;
    if (properties.major < OLDEST_MAJOR)
        return err_set(ERR_UNSUPPORTED,
                       "GPU %d, %s, is of compute capability %d.%d: cuDNN's batch normalisation in "
                       "fp16 needs 8.0 (A100) or newer",
                       backend->device, properties.name, properties.major, properties.minor);
    backend->major = properties.major;
    size_t version = cudnnGetVersion();
    snprintf(backend->text, sizeof backend->text,
             "cuda, fp16, GPU %d: %.60s (sm_%d%d, %zu MiB), "
             "cuDNN %zu.%zu.%zu",
             backend->device, properties.name, properties.major, properties.minor,
             properties.totalGlobalMem >> 20, version / 10000, version / 100 % 100, version % 100);
    return 0;
}

static int open_libraries(struct backend *backend)
{
    cudaStream_t *const streams[] = {&backend->compute, &backend->turns[0], &backend->turns[1]};
    cudaError_t error = cudaEventCreateWithFlags(&backend->passed, cudaEventDisableTiming);
    for (int i = 0; i < 3 && !error; i++)
        error = cudaStreamCreateWithFlags(streams[i], cudaStreamNonBlocking);
    int code = cuda_check(error, "making a stream");
    if (!code)
        code = cuda_check_dnn(cudnnCreate(&backend->dnn), "opening the library");
    if (!code)
        code = cuda_check_dnn(cudnnSetStream(backend->dnn, backend->compute), "taking a stream");
    if (!code && cublasLtCreate(&backend->lt) != CUBLAS_STATUS_SUCCESS)
        code = err_set(ERR_UNSUPPORTED, "cuBLASLt cannot be opened on GPU %d", backend->device);
    const struct plan_device device = {
        .present = true, .ordinal = backend->device, .workspace_limit = PLAN_WORKSPACE_LIMIT};
    return code ? code : plans_open(&backend->plans, &device);
}

static void cuda_close(struct backend *backend)
{
    if (!backend)
        return;
    cuda_finish(backend);
    plans_close(backend->plans);
    free(backend->tune_path);
    if (backend->lt)
        cublasLtDestroy(backend->lt);
    if (backend->dnn)
        cudnnDestroy(backend->dnn);
    const cudaStream_t streams[] = {backend->turns[0], backend->turns[1], backend->compute};
    for (int i = 0; i < 3; i++)
        if (streams[i])
            cudaStreamDestroy(streams[i]);
    if (backend->passed)
        cudaEventDestroy(backend->passed);
    free(backend);
}

static int cuda_open(struct backend **out, const struct backend_config *config)
{
    *out = NULL;
    int count = 0, code = find_devices(&count);
    if (!code)
        code = check_config(config);
    if (code)
        return code;
    struct backend *backend = calloc(1, sizeof *backend);
    if (!backend)
        return err_set(ERR_NOMEM, "no memory for the cuda backend");
    backend->head.ops = &backend_cuda;
    backend->device = config->device % count; /* ranks of several hosts count on */
    backend->threads = config->threads;
    backend->fusion = config->fusion;
    backend->uncaptured = config->uncaptured;
    backend->latest_turn = -1;
    if (config->tune_path && !(backend->tune_path = strdup(config->tune_path))) {
        cuda_close(backend);
        return err_set(ERR_NOMEM, "no memory for the cuda backend");
    }
    code = cuda_check(cudaSetDevice(backend->device), "taking the GPU");
    if (!code)
        code = describe_device(backend);
    if (!code)
        code = open_libraries(backend);
    if (code) {
        cuda_close(backend);
        return code;
    }
    *out = backend;
    return 0;
}

static const char *cuda_describe(const struct backend *backend)
{
    return backend->text;
}

static void *cuda_host_alloc(struct backend *backend, size_t bytes)
{
    void *memory = NULL;
    if (!cudaHostAlloc(&memory, bytes ? bytes : 64, cudaHostAllocDefault))
        return memory;
    cudaGetLastError(); /* it is told by NULL */
    return NULL;
}

static void cuda_host_free(struct backend *backend, void *memory)
{
    if (memory)
        cudaFreeHost(memory);
}

static void *cuda_queue(struct backend *backend)
{
    return backend->compute;
}

const struct backend_ops backend_cuda = {
    .name = "cuda",
    .device = "cuda",
    .open = cuda_open,
    .close = cuda_close,
    .describe = cuda_describe,
    .host_alloc = cuda_host_alloc,
    .host_free = cuda_host_free,
    .state_open = state_cuda_open,
    .state_close = state_cuda_close,
    .state_set = state_cuda_set,
    .state_get = state_cuda_get,
    .program_open = program_cuda_open,
    .program_close = program_cuda_close,
    .program_bytes = program_cuda_bytes,
    .program_seconds = program_cuda_seconds,
    .profile_start = profile_cuda_start,
    .profile_read = profile_cuda_read,
    .peaks = profile_cuda_peaks,
    .run = pass_cuda_run,
    .step_load = captured_cuda_load,
    .step_run = captured_cuda_run,
    .step_wait = captured_cuda_wait,
    .inputs_read = pass_cuda_inputs_read,
    .logits = pass_cuda_logits,
    .slot_add = state_cuda_slot_add,
    .slot_buckets = state_cuda_buckets,
    .slot_bucket = state_cuda_bucket,
    .slot_get = state_cuda_slot_get,
    .update = state_cuda_update,
    .state_average = state_cuda_average,
    .metrics = state_cuda_metrics,
    .synchronise = cuda_finish,
    .queue = cuda_queue,
};
