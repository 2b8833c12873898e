/* SPDX-License-Identifier: Apache-2.0 */
/* A store of any number of small raw records, as large ones are in count: for start-up and memory.
 *   synthetic OUT.lmdb SAMPLES CLASSES */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "datasets/store.h"

enum { SIDE_PX = 8, IMAGE_BYTES = 3 * SIDE_PX * SIDE_PX, ID_BYTES = 16 };

static int add_all(struct store_writer *writer, uint32_t samples, uint32_t classes)
{
    uint8_t image[IMAGE_BYTES];
    int code = 0;
    for (uint32_t i = 0; !code && i < samples; i++) {
        memset(image, (int)i, sizeof image);
        const struct store_sample sample = {
            .label = (uint32_t)((uint64_t)i * classes / samples),
            .width = SIDE_PX,
            .height = SIDE_PX,
            .channels = 3,
            .encoding = STORE_RAW,
            .image = image,
            .image_bytes = sizeof image,
        };
        code = store_writer_add(writer, &sample);
    }
    return code;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    uint32_t samples = (uint32_t)atoi(argv[2]), classes = (uint32_t)atoi(argv[3]);
    struct store_writer *writer;
    const char **ids = calloc(classes, sizeof *ids);
    char *text = calloc(classes, ID_BYTES);
    if (!ids || !text || classes == 0 || samples < classes)
        return 2;
    for (uint32_t i = 0; i < classes; i++) {
        snprintf(text + i * ID_BYTES, ID_BYTES, "n%08" PRIu32, i);
        ids[i] = text + i * ID_BYTES;
    }
    const struct store_meta meta = {
        .class_count = classes, .class_ids = ids, .channels = 3, .encoding = STORE_RAW};
    int code = store_writer_open(&writer, argv[1], 1);
    if (!code)
        code = add_all(writer, samples, classes);
    if (!code)
        code = store_writer_publish(writer, &meta, NULL);
    if (code)
        fprintf(stderr, "synthetic: %s\n", err_message());
    free(ids);
    free(text);
    return err_exit_status(code);
}
