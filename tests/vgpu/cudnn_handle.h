/* SPDX-License-Identifier: Apache-2.0 */
/* What a cuDNN handle of the double holds. */
#ifndef TESTS_VGPU_CUDNN_HANDLE_H
#define TESTS_VGPU_CUDNN_HANDLE_H

#include <cudnn.h>

#include "tests/vgpu/stream.h"

struct cudnnContext {
    unsigned magic;
    cudaStream_t stream;
};

struct vgpu_stream *vgpu_handle_stream(cudnnHandle_t handle); /* aborts on what is no handle */

#endif
