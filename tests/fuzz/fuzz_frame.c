/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: any bytes as an envelope. What is accepted can be sent again, and says the same the
 * second time. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "proto/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct frame frame, back;
    uint8_t first[FRAME_MAX_BYTES], second[FRAME_MAX_BYTES];
    size_t first_bytes, second_bytes;
    int code = frame_decode(&frame, data, bytes);
    if (code == ERR_PEER)
        return 0;
    if (code || frame_encode(first, &first_bytes, &frame) ||
        frame_decode(&back, first, first_bytes) || frame_encode(second, &second_bytes, &back))
        abort();
    if (first_bytes != second_bytes || memcmp(first, second, first_bytes) != 0)
        abort();
    return 0;
}
