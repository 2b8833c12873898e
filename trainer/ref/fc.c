/* SPDX-License-Identifier: Apache-2.0 */
/* The fully connected layer, written to be read. */
#include "trainer/ref/ops.h"

void fc_ref_forward(real *y, const real *x, const real *weight, const real *bias,
                    const struct op *op)
{
    int classes = op->node->out_channels, pitch = pitch_of(classes);
    conv_ref_forward(y, x, weight, op);
    for (int n = 0; n < op->batch; n++)
        for (int k = 0; k < classes; k++)
            y[(size_t)n * pitch + k] += bias[k];
}

void fc_ref_backward_bias(real *dbias, const real *dy, const struct op *op)
{
    int classes = op->node->out_channels, pitch = pitch_of(classes);
    for (int k = 0; k < classes; k++) {
        double sum = 0;
        for (int n = 0; n < op->batch; n++)
            sum += dy[(size_t)n * pitch + k];
        dbias[k] = (real)sum;
    }
}
