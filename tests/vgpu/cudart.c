/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA runtime's entry points. What would be undefined or silently wrong on a device aborts;
 * what a program may run into without a fault of its own (no device, no memory) is returned. */
#include <cuda_runtime_api.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/vgpu/stream.h"

static _Thread_local cudaError_t latest;

/* Returns the code and keeps it for cudaGetLastError. */
static cudaError_t give(cudaError_t code)
{
    if (code != cudaSuccess)
        latest = code;
    return code;
}

static void enter(const char *call)
{
    vgpu_lock();
    vgpu_called(call);
}

/* What does not go to a stream, or waits: a capture does not see it. */
static void enter_unsafe(const char *call)
{
    enter(call);
    vgpu_graph_forbid(call);
}

static cudaError_t leave(cudaError_t code)
{
    vgpu_unlock();
    return give(code);
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t code = latest;
    latest = cudaSuccess;
    return code;
}

cudaError_t cudaPeekAtLastError(void)
{
    return latest;
}

const char *cudaGetErrorName(cudaError_t error)
{
    switch ((int)error) {
    case cudaSuccess:
        return "cudaSuccess";
    case cudaErrorMemoryAllocation:
        return "cudaErrorMemoryAllocation";
    case cudaErrorNoDevice:
        return "cudaErrorNoDevice";
    case cudaErrorInsufficientDriver:
        return "cudaErrorInsufficientDriver";
    case cudaErrorInvalidDevice:
        return "cudaErrorInvalidDevice";
    case cudaErrorNotReady:
        return "cudaErrorNotReady";
    default:
        return "cudaErrorUnknown";
    }
}

const char *cudaGetErrorString(cudaError_t error)
{
    switch ((int)error) {
    case cudaSuccess:
        return "no error";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorNoDevice:
        return "no CUDA-capable device is detected";
    case cudaErrorInsufficientDriver:
        return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorInvalidDevice:
        return "invalid device ordinal";
    case cudaErrorNotReady:
        return "device not ready";
    default:
        return "unknown error";
    }
}

/* Devices. */
cudaError_t cudaDriverGetVersion(int *version)
{
    *version = vgpu_device()->count ? vgpu_device()->driver : 0;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    const struct vgpu_device *device = vgpu_device();
    *count = 0;
    if (device->driver / 1000 < CUDART_VERSION / 1000)
        return give(cudaErrorInsufficientDriver);
    *count = device->count;
    return give(device->count ? cudaSuccess : cudaErrorNoDevice);
}

static cudaError_t check_device(int device)
{
    int count;
    cudaError_t code = cudaGetDeviceCount(&count);
    if (code != cudaSuccess)
        return code;
    return give(device >= 0 && device < count ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaSetDevice(int device)
{
    if (device > 0 && check_device(device) == cudaSuccess)
        vgpu_fail("the double runs one device, number 0");
    return check_device(device);
}

cudaError_t cudaGetDevice(int *device)
{
    *device = 0;
    return check_device(0);
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device)
{
    cudaError_t code = check_device(device);
    if (code != cudaSuccess)
        return code;
    memset(properties, 0, sizeof *properties);
    snprintf(properties->name, sizeof properties->name, "Satchel test double");
    properties->major = vgpu_device()->major;
    properties->minor = vgpu_device()->minor;
    properties->totalGlobalMem = vgpu_device()->memory_bytes;
    properties->multiProcessorCount = 4;
    properties->warpSize = 32;
    properties->maxThreadsPerBlock = 1024;
    properties->maxThreadsPerMultiProcessor = 2048;
    properties->sharedMemPerBlock = 48 << 10;
    properties->regsPerBlock = 65536;
    properties->maxThreadsDim[0] = properties->maxThreadsDim[1] = 1024;
    properties->maxThreadsDim[2] = 64;
    properties->maxGridSize[0] = 2147483647;
    properties->maxGridSize[1] = properties->maxGridSize[2] = 65535;
    properties->l2CacheSize = 50 << 20;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device)
{
    struct cudaDeviceProp properties;
    cudaError_t code = cudaGetDeviceProperties(&properties, device);
    if (code != cudaSuccess)
        return code;
    if (attribute == cudaDevAttrMultiProcessorCount)
        *value = properties.multiProcessorCount;
    else if (attribute == cudaDevAttrComputeCapabilityMajor)
        *value = properties.major;
    else if (attribute == cudaDevAttrComputeCapabilityMinor)
        *value = properties.minor;
    else
        vgpu_fail("cudaDeviceGetAttribute(%d): the double does not know it", (int)attribute);
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void)
{
    enter_unsafe("cudaDeviceSynchronize");
    vgpu_stream_finish_all();
    return leave(cudaSuccess);
}

/* Memory. */
cudaError_t cudaMemGetInfo(size_t *left, size_t *total)
{
    enter("cudaMemGetInfo");
    *left = vgpu_memory_left();
    *total = vgpu_device()->memory_bytes;
    return leave(cudaSuccess);
}

cudaError_t cudaMalloc(void **memory, size_t bytes)
{
    enter_unsafe("cudaMalloc");
    if (bytes == 0)
        vgpu_fail("cudaMalloc of no bytes");
    *memory = vgpu_memory_alloc(bytes);
    return leave(*memory ? cudaSuccess : cudaErrorMemoryAllocation);
}

cudaError_t cudaFree(void *memory)
{
    enter_unsafe("cudaFree");
    vgpu_stream_finish_all(); /* as the runtime does */
    if (memory)
        vgpu_memory_free(memory);
    return leave(cudaSuccess);
}

cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned flags)
{
    enter_unsafe("cudaHostAlloc");
    *memory = vgpu_pinned_alloc(bytes);
    return leave(*memory ? cudaSuccess : cudaErrorMemoryAllocation);
}

cudaError_t cudaMallocHost(void **memory, size_t bytes)
{
    return cudaHostAlloc(memory, bytes, cudaHostAllocDefault);
}

cudaError_t cudaFreeHost(void *memory)
{
    enter_unsafe("cudaFreeHost");
    vgpu_stream_finish_all();
    if (memory)
        vgpu_pinned_free(memory);
    return leave(cudaSuccess);
}

struct copy {
    void *dst;
    const void *src;
    void *staged; /* pageable memory is read at the call */
    size_t bytes;
    int value; /* memset */
};

static void run_copy(void *payload)
{
    const struct copy *copy = payload;
    const void *src = copy->staged ? copy->staged : copy->src;
    void *dst = copy->dst;
    if (vgpu_is_device(src))
        src = vgpu_reach(src, copy->bytes, VGPU_READ, "the source");
    if (vgpu_is_device(dst))
        dst = vgpu_reach(dst, copy->bytes, VGPU_WRITE, "the destination");
    memcpy(dst, src, copy->bytes);
    vgpu_count.copies++;
}

static void run_set(void *payload)
{
    const struct copy *copy = payload;
    memset(vgpu_reach(copy->dst, copy->bytes, VGPU_WRITE, "the destination"), copy->value,
           copy->bytes);
}

static void drop_copy(void *payload)
{
    struct copy *copy = payload;
    free(copy->staged);
    free(copy);
}

static struct copy *new_copy(void *dst, const void *src, size_t bytes)
{
    struct copy *copy = calloc(1, sizeof *copy);
    if (!copy)
        vgpu_fail("no memory");
    *copy = (struct copy){.dst = dst, .src = src, .bytes = bytes};
    return copy;
}

static const char *check_kind(const void *dst, const void *src, enum cudaMemcpyKind kind)
{
    static const char *const names[] = {"host to host", "host to device", "device to host",
                                        "device to device"};
    int is = (vgpu_is_device(src) ? 2 : 0) + (vgpu_is_device(dst) ? 1 : 0);
    if (kind != cudaMemcpyDefault && (int)kind != is)
        vgpu_fail("cudaMemcpy \"%s\" is told of pointers that are %s",
                  (unsigned)kind < 4 ? names[kind] : "?", names[is]);
    return names[is];
}

static struct vgpu_task *copy_task(void *dst, const void *src, size_t bytes,
                                   enum cudaMemcpyKind kind, bool stage)
{
    const char *name = check_kind(dst, src, kind);
    struct copy *copy = new_copy(dst, src, bytes);
    if (stage && !vgpu_is_device(src) && !vgpu_is_pinned(src, bytes)) {
        if (!(copy->staged = malloc(bytes ? bytes : 1)))
            vgpu_fail("no memory");
        memcpy(copy->staged, src, bytes);
    }
    return vgpu_task(run_copy, drop_copy, copy, "copy of %zu bytes, %s", bytes, name);
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t handle)
{
    enter("cudaMemcpyAsync");
    struct vgpu_stream *stream = vgpu_stream_of(handle);
    bool to_host = !vgpu_is_device(dst), captured = vgpu_graph_capturing(stream);
    if (captured && (to_host ? !vgpu_is_pinned(dst, bytes)
                             : !vgpu_is_device(src) && !vgpu_is_pinned(src, bytes)))
        vgpu_fail("a copy of pageable memory is captured: the graph reaches for it when it runs");
    if (to_host && !captured && vgpu_is_pinned(dst, bytes))
        memset(dst, 0xff, bytes); /* whoever reads it before the copy is done sees that */
    vgpu_enqueue(stream, copy_task(dst, src, bytes, kind, true));
    if (to_host && !vgpu_is_pinned(dst, bytes))
        vgpu_stream_finish(stream); /* pageable: the call waits */
    return leave(cudaSuccess);
}

cudaError_t cudaMemcpy(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind)
{
    enter_unsafe("cudaMemcpy");
    /* From pageable memory the call may return before the device has the bytes. */
    bool waits = vgpu_is_device(src) ? !vgpu_is_device(dst) : vgpu_is_pinned(src, bytes);
    vgpu_stream_run_default(copy_task(dst, src, bytes, kind, false), waits);
    return leave(cudaSuccess);
}

static struct vgpu_task *set_task(void *dst, int value, size_t bytes)
{
    struct copy *copy = new_copy(dst, NULL, bytes);
    copy->value = value;
    return vgpu_task(run_set, drop_copy, copy, "memset of %zu bytes to %d", bytes, value);
}

cudaError_t cudaMemsetAsync(void *dst, int value, size_t bytes, cudaStream_t stream)
{
    enter("cudaMemsetAsync");
    vgpu_enqueue(vgpu_stream_of(stream), set_task(dst, value, bytes));
    return leave(cudaSuccess);
}

cudaError_t cudaMemset(void *dst, int value, size_t bytes)
{
    enter_unsafe("cudaMemset");
    vgpu_stream_run_default(set_task(dst, value, bytes), false);
    return leave(cudaSuccess);
}

/* Streams and events. */
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    enter("cudaStreamCreateWithFlags");
    *stream = (cudaStream_t)vgpu_stream_create(flags != cudaStreamNonBlocking);
    return leave(cudaSuccess);
}

cudaError_t cudaStreamCreate(cudaStream_t *stream)
{
    return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority)
{
    return cudaStreamCreateWithFlags(stream, flags);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    enter("cudaStreamDestroy");
    vgpu_stream_destroy(vgpu_stream_of(stream));
    return leave(cudaSuccess);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    enter_unsafe("cudaStreamSynchronize");
    vgpu_stream_wait(vgpu_stream_of(stream));
    return leave(cudaSuccess);
}

/* Says "not ready" once and does the work then, so that a loop that polls ends. */
cudaError_t cudaStreamQuery(cudaStream_t handle)
{
    enter_unsafe("cudaStreamQuery");
    struct vgpu_stream *stream = vgpu_stream_of(handle);
    bool idle = vgpu_stream_idle(stream);
    vgpu_stream_finish(stream);
    vgpu_unlock();
    return idle ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    enter("cudaStreamWaitEvent");
    vgpu_event_wait(vgpu_stream_of(stream), (struct vgpu_event *)event);
    return leave(cudaSuccess);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    enter("cudaEventCreateWithFlags");
    *event = (cudaEvent_t)vgpu_event_create(!(flags & cudaEventDisableTiming));
    return leave(cudaSuccess);
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    enter("cudaEventDestroy");
    vgpu_event_destroy((struct vgpu_event *)event);
    return leave(cudaSuccess);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    enter("cudaEventRecord");
    vgpu_event_record((struct vgpu_event *)event, vgpu_stream_of(stream));
    return leave(cudaSuccess);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    enter_unsafe("cudaEventSynchronize");
    vgpu_event_finish((struct vgpu_event *)event);
    return leave(cudaSuccess);
}

cudaError_t cudaEventQuery(cudaEvent_t handle)
{
    enter_unsafe("cudaEventQuery");
    struct vgpu_event *event = (struct vgpu_event *)handle;
    bool done = vgpu_event_done(event);
    vgpu_event_finish(event);
    vgpu_unlock();
    return done ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end)
{
    enter("cudaEventElapsedTime");
    if (!vgpu_event_timed((struct vgpu_event *)start) ||
        !vgpu_event_timed((struct vgpu_event *)end))
        vgpu_fail("cudaEventElapsedTime of events made without timing");
    bool done =
        vgpu_event_done((struct vgpu_event *)start) && vgpu_event_done((struct vgpu_event *)end);
    *ms = 1.0f;
    return leave(done ? cudaSuccess : cudaErrorNotReady);
}

/* Graphs. */
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    enter("cudaStreamBeginCapture");
    vgpu_graph_begin(vgpu_stream_of(stream), (int)mode);
    return leave(cudaSuccess);
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    enter("cudaStreamEndCapture");
    *graph = (cudaGraph_t)vgpu_graph_end(vgpu_stream_of(stream));
    return leave(*graph ? cudaSuccess : cudaErrorStreamCaptureInvalidated);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags)
{
    enter("cudaGraphInstantiate");
    *exec = (cudaGraphExec_t)vgpu_graph_instantiate((struct vgpu_graph *)graph);
    return leave(cudaSuccess);
}

/* Only how many there are. */
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count)
{
    enter("cudaGraphGetNodes");
    if (nodes)
        vgpu_fail("cudaGraphGetNodes: the double counts nodes and does not give them");
    *count = vgpu_graph_nodes((struct vgpu_graph *)graph);
    return leave(cudaSuccess);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    enter("cudaGraphLaunch");
    vgpu_graph_launch((struct vgpu_graph *)exec, vgpu_stream_of(stream));
    return leave(cudaSuccess);
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    enter("cudaGraphDestroy");
    vgpu_graph_destroy((struct vgpu_graph *)graph);
    return leave(cudaSuccess);
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    enter("cudaGraphExecDestroy");
    vgpu_graph_destroy((struct vgpu_graph *)exec);
    return leave(cudaSuccess);
}
