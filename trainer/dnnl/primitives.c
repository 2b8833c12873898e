/* SPDX-License-Identifier: Apache-2.0 */
#include "trainer/dnnl/primitives.h"

#include <oneapi/dnnl/dnnl.h>
#include <oneapi/dnnl/dnnl_debug.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"

struct engine {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
};

enum { ARGUMENTS = 5, SCRATCH = 3, BIAS = 4 };

struct conv {
    struct engine *engine;
    struct conv_shape shape;
    enum conv_pass pass;
    dnnl_primitive_t primitive;
    char implementation[48];
    int argument_count;
    dnnl_exec_arg_t arguments[ARGUMENTS]; /* in, weights, out, scratch, bias */
    size_t packed_bytes, scratch_bytes;
    bool staged; /* the layout has more channels than the weights */
    dnnl_primitive_t reorder;
    dnnl_memory_t plain, packed;
};

static int check(dnnl_status_t status, const char *what)
{
    if (status == dnnl_success)
        return 0;
    int code = status == dnnl_out_of_memory   ? ERR_NOMEM
               : status == dnnl_unimplemented ? ERR_UNSUPPORTED
                                              : ERR_INTERNAL;
    return err_set(code, "oneDNN %s: %s", what, dnnl_status2str(status));
}

int engine_open(struct engine **out)
{
    *out = NULL;
    struct engine *engine = calloc(1, sizeof *engine);
    if (!engine)
        return err_set(ERR_NOMEM, "no memory for oneDNN");
    int code = check(dnnl_engine_create(&engine->engine, dnnl_cpu, 0), "engine");
    if (!code)
        code = check(dnnl_stream_create(&engine->stream, engine->engine, dnnl_stream_default_flags),
                     "stream");
    if (code) {
        engine_close(engine);
        return code;
    }
    *out = engine;
    return 0;
}

void engine_close(struct engine *engine)
{
    if (!engine)
        return;
    dnnl_stream_destroy(engine->stream);
    dnnl_engine_destroy(engine->engine);
    free(engine);
}

const char *engine_version(void)
{
    static char text[32];
    const dnnl_version_t *version = dnnl_version();
    snprintf(text, sizeof text, "%d.%d.%d", version->major, version->minor, version->patch);
    return text;
}

static bool has_isa(dnnl_cpu_isa_t isa)
{
    return (dnnl_get_effective_cpu_isa() & isa) == isa;
}

bool engine_has_avx512(void)
{
    return has_isa(dnnl_cpu_isa_avx512_core);
}

bool engine_has_avx512_bf16(void)
{
    return has_isa(dnnl_cpu_isa_avx512_core_bf16);
}

bool engine_has_avx2(void)
{
    return has_isa(dnnl_cpu_isa_avx2);
}

struct descriptions { /* what a convolution is made of; weights in any layout */
    dnnl_memory_desc_t in, weights, out, bias, gradient; /* of the weights, always float */
    dnnl_dims_t strides, pads;
};

static int describe(struct descriptions *d, const struct conv_shape *shape)
{
    const int in = conv_map_in_channels(shape), out = conv_map_out_channels(shape);
    const int kernel = shape->kernel;
    const dnnl_dims_t in_dims = {shape->batch, in, shape->in_height, shape->in_width};
    const dnnl_dims_t out_dims = {shape->batch, out, shape->out_height, shape->out_width};
    const dnnl_dims_t weights_dims = {out, in, kernel, kernel}, bias_dims = {out};
    const dnnl_format_tag_t blocked = shape->block == 16 ? dnnl_nChw16c : dnnl_nChw8c;
    const dnnl_data_type_t type = shape->bf16 ? dnnl_bf16 : dnnl_f32;
    int code = check(dnnl_memory_desc_init_by_tag(&d->in, 4, in_dims, type,
                                                  shape->plain_input ? dnnl_nchw : blocked),
                     "input layout");
    if (!code)
        code = check(dnnl_memory_desc_init_by_tag(&d->out, 4, out_dims, type, blocked),
                     "output layout");
    if (!code)
        code = check(
            dnnl_memory_desc_init_by_tag(&d->weights, 4, weights_dims, type, dnnl_format_tag_any),
            "weights' layout");
    if (!code)
        code = check(dnnl_memory_desc_init_by_tag(&d->gradient, 4, weights_dims, dnnl_f32,
                                                  dnnl_format_tag_any),
                     "weights' gradient's layout");
    if (!code)
        code = check(dnnl_memory_desc_init_by_tag(&d->bias, 1, bias_dims, dnnl_f32, dnnl_x),
                     "bias layout");
    for (int i = 0; i < 2; i++) {
        d->strides[i] = shape->stride;
        d->pads[i] = shape->pad;
    }
    return code;
}

static int make_attributes(dnnl_primitive_attr_t *attributes, bool relu)
{
    int code = check(dnnl_primitive_attr_create(attributes), "attributes");
    if (!code)
        code =
            check(dnnl_primitive_attr_set_scratchpad_mode(*attributes, dnnl_scratchpad_mode_user),
                  "scratchpad mode");
    if (code || !relu)
        return code;
    dnnl_post_ops_t post = NULL;
    code = check(dnnl_post_ops_create(&post), "post-ops");
    if (!code)
        code =
            check(dnnl_post_ops_append_eltwise(post, 1.0f, dnnl_eltwise_relu, 0.0f, 0.0f), "ReLU");
    if (!code)
        code = check(dnnl_primitive_attr_set_post_ops(*attributes, post), "post-ops");
    dnnl_post_ops_destroy(post);
    return code;
}

static int make_forward(dnnl_primitive_desc_t *out, struct engine *engine,
                        const struct descriptions *d, dnnl_alg_kind_t algorithm, bool infer,
                        bool relu)
{
    dnnl_convolution_desc_t forward;
    dnnl_primitive_attr_t attributes = NULL;
    int code = check(dnnl_convolution_forward_desc_init(
                         &forward, infer ? dnnl_forward_inference : dnnl_forward_training,
                         algorithm, &d->in, &d->weights, infer ? &d->bias : NULL, &d->out,
                         d->strides, d->pads, d->pads),
                     "convolution");
    if (!code)
        code = make_attributes(&attributes, relu);
    if (!code)
        code = check(dnnl_primitive_desc_create(out, &forward, attributes, engine->engine, NULL),
                     "convolution");
    dnnl_primitive_attr_destroy(attributes);
    return code;
}

static int make_backward(dnnl_primitive_desc_t *out, struct engine *engine,
                         const struct descriptions *d, dnnl_alg_kind_t algorithm,
                         enum conv_pass pass)
{
    dnnl_convolution_desc_t backward;
    dnnl_primitive_desc_t hint = NULL;
    dnnl_primitive_attr_t attributes = NULL;
    int code = make_forward(&hint, engine, d, algorithm, false, false);
    if (!code && pass == CONV_BACKWARD_DATA)
        code = check(dnnl_convolution_backward_data_desc_init(&backward, algorithm, &d->in,
                                                              &d->weights, &d->out, d->strides,
                                                              d->pads, d->pads),
                     "convolution's gradient of the data");
    else if (!code)
        code = check(dnnl_convolution_backward_weights_desc_init(&backward, algorithm, &d->in,
                                                                 &d->gradient, NULL, &d->out,
                                                                 d->strides, d->pads, d->pads),
                     "convolution's gradient of the weights");
    if (!code)
        code = make_attributes(&attributes, false);
    if (!code)
        code = check(dnnl_primitive_desc_create(out, &backward, attributes, engine->engine, hint),
                     "convolution's gradient");
    dnnl_primitive_attr_destroy(attributes);
    dnnl_primitive_desc_destroy(hint);
    return code;
}

/* Winograd's F(4x4, 3x3) multiplies a quarter as often as the direct sum. With fewer channels its
 * transforms of the maps cost more than they save; with fewer pixels, in training, those of the
 * weights do, which are four times as large then and made in every pass. */
static bool winograd_pays(const struct conv_shape *shape, bool infer)
{
    enum { LEAST_CHANNELS = 32, LEAST_PIXELS = 512 };
    const int64_t pixels = (int64_t)shape->batch * shape->out_height * shape->out_width;
    return shape->kernel == 3 && shape->stride == 1 && !shape->plain_input &&
           shape->in_channels >= LEAST_CHANNELS && shape->out_channels >= LEAST_CHANNELS &&
           (infer || pixels >= LEAST_PIXELS);
}

static int make_pass(dnnl_primitive_desc_t *out, struct conv *conv, bool infer, bool relu)
{
    struct descriptions d;
    int code = describe(&d, &conv->shape);
    dnnl_alg_kind_t algorithm =
        winograd_pays(&conv->shape, infer) ? dnnl_convolution_winograd : dnnl_convolution_direct;
    for (bool again = !code; again;) {
        code = conv->pass == CONV_FORWARD
                   ? make_forward(out, conv->engine, &d, algorithm, infer, relu)
                   : make_backward(out, conv->engine, &d, algorithm, conv->pass);
        again = code == ERR_UNSUPPORTED && algorithm != dnnl_convolution_direct;
        algorithm = dnnl_convolution_direct;
    }
    return code;
}

static int bind(struct conv *conv, int place, int argument, const dnnl_memory_desc_t *layout)
{
    conv->arguments[place].arg = argument;
    return check(dnnl_memory_create(&conv->arguments[place].memory, layout, conv->engine->engine,
                                    DNNL_MEMORY_NONE),
                 "memory");
}

static int bind_all(struct conv *conv, dnnl_primitive_desc_t what, bool infer)
{
    bool data = conv->pass == CONV_BACKWARD_DATA, weights = conv->pass == CONV_BACKWARD_WEIGHTS;
    const dnnl_memory_desc_t *scratch =
        dnnl_primitive_desc_query_md(what, dnnl_query_scratchpad_md, 0);
    const dnnl_memory_desc_t *in =
        dnnl_primitive_desc_query_md(what, data ? dnnl_query_diff_src_md : dnnl_query_src_md, 0);
    const dnnl_memory_desc_t *out = dnnl_primitive_desc_query_md(
        what, data || weights ? dnnl_query_diff_dst_md : dnnl_query_dst_md, 0);
    const dnnl_memory_desc_t *layout = dnnl_primitive_desc_query_md(
        what, weights ? dnnl_query_diff_weights_md : dnnl_query_weights_md, 0);
    int code = bind(conv, 0, data ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, in);
    if (!code)
        code = bind(conv, 1, weights ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS, layout);
    if (!code)
        code = bind(conv, 2, data || weights ? DNNL_ARG_DIFF_DST : DNNL_ARG_DST, out);
    if (!code)
        code = bind(conv, SCRATCH, DNNL_ARG_SCRATCHPAD, scratch);
    if (!code && infer)
        code = bind(conv, BIAS, DNNL_ARG_BIAS,
                    dnnl_primitive_desc_query_md(what, dnnl_query_weights_md, 1));
    conv->argument_count = infer ? BIAS + 1 : BIAS;
    conv->packed_bytes = dnnl_memory_desc_get_size(layout);
    conv->scratch_bytes = dnnl_memory_desc_get_size(scratch);
    return code;
}

/* The reorder between [out][in][kernel][kernel], of as many channels as the layout has, and it. */
static int make_reorder(struct conv *conv, dnnl_primitive_desc_t what)
{
    const struct conv_shape *shape = &conv->shape;
    bool unpack = conv->pass == CONV_BACKWARD_WEIGHTS;
    const dnnl_memory_desc_t *layout = dnnl_primitive_desc_query_md(
        what, unpack ? dnnl_query_diff_weights_md : dnnl_query_weights_md, 0);
    const dnnl_dims_t dims = {conv_map_out_channels(shape), conv_map_in_channels(shape),
                              shape->kernel, shape->kernel};
    dnnl_engine_t engine = conv->engine->engine;
    dnnl_memory_desc_t plain;
    dnnl_primitive_desc_t reorder = NULL;
    int code = check(dnnl_memory_desc_init_by_tag(&plain, 4, dims, dnnl_f32, dnnl_oihw), "layout");
    if (!code)
        code = check(dnnl_reorder_primitive_desc_create(&reorder, unpack ? layout : &plain, engine,
                                                        unpack ? &plain : layout, engine, NULL),
                     "reorder");
    if (!code)
        code = check(dnnl_primitive_create(&conv->reorder, reorder), "reorder");
    dnnl_primitive_desc_destroy(reorder);
    if (!code)
        code = check(dnnl_memory_create(&conv->plain, &plain, engine, DNNL_MEMORY_NONE), "memory");
    if (!code)
        code = check(dnnl_memory_create(&conv->packed, layout, engine, DNNL_MEMORY_NONE), "memory");
    return code;
}

int conv_open(struct conv **out, struct engine *engine, const struct conv_shape *shape,
              enum conv_pass pass, bool infer, bool relu)
{
    *out = NULL;
    dnnl_primitive_desc_t what = NULL;
    struct conv *conv = calloc(1, sizeof *conv);
    if (!conv)
        return err_set(ERR_NOMEM, "no memory for a convolution");
    conv->engine = engine;
    conv->shape = *shape;
    conv->pass = pass;
    conv->staged = conv_map_out_channels(shape) != shape->out_channels ||
                   conv_map_in_channels(shape) != shape->in_channels;
    int code = make_pass(&what, conv, infer, relu);
    const char *implementation = "";
    if (!code)
        code = check(dnnl_primitive_desc_query(what, dnnl_query_impl_info_str, 0, &implementation),
                     "name of the implementation");
    snprintf(conv->implementation, sizeof conv->implementation, "%s", implementation);
    if (!code)
        code = check(dnnl_primitive_create(&conv->primitive, what), "convolution");
    if (!code)
        code = bind_all(conv, what, infer);
    if (!code)
        code = make_reorder(conv, what);
    dnnl_primitive_desc_destroy(what);
    if (code) {
        conv_close(conv);
        return code;
    }
    *out = conv;
    return 0;
}

void conv_close(struct conv *conv)
{
    if (!conv)
        return;
    for (int i = 0; i < ARGUMENTS; i++)
        dnnl_memory_destroy(conv->arguments[i].memory);
    dnnl_memory_destroy(conv->plain);
    dnnl_memory_destroy(conv->packed);
    dnnl_primitive_destroy(conv->reorder);
    dnnl_primitive_destroy(conv->primitive);
    free(conv);
}

const char *conv_implementation(const struct conv *conv)
{
    return conv->implementation;
}

bool conv_is_slow(const struct conv *conv)
{
    return strncmp(conv->implementation, "ref", 3) == 0;
}

size_t conv_packed_bytes(const struct conv *conv)
{
    return conv->packed_bytes;
}

static size_t plain_count(const struct conv *conv)
{
    const struct conv_shape *shape = &conv->shape;
    return (size_t)conv_map_out_channels(shape) * (size_t)conv_map_in_channels(shape) *
           (size_t)(shape->kernel * shape->kernel);
}

size_t conv_staging_bytes(const struct conv *conv)
{
    return plain_count(conv) * sizeof(float);
}

size_t conv_scratch_bytes(const struct conv *conv)
{
    return conv->scratch_bytes;
}

static int execute_reorder(struct conv *conv, float *plain, void *packed)
{
    bool unpack = conv->pass == CONV_BACKWARD_WEIGHTS;
    const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_FROM, unpack ? conv->packed : conv->plain},
                                         {DNNL_ARG_TO, unpack ? conv->plain : conv->packed}};
    int code = check(dnnl_memory_set_data_handle(conv->plain, plain), "memory");
    if (!code)
        code = check(dnnl_memory_set_data_handle(conv->packed, packed), "memory");
    if (!code)
        code = check(dnnl_primitive_execute(conv->reorder, conv->engine->stream, 2, arguments),
                     "reorder");
    return code;
}

int conv_pack(struct conv *conv, void *packed, const float *weights, const float *scale,
              float *staging)
{
    if (!conv->staged && !scale) /* it only reads them */
        return execute_reorder(conv, (float *)weights, packed);
    const struct conv_shape *shape = &conv->shape;
    size_t row = (size_t)shape->in_channels * (size_t)(shape->kernel * shape->kernel);
    size_t staged_row =
        (size_t)conv_map_in_channels(shape) * (size_t)(shape->kernel * shape->kernel);
    if (conv->staged)
        memset(staging, 0, plain_count(conv) * sizeof *staging);
    for (int o = 0; o < shape->out_channels; o++) {
        float factor = scale ? scale[o] : 1.0f;
        for (size_t i = 0; i < row; i++)
            staging[(size_t)o * staged_row + i] = factor * weights[(size_t)o * row + i];
    }
    return execute_reorder(conv, staging, packed);
}

int conv_unpack(struct conv *conv, float *weights, float *packed, float *staging)
{
    if (!conv->staged)
        return execute_reorder(conv, weights, packed);
    int code = execute_reorder(conv, staging, packed);
    if (code)
        return code;
    const struct conv_shape *shape = &conv->shape;
    size_t row = (size_t)shape->in_channels * (size_t)(shape->kernel * shape->kernel);
    size_t staged_row =
        (size_t)conv_map_in_channels(shape) * (size_t)(shape->kernel * shape->kernel);
    for (int o = 0; o < shape->out_channels; o++)
        memcpy(weights + (size_t)o * row, staging + (size_t)o * staged_row, row * sizeof *weights);
    return 0;
}

int conv_run(struct conv *conv, const struct conv_data *data)
{
    void *const handles[ARGUMENTS] = {data->in, data->weights, data->out, data->scratch,
                                      data->bias};
    int code = 0;
    for (int i = 0; i < conv->argument_count && !code; i++)
        code = check(dnnl_memory_set_data_handle(conv->arguments[i].memory, handles[i]), "memory");
    if (!code)
        code = check(dnnl_primitive_execute(conv->primitive, conv->engine->stream,
                                            conv->argument_count, conv->arguments),
                     "convolution");
    return code;
}

int matrix_product(float *c, const float *a, bool a_transposed, const float *b, bool b_transposed,
                   int rows, int columns, int inner)
{
    return check(dnnl_sgemm(a_transposed ? 'T' : 'N', b_transposed ? 'T' : 'N', rows, columns,
                            inner, 1.0f, a, a_transposed ? rows : inner, b,
                            b_transposed ? inner : columns, 0.0f, c, columns),
                 "matrix product");
}
