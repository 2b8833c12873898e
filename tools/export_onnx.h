/* SPDX-License-Identifier: Apache-2.0 */
/* A network as an ONNX model (opset 13): normalised pixels [batch][channels][S][S] in, logits
 * [batch][classes] out, batch normalisation folded into the convolutions. */
#ifndef TOOLS_EXPORT_ONNX_H
#define TOOLS_EXPORT_ONNX_H

#include "trainer/model/net.h"

struct onnx_property { /* of the model: what its images must be like */
    const char *key, *value;
};

/* Writes path atomically. values[tensor]: the weights and running statistics. ERR_IO, ERR_NOMEM. */
int export_onnx(const char *path, const struct net *net, float *const *values,
                const struct onnx_property *properties, size_t property_count);

#endif
