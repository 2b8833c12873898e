/* SPDX-License-Identifier: Apache-2.0 */
/* What the double's own tests share: deaths, and graphs in few words. */
#ifndef TESTS_VGPU_TESTING_H
#define TESTS_VGPU_TESTING_H

#include <math.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <cuda_runtime_api.h>

#include "tests/unit/testing.h"
#include "tests/vgpu/vgpu.h"

/* Runs body in a process of its own, which must abort and say what is expected. */
static inline void testing_dies(void (*body)(void), const char *expected)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
#ifdef _OPENMP
        omp_set_num_threads(1); /* the others stayed in the parent */
#endif
        body();
        _exit(0);
    }
    close(ends[1]);
    char said[4096];
    size_t count = 0;
    for (ssize_t got; count < sizeof said - 1 &&
                      (got = read(ends[0], said + count, sizeof said - 1 - count)) > 0;)
        count += (size_t)got;
    said[count] = '\0';
    close(ends[0]);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT || !strstr(said, expected)) {
        print_message("expected an abort that says \"%s\"; status %x, said: %s\n", expected, status,
                      said);
        fail();
    }
}

static inline cudaStream_t testing_stream(void)
{
    cudaStream_t stream = NULL;
    assert_int_equal(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
    return stream;
}

static inline void *testing_device(size_t bytes)
{
    void *memory = NULL;
    assert_int_equal(cudaMalloc(&memory, bytes), cudaSuccess);
    return memory;
}

/* Device memory with that content. */
static inline void *testing_upload(const void *src, size_t bytes, cudaStream_t stream)
{
    void *memory = testing_device(bytes);
    assert_int_equal(cudaMemcpyAsync(memory, src, bytes, cudaMemcpyHostToDevice, stream),
                     cudaSuccess);
    return memory;
}

static inline void testing_download(void *dst, const void *device, size_t bytes,
                                    cudaStream_t stream)
{
    assert_int_equal(cudaMemcpyAsync(dst, device, bytes, cudaMemcpyDeviceToHost, stream),
                     cudaSuccess);
    assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
}

#endif
