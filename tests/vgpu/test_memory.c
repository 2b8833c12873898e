/* SPDX-License-Identifier: Apache-2.0 */
/* Memory, streams, events and captured graphs of the double, and what it refuses. */
#include "tests/vgpu/testing.h"

enum { BYTES = 1000 };

static char pageable[BYTES];

static void test_copies(void **state)
{
    cudaStream_t stream = testing_stream();
    char back[BYTES];
    for (int i = 0; i < BYTES; i++)
        pageable[i] = (char)(i * 7);
    void *a = testing_upload(pageable, BYTES, stream), *b = testing_device(BYTES);
    assert_int_equal((uintptr_t)a % 256, 0);
    cudaMemcpyAsync(b, a, BYTES, cudaMemcpyDeviceToDevice, stream);
    cudaMemsetAsync(a, 3, 10, stream);
    testing_download(back, b, BYTES, stream);
    assert_memory_equal(back, pageable, BYTES);
    testing_download(back, a, BYTES, stream);
    assert_int_equal(back[9], 3);
    assert_int_equal(back[10], pageable[10]);
    size_t before = vgpu_counts().live_bytes;
    cudaFree(a);
    assert_int_equal(before - vgpu_counts().live_bytes, BYTES);
    cudaFree(b);
    cudaStreamDestroy(stream);
}

/* Pinned memory is read when the stream gets there, and written not before it. */
static void test_late(void **state)
{
    cudaStream_t stream = testing_stream();
    char *pinned = NULL;
    assert_int_equal(cudaHostAlloc((void **)&pinned, 16, 0), cudaSuccess);
    void *device = testing_device(16);
    memset(pinned, 1, 16);
    cudaMemcpyAsync(device, pinned, 16, cudaMemcpyHostToDevice, stream);
    memset(pinned, 2, 16); /* too early */
    cudaStreamSynchronize(stream);
    memset(pinned, 0, 16);
    cudaMemcpyAsync(pinned, device, 16, cudaMemcpyDeviceToHost, stream);
    assert_int_not_equal(pinned[0], 2);
    cudaStreamSynchronize(stream);
    assert_int_equal(pinned[0], 2);
    assert_int_equal(cudaMemcpyAsync(device, pinned, 16, cudaMemcpyHostToDevice, stream), 0);
    assert_int_equal(cudaStreamQuery(stream), cudaErrorNotReady);
    assert_int_equal(cudaStreamQuery(stream), cudaSuccess);
    cudaFree(device);
    cudaFreeHost(pinned);
    cudaStreamDestroy(stream);
}

static void test_out_of_memory(void **state)
{
    void *memory = NULL;
    size_t left = 0, total = 0;
    assert_int_equal(cudaMemGetInfo(&left, &total), cudaSuccess);
    assert_int_equal(cudaMalloc(&memory, left + 1), cudaErrorMemoryAllocation);
    assert_int_equal(cudaGetLastError(), cudaErrorMemoryAllocation);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
}

/* Events order: writer on one stream, reader on another, and back. */
static void exchange(bool forth, bool back)
{
    cudaStream_t a = testing_stream(), b = testing_stream();
    cudaEvent_t written, read;
    cudaEventCreateWithFlags(&written, cudaEventDisableTiming);
    cudaEventCreateWithFlags(&read, cudaEventDisableTiming);
    void *from = testing_device(64), *to = testing_device(64);
    cudaMemsetAsync(from, 0, 64, a);
    cudaDeviceSynchronize();
    cudaMemsetAsync(from, 1, 64, a);
    cudaEventRecord(written, a);
    if (forth)
        cudaStreamWaitEvent(b, written, 0);
    cudaMemcpyAsync(to, from, 64, cudaMemcpyDeviceToDevice, b);
    cudaEventRecord(read, b);
    if (back)
        cudaStreamWaitEvent(a, read, 0);
    cudaMemsetAsync(from, 2, 64, a);
    char value = 0;
    testing_download(&value, to, 1, b);
    if (forth && back)
        assert_int_equal(value, 1);
    cudaDeviceSynchronize();
    cudaEventDestroy(written);
    cudaEventDestroy(read);
    cudaFree(from);
    cudaFree(to);
    cudaStreamDestroy(a);
    cudaStreamDestroy(b);
}

static void test_events(void **state)
{
    exchange(true, true);
}

static void without_forth(void)
{
    exchange(false, true);
}

static void without_back(void)
{
    exchange(true, false);
}

static void after_host_wait(void)
{
    cudaStream_t a = testing_stream(), b = testing_stream();
    void *memory = testing_device(64);
    cudaMemsetAsync(memory, 1, 64, a);
    cudaStreamSynchronize(a);
    cudaMemsetAsync(memory, 1, 64, b); /* ordered by the host */
    cudaStreamSynchronize(b);
    cudaMemsetAsync(memory, 1, 64, a);
    cudaMemsetAsync(memory, 1, 64, b); /* not ordered */
    cudaDeviceSynchronize();
}

static void test_races(void **state)
{
    testing_dies(without_forth, "no event or synchronisation");
    testing_dies(without_back, "no event or synchronisation");
    testing_dies(after_host_wait, "no event or synchronisation");
}

static void read_unwritten(void)
{
    cudaStream_t stream = testing_stream();
    char value[64];
    void *memory = testing_device(64);
    cudaMemsetAsync(memory, 0, 63, stream);
    testing_download(value, memory, 64, stream);
}

static void write_outside(void)
{
    cudaMemset(testing_device(64), 0, 65);
}

static void read_freed(void)
{
    cudaStream_t stream = testing_stream();
    char value[64];
    void *memory = testing_device(64);
    cudaMemset(memory, 0, 64);
    cudaDeviceSynchronize();
    cudaFree(memory);
    testing_download(value, memory, 64, stream);
}

static void free_twice(void)
{
    void *memory = testing_device(64);
    cudaFree(memory);
    cudaFree(memory);
}

static void follow_on_host(void)
{
    volatile char *memory = testing_device(64);
    *memory = 1;
}

static void copy_backwards(void)
{
    void *memory = testing_device(64);
    cudaMemcpy(memory, pageable, 64, cudaMemcpyDeviceToHost);
}

/* cudaMemcpy from pageable memory does not promise that the device has it when it returns. */
static void trust_a_pageable_copy(void)
{
    cudaStream_t stream = testing_stream();
    void *memory = testing_device(64);
    cudaMemcpy(memory, pageable, 64, cudaMemcpyHostToDevice);
    cudaMemsetAsync(memory, 0, 64, stream);
    cudaDeviceSynchronize();
}

static void use_a_destroyed_stream(void)
{
    cudaStream_t stream = testing_stream();
    cudaStreamDestroy(stream);
    cudaStreamSynchronize(stream);
}

static void test_deaths(void **state)
{
    testing_dies(read_unwritten, "reads byte 63 of the source");
    testing_dies(write_outside, "outside of living memory");
    testing_dies(read_freed, "(freed)");
    testing_dies(free_twice, "a second time");
    testing_dies(follow_on_host, "host code touched device memory");
    testing_dies(copy_backwards, "is told of pointers that are host to device");
    testing_dies(trust_a_pageable_copy, "no event or synchronisation");
    testing_dies(use_a_destroyed_stream, "was destroyed");
}

/* a: x = 5, fork to b: y = x, join: z = y; launched twice. */
static cudaGraphExec_t capture(void *x, void *y, void *z, cudaStream_t a, bool joined)
{
    cudaStream_t b = testing_stream();
    cudaEvent_t fork_event, join_event;
    cudaEventCreateWithFlags(&fork_event, cudaEventDisableTiming);
    cudaEventCreateWithFlags(&join_event, cudaEventDisableTiming);
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaStreamBeginCapture(a, cudaStreamCaptureModeThreadLocal);
    cudaMemsetAsync(x, 5, 64, a);
    cudaEventRecord(fork_event, a);
    cudaStreamWaitEvent(b, fork_event, 0);
    cudaMemcpyAsync(y, x, 64, cudaMemcpyDeviceToDevice, b);
    cudaEventRecord(join_event, b);
    if (joined)
        cudaStreamWaitEvent(a, join_event, 0);
    cudaMemcpyAsync(z, y, 64, cudaMemcpyDeviceToDevice, a);
    cudaStreamEndCapture(a, &graph);
    cudaGraphInstantiate(&exec, graph, 0);
    cudaGraphDestroy(graph);
    cudaEventDestroy(fork_event);
    cudaEventDestroy(join_event);
    cudaStreamDestroy(b);
    return exec;
}

static void test_graph(void **state)
{
    cudaStream_t a = testing_stream();
    void *x = testing_device(64), *y = testing_device(64), *z = testing_device(64);
    cudaGraphExec_t exec = capture(x, y, z, a, true);
    char value = 0;
    for (int i = 0; i < 2; i++) {
        cudaMemsetAsync(z, 0, 64, a);
        cudaMemsetAsync(y, 0, 64, a);
        cudaGraphLaunch(exec, a);
        testing_download(&value, z, 1, a);
        assert_int_equal(value, 5);
    }
    cudaGraphExecDestroy(exec);
    cudaFree(x);
    cudaFree(y);
    cudaFree(z);
    cudaStreamDestroy(a);
}

/* Each launch of a graph is behind the one before, on whatever stream that was; other work is not.
 */
static void launch_in_turn(bool graph_only)
{
    cudaStream_t a = testing_stream(), b = testing_stream();
    void *x = testing_device(64), *y = testing_device(64), *z = testing_device(64);
    cudaGraphExec_t exec = capture(x, y, z, a, true);
    char value = 0;
    for (int i = 0; i < 4; i++)
        cudaGraphLaunch(exec, i % 2 ? b : a);
    if (!graph_only)
        cudaMemsetAsync(z, 0, 64, a); /* the last launch is on b */
    testing_download(&value, z, 1, b);
    assert_int_equal(value, 5);
    cudaDeviceSynchronize();
    cudaGraphExecDestroy(exec);
    cudaFree(x);
    cudaFree(y);
    cudaFree(z);
    cudaStreamDestroy(a);
    cudaStreamDestroy(b);
}

static void test_graph_in_turn(void **state)
{
    launch_in_turn(true);
}

static void work_beside_a_graph(void)
{
    launch_in_turn(false);
}

static void capture_without_join(void)
{
    capture(testing_device(64), testing_device(64), testing_device(64), testing_stream(), false);
}

/* What a capture of this thread refuses, each in a process of its own. */
static struct {
    cudaStream_t stream, other;
    cudaEvent_t event, before;
    void *device, *pinned;
} in;

static void begin_capture(void)
{
    in.stream = testing_stream();
    in.other = testing_stream();
    cudaEventCreate(&in.event);
    cudaEventCreate(&in.before);
    cudaEventRecord(in.before, in.other);
    in.device = testing_device(64);
    assert_int_equal(cudaHostAlloc(&in.pinned, 64, 0), cudaSuccess);
    cudaStreamBeginCapture(in.stream, cudaStreamCaptureModeThreadLocal);
}

static void synchronise_stream(void)
{
    begin_capture();
    cudaStreamSynchronize(in.stream);
}

static void synchronise_another_stream(void)
{
    begin_capture();
    cudaStreamSynchronize(in.other);
}

static void synchronise_device(void)
{
    begin_capture();
    cudaDeviceSynchronize();
}

static void synchronise_event(void)
{
    begin_capture();
    cudaEventSynchronize(in.before);
}

static void ask_event(void)
{
    begin_capture();
    cudaEventQuery(in.before);
}

static void ask_stream(void)
{
    begin_capture();
    cudaStreamQuery(in.other);
}

static void allocate(void)
{
    void *more = NULL;
    begin_capture();
    cudaMalloc(&more, 64);
}

static void release(void)
{
    begin_capture();
    cudaFree(in.device);
}

static void allocate_pinned(void)
{
    void *more = NULL;
    begin_capture();
    cudaHostAlloc(&more, 64, 0);
}

static void release_pinned(void)
{
    begin_capture();
    cudaFreeHost(in.pinned);
}

static void copy_at_once(void)
{
    begin_capture();
    cudaMemcpy(in.device, in.pinned, 64, cudaMemcpyHostToDevice);
}

static void set_at_once(void)
{
    begin_capture();
    cudaMemset(in.device, 0, 64);
}

static void copy_pageable(void)
{
    begin_capture();
    cudaMemcpyAsync(in.device, pageable, 64, cudaMemcpyHostToDevice, in.stream);
}

static void use_the_default_stream(void)
{
    begin_capture();
    cudaMemsetAsync(in.device, 0, 64, NULL);
}

static void wait_for_what_was_before(void)
{
    begin_capture();
    cudaStreamWaitEvent(in.stream, in.before, 0);
}

static void wait_for_a_captured_event(void)
{
    cudaGraph_t graph;
    begin_capture();
    cudaEventRecord(in.event, in.stream);
    cudaStreamEndCapture(in.stream, &graph);
    cudaStreamWaitEvent(in.other, in.event, 0);
}

static void begin_twice(void)
{
    begin_capture();
    cudaStreamBeginCapture(in.stream, cudaStreamCaptureModeThreadLocal);
}

static void end_by_another_stream(void)
{
    cudaGraph_t graph;
    begin_capture();
    cudaEventRecord(in.event, in.stream);
    cudaStreamWaitEvent(in.other, in.event, 0);
    cudaStreamEndCapture(in.other, &graph);
}

static void destroy_stream(void)
{
    begin_capture();
    cudaStreamDestroy(in.stream);
}

static void test_graph_deaths(void **state)
{
    static const struct {
        void (*body)(void);
        const char *expected;
    } refused[] = {
        {capture_without_join, "never joined"},
        {synchronise_stream, "cudaStreamSynchronize while a stream is being captured"},
        {synchronise_another_stream, "cudaStreamSynchronize while a stream is being captured"},
        {synchronise_device, "cudaDeviceSynchronize while a stream is being captured"},
        {synchronise_event, "cudaEventSynchronize while a stream is being captured"},
        {ask_event, "cudaEventQuery while a stream is being captured"},
        {ask_stream, "cudaStreamQuery while a stream is being captured"},
        {allocate, "cudaMalloc while a stream is being captured"},
        {release, "cudaFree while a stream is being captured"},
        {allocate_pinned, "cudaHostAlloc while a stream is being captured"},
        {release_pinned, "cudaFreeHost while a stream is being captured"},
        {copy_at_once, "cudaMemcpy while a stream is being captured"},
        {set_at_once, "cudaMemset while a stream is being captured"},
        {copy_pageable, "a copy of pageable memory is captured"},
        {use_the_default_stream, "default stream while a stream is being captured"},
        {wait_for_what_was_before, "recorded outside of the capture"},
        {wait_for_a_captured_event, "in a capture, which is over"},
        {begin_twice, "on a stream that is being captured"},
        {end_by_another_stream, "whose capture it did not begin"},
        {destroy_stream, "of a stream that is being captured"},
        {work_beside_a_graph, "no event or synchronisation"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        testing_dies(refused[i].body, refused[i].expected);
}

static void test_devices(void **state)
{
    int count = -1;
    setenv("VGPU_DEVICES", "0", 1);
    assert_int_equal(cudaGetDeviceCount(&count), cudaErrorNoDevice);
    setenv("VGPU_DEVICES", "1", 1);
    setenv("VGPU_DRIVER", "12040", 1);
    assert_int_equal(cudaGetDeviceCount(&count), cudaErrorInsufficientDriver);
    unsetenv("VGPU_DRIVER");
    setenv("VGPU_CAPABILITY", "75", 1);
    struct cudaDeviceProp properties;
    assert_int_equal(cudaGetDeviceProperties(&properties, 0), cudaSuccess);
    assert_int_equal(properties.major * 10 + properties.minor, 75);
    unsetenv("VGPU_CAPABILITY");
    cudaGetLastError();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copies),        cmocka_unit_test(test_late),
        cmocka_unit_test(test_out_of_memory), cmocka_unit_test(test_events),
        cmocka_unit_test(test_races),         cmocka_unit_test(test_deaths),
        cmocka_unit_test(test_graph),         cmocka_unit_test(test_graph_in_turn),
        cmocka_unit_test(test_graph_deaths),  cmocka_unit_test(test_devices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
