/* SPDX-License-Identifier: Apache-2.0 */
/* All that is used of oneDNN (2.6's C API, which version 3 changed): convolutions on blocked maps,
 * their weights' layouts, and matrix products. Only primitives.c knows the library. */
#ifndef TRAINER_DNNL_PRIMITIVES_H
#define TRAINER_DNNL_PRIMITIVES_H

#include <stdbool.h>
#include <stddef.h>

struct engine;

/* ERR_UNSUPPORTED: the library cannot run here. close accepts NULL. */
int engine_open(struct engine **out);
void engine_close(struct engine *engine);
const char *engine_version(void); /* "2.6.3" */
bool engine_has_avx512(void);     /* what the library will use: DNNL_MAX_CPU_ISA counts */
bool engine_has_avx2(void);
bool engine_has_avx512_bf16(void);

enum conv_pass { CONV_FORWARD, CONV_BACKWARD_DATA, CONV_BACKWARD_WEIGHTS };

struct conv_shape {
    int batch, in_channels, in_height, in_width, out_channels, out_height, out_width;
    int kernel, stride, pad;
    /* Maps are [batch][blocks][height][width][block]; the input [batch][channels][height][width]
     * where plain. Channels are then rounded up to these by the weights' packing. */
    int block;
    bool plain_input;
    int plain_channels; /* in_channels or more: zeros are added */
    bool bf16; /* maps and packed weights; weights, their gradient and the bias are float */
};

static inline int conv_rounded(int channels, int block)
{
    return (channels + block - 1) / block * block;
}

static inline int conv_map_in_channels(const struct conv_shape *shape)
{
    return shape->plain_input ? shape->plain_channels
                              : conv_rounded(shape->in_channels, shape->block);
}

static inline int conv_map_out_channels(const struct conv_shape *shape)
{
    return conv_rounded(shape->out_channels, shape->block);
}

struct conv; /* one pass of one convolution */

/* infer: forward has a bias, and relu. */
int conv_open(struct conv **out, struct engine *engine, const struct conv_shape *shape,
              enum conv_pass pass, bool infer, bool relu);
void conv_close(struct conv *conv); /* accepts NULL */

const char *conv_implementation(const struct conv *conv);
bool conv_is_slow(const struct conv *conv); /* the library has no fast code for it */
size_t
conv_packed_bytes(const struct conv *conv); /* of weights, or their gradient, in its layout */
size_t conv_staging_bytes(const struct conv *conv); /* for conv_pack and conv_unpack */
size_t conv_scratch_bytes(const struct conv *conv);

/* From [out][in][kernel][kernel] (times scale[out] where not NULL) into the layout of the pass, and
 * the other way round. staging: see above; may be NULL when that is 0 and scale is NULL. */
int conv_pack(struct conv *conv, void *packed, const float *weights, const float *scale,
              float *staging);
int conv_unpack(struct conv *conv, float *weights, float *packed, float *staging);

/* Forward: in, weights -> out (bias where infer). Backward data: out, weights -> in. Backward
 * weights: in, out -> weights. Overwrites. */
struct conv_data {
    void *in, *weights, *out, *scratch;
    float *bias;
};
int conv_run(struct conv *conv, const struct conv_data *data);

/* c[rows][columns] = a[rows][inner] b[inner][columns], row-major; a or b given transposed. */
int matrix_product(float *c, const float *a, bool a_transposed, const float *b, bool b_transposed,
                   int rows, int columns, int inner);

#endif
