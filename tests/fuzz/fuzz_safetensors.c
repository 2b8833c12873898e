/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: any bytes as a file of weights, taken for whatever network its tensors suggest. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "trainer/model_file.h"

enum { ELEMENTS_MAX = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void read_all(const struct safetensors *file)
{
    for (size_t i = 0; i < safetensors_count(file); i++) {
        const struct safetensors_tensor *tensor = safetensors_at(file, i);
        if (tensor->count > ELEMENTS_MAX)
            continue;
        float *values = malloc((tensor->count ? tensor->count : 1) * sizeof *values);
        if (values)
            (void)safetensors_read(values, file, tensor);
        free(values);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    char path[64];
    struct model_file file;
    int fd = memfd_create("weights", 0);
    if (fd < 0 || write(fd, data, bytes) != (ssize_t)bytes)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    struct safetensors *plain;
    if (safetensors_open(&plain, path) == 0)
        read_all(plain);
    safetensors_close(plain);
    struct net *net;
    if (model_file_open(&file, path, NULL) == 0) {
        if (net_open(&net, file.model, 64, file.channels, file.classes) == 0)
            net_close(net);
        model_file_close(&file);
    }
    close(fd);
    return 0;
}
