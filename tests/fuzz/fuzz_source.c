/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: any bytes as the input of a layout, which is then read as packing reads it. The build
 * says which layout: FUZZ_TAR (the first byte chooses among the kinds of tars), FUZZ_IDX (the first
 * two bytes are the size of the images' file, the rest are the labels'), FUZZ_REC. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "datasets/source.h"

enum { READ_BYTES_MAX = 1 << 20, PATH_BYTES = 64 };

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static int files[2];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    for (int i = 0; i < 2; i++) {
        files[i] = memfd_create("input", 0);
        if (files[i] < 0)
            abort();
    }
    return 0;
}

static void fill(int fd, const uint8_t *data, size_t bytes)
{
    if (ftruncate(fd, 0) != 0 || pwrite(fd, data, bytes, 0) != (ssize_t)bytes)
        abort();
}

static void read_all(const char *layout, const struct source_request *request)
{
    struct source *source;
    struct source_buffer buffer = {0};
    if (source_open(&source, layout, request) != 0)
        return;
    for (size_t i = 0; i < source->list.count; i++) {
        if (source->list.entries[i].label >= source->list.class_count || !source_name(source, i))
            abort();
        if (source->list.entries[i].bytes <= READ_BYTES_MAX)
            source_read(source, i, &buffer);
    }
    source_buffer_free(&buffer);
    source_close(source);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    char path[2][PATH_BYTES];
    const char *inputs[2] = {path[0], path[1]};
    struct source_request request = {.inputs = inputs, .input_count = 1, .out = "/dev/shm/x"};
    for (int i = 0; i < 2; i++)
        snprintf(path[i], PATH_BYTES, "/proc/self/fd/%d", files[i]);
#if defined(FUZZ_TAR)
    static const char *const layouts[] = {"tar", "imagenet-tar", "webdataset"};
    if (bytes < 1)
        return 0;
    fill(files[0], data + 1, bytes - 1);
    read_all(layouts[data[0] % 3], &request);
#elif defined(FUZZ_IDX)
    if (bytes < 2)
        return 0;
    size_t first = data[0] | (size_t)data[1] << 8;
    if (first > bytes - 2)
        return 0;
    fill(files[0], data + 2, first);
    fill(files[1], data + 2 + first, bytes - 2 - first);
    request.input_count = 2;
    request.allow_empty = true; /* as satchel-pack has it */
    read_all("idx", &request);
#else
    fill(files[0], data, bytes);
    read_all("rec", &request);
#endif
    return 0;
}
