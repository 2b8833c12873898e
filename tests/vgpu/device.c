/* SPDX-License-Identifier: Apache-2.0 */
/* What the device is, how failures are told, the lock and the counters. */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/vgpu/memory.h"

enum { LARGEST_MIB = 16384 };

struct vgpu_counts vgpu_count;

static pthread_mutex_t mutex = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

static long number(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text ? strtol(text, NULL, 10) : otherwise;
}

const struct vgpu_device *vgpu_device(void)
{
    static struct vgpu_device device;
    long capability = number("VGPU_CAPABILITY", 90), mib = number("VGPU_MEMORY_MIB", LARGEST_MIB);
    if (mib > LARGEST_MIB)
        mib = LARGEST_MIB;
    device = (struct vgpu_device){.count = (int)number("VGPU_DEVICES", 1),
                                  .major = (int)capability / 10,
                                  .minor = (int)capability % 10,
                                  .driver = (int)number("VGPU_DRIVER", 13000),
                                  .memory_bytes = (size_t)mib << 20};
    return &device;
}

const char *vgpu_running(void)
{
    return vgpu_actor.label ? vgpu_actor.label : "";
}

void vgpu_fail(const char *format, ...)
{
    char message[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(message, sizeof message, format, list);
    va_end(list);
    fflush(stdout);
    if (vgpu_actor.label)
        fprintf(stderr, "vgpu: \"%s\": %s\n", vgpu_actor.label, message);
    else
        fprintf(stderr, "vgpu: %s\n", message);
    abort();
}

void vgpu_lock(void)
{
    pthread_mutex_lock(&mutex);
}

void vgpu_unlock(void)
{
    pthread_mutex_unlock(&mutex);
}

struct vgpu_counts vgpu_counts(void)
{
    vgpu_lock();
    struct vgpu_counts counts = vgpu_count;
    vgpu_unlock();
    return counts;
}

static struct {
    const char *name; /* a literal */
    uint64_t count;
} called[64];

void vgpu_called(const char *name)
{
    size_t i = 0;
    while (called[i].name && strcmp(called[i].name, name) != 0)
        i++;
    if (i == sizeof called / sizeof called[0] - 1)
        vgpu_fail("more entry points are counted than there is room for");
    called[i].name = name;
    called[i].count++;
}

uint64_t vgpu_calls(const char *name)
{
    uint64_t count = 0;
    vgpu_lock();
    for (size_t i = 0; i < sizeof called / sizeof called[0]; i++)
        if (called[i].name && (name ? !strcmp(called[i].name, name) : called[i].name[0] == 'c'))
            count += called[i].count;
    vgpu_unlock();
    return count;
}

void vgpu_calls_reset(void)
{
    vgpu_lock();
    memset(called, 0, sizeof called);
    vgpu_unlock();
}
