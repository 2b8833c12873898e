/* SPDX-License-Identifier: Apache-2.0 */
/* What the double computes for each operation, against plain loops in double; and what it refuses.
 */
#include "tests/vgpu/bench.h"

/* With the last but one configuration, which is sound, as is the last. */
static void run(int count, const descriptor ops[], const struct binding *binding)
{
    descriptor configs[8];
    int64_t found = build_configs(build_graph(handle, count, ops), CUDNN_HEUR_MODE_A, configs);
    assert_int_equal(found, 5);
    execute(build_final(build_plan(handle, configs[3])), binding);
}

static void *random_floats(float *values, int64_t count, double least, double most)
{
    for (int64_t i = 0; i < count; i++)
        values[i] = (float)(least + testing_unit(&seed) * (most - least));
    return testing_upload(values, (size_t)count * sizeof *values, stream);
}

static void check_halves(void *device, const double *expected, int64_t count, double tolerance)
{
    static uint16_t halves[ROOM];
    testing_download(halves, device, (size_t)count * 2, stream);
    for (int64_t i = 0; i < count; i++) {
        double got = half_to_float(halves[i]);
        double limit = tolerance + fabs(expected[i]) * 0x1p-10;
        if (!(fabs(got - expected[i]) <= limit)) {
            print_message("value %lld is %g, expected %g\n", (long long)i, got, expected[i]);
            fail();
        }
    }
}

static void check_floats(void *device, const double *expected, int64_t count, double tolerance)
{
    static float values[ROOM];
    testing_download(values, device, (size_t)count * sizeof *values, stream);
    for (int64_t i = 0; i < count; i++)
        assert_true(fabs(values[i] - expected[i]) <= tolerance * (1 + fabs(expected[i])));
}

/* Convolutions. */
struct shape {
    int64_t n, c, h, w, k, r, stride, pad;
};

static int64_t out_of(int64_t size, const struct shape *it)
{
    return (size + 2 * it->pad - it->r) / it->stride + 1;
}

static float x[ROOM], w[ROOM], y[ROOM];
static double result[ROOM];

/* side as build_conv; the definition, NHWC and KRSC. */
static void conv_loops(const struct shape *it, int side)
{
    int64_t ph = out_of(it->h, it), pw = out_of(it->w, it);
    memset(result, 0, sizeof result);
    for (int64_t n = 0; n < it->n; n++)
        for (int64_t p = 0; p < ph * pw; p++)
            for (int64_t k = 0; k < it->k; k++)
                for (int64_t tap = 0; tap < it->r * it->r; tap++)
                    for (int64_t c = 0; c < it->c; c++) {
                        int64_t h = p / pw * it->stride + tap / it->r - it->pad;
                        int64_t v = p % pw * it->stride + tap % it->r - it->pad;
                        if (h < 0 || v < 0 || h >= it->h || v >= it->w)
                            continue;
                        int64_t ix = ((n * it->h + h) * it->w + v) * it->c + c;
                        int64_t iw = (k * it->r * it->r + tap) * it->c + c;
                        int64_t iy = (n * ph * pw + p) * it->k + k;
                        if (side == 0)
                            result[iy] += (double)x[ix] * w[iw];
                        else if (side == 1)
                            result[ix] += (double)y[iy] * w[iw];
                        else
                            result[iw] += (double)y[iy] * x[ix];
                    }
}

static void check_conv(const struct shape *it, int side, float beta)
{
    int64_t ph = out_of(it->h, it), pw = out_of(it->w, it);
    int64_t counts[] = {it->n * ph * pw * it->k, it->n * it->h * it->w * it->c,
                        it->k * it->r * it->r * it->c};
    void *dx = random_halves(x, counts[1], 1), *dw = random_halves(w, counts[2], 1);
    void *dy = random_halves(y, counts[0], 1);
    static double before[ROOM];
    const float *old = side == 0 ? y : side == 1 ? x : w;
    for (int64_t i = 0; i < counts[side]; i++)
        before[i] = old[i];
    descriptor tx = build_map(it->n, it->c, it->h, it->w, CUDNN_DATA_HALF, REAL);
    descriptor tw = build_map(it->k, it->c, it->r, it->r, CUDNN_DATA_HALF, REAL);
    descriptor ty = build_map(it->n, it->k, ph, pw, CUDNN_DATA_HALF, REAL);
    descriptor op = build_conv(side, tx, tw, ty, build_convolution(it->stride, it->pad), beta);
    struct binding binding = {.count = 0};
    bind(&binding, tx, dx);
    bind(&binding, tw, dw);
    bind(&binding, ty, dy);
    run(1, &op, &binding);
    conv_loops(it, side);
    for (int64_t i = 0; i < counts[side]; i++)
        result[i] += beta * before[i];
    check_halves(side == 0 ? dy : side == 1 ? dx : dw, result, counts[side], 1e-4);
}

static void test_conv(void **state)
{
    static const struct shape shapes[] = {{2, 8, 7, 5, 16, 3, 1, 1},   {2, 16, 6, 6, 8, 1, 1, 0},
                                          {1, 8, 9, 9, 24, 3, 2, 1},   {3, 5, 8, 8, 7, 3, 2, 1},
                                          {1, 8, 11, 11, 40, 7, 2, 3}, {2, 8, 5, 5, 8, 1, 2, 0}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int side = 0; side < 3; side++) {
            check_conv(&shapes[i], side, 0);
            if (side == 1)
                check_conv(&shapes[i], side, 1);
        }
}

/* conv + residual + bias + ReLU: one rounding at the end. */
static void test_conv_epilogue(void **state)
{
    const struct shape it = {2, 8, 6, 6, 16, 3, 1, 1};
    int64_t count = it.n * it.h * it.w * it.k;
    static float z[ROOM], bias[16];
    void *dx = random_halves(x, it.n * it.h * it.w * it.c, 1),
         *dw = random_halves(w, 16 * 9 * 8, 1);
    void *dz = random_halves(z, count, 4), *db = random_halves(bias, 16, 2);
    void *dy = testing_device((size_t)count * 2);
    descriptor tx = build_map(2, 8, 6, 6, CUDNN_DATA_HALF, REAL);
    descriptor tw = build_map(16, 8, 3, 3, CUDNN_DATA_HALF, REAL);
    descriptor tz = build_map(2, 16, 6, 6, CUDNN_DATA_HALF, REAL);
    descriptor tb = build_map(1, 16, 1, 1, CUDNN_DATA_HALF, REAL);
    descriptor ty = build_map(2, 16, 6, 6, CUDNN_DATA_HALF, REAL), v[3];
    for (int i = 0; i < 3; i++)
        v[i] = build_map(2, 16, 6, 6, CUDNN_DATA_FLOAT, VIRTUAL);
    descriptor ops[] = {build_conv(0, tx, tw, v[0], build_convolution(1, 1), 0),
                        build_pointwise(CUDNN_POINTWISE_ADD, v[0], tz, v[1]),
                        build_pointwise(CUDNN_POINTWISE_ADD, v[1], tb, v[2]),
                        build_pointwise(CUDNN_POINTWISE_RELU_FWD, v[2], NULL, ty)};
    struct binding binding = {.count = 0};
    bind(&binding, tx, dx);
    bind(&binding, tw, dw);
    bind(&binding, tz, dz);
    bind(&binding, tb, db);
    bind(&binding, ty, dy);
    run(4, ops, &binding);
    conv_loops(&it, 0);
    for (int64_t i = 0; i < count; i++)
        result[i] = fmax(result[i] + z[i] + bias[i % 16], 0);
    check_halves(dy, result, count, 1e-4);
}

/* Normalisation. */
enum { N = 3, C = 16, H = 5, W = 4, PIXELS = N * H * W, COUNT = PIXELS * C };

struct moments {
    double mean[C], inverse[C];
};

static void moments_of(struct moments *it, double epsilon)
{
    for (int c = 0; c < C; c++) {
        double sum = 0, squares = 0;
        for (int p = 0; p < PIXELS; p++)
            sum += x[p * C + c];
        for (int p = 0; p < PIXELS; p++)
            squares += pow(x[p * C + c] - sum / PIXELS, 2);
        it->mean[c] = sum / PIXELS;
        it->inverse[c] = 1 / sqrt(squares / PIXELS + epsilon);
    }
}

struct norm_graph { /* of both directions, and its memory */
    struct build_norm t;
    descriptor z, out, mask, zero;
    void *x, *z_at, *out_at, *mask_at, *mean, *inverse, *scale, *bias;
    float scale_values[C], bias_values[C], z_values[COUNT];
    struct moments moments;
};

/* out = max(0, norm(x) + z), mask = out > 0 */
static void run_norm_forward(struct norm_graph *it)
{
    static float epsilon = 1e-3f, zero = 0;
    it->x = random_halves(x, COUNT, 3);
    it->z_at = random_halves(it->z_values, COUNT, 1);
    it->scale = random_floats(it->scale_values, C, 0.5, 2);
    it->bias = random_floats(it->bias_values, C, -1, 1);
    it->mean = testing_device(C * sizeof(float));
    it->inverse = testing_device(C * sizeof(float));
    it->out_at = testing_device(COUNT * 2);
    it->mask_at = testing_device(COUNT / 8);
    it->t = (struct build_norm){.x = build_map(N, C, H, W, CUDNN_DATA_HALF, REAL),
                                .y = build_map(N, C, H, W, CUDNN_DATA_FLOAT, VIRTUAL),
                                .scale = build_vector(C),
                                .bias = build_vector(C),
                                .mean = build_vector(C),
                                .inverse = build_vector(C),
                                .epsilon = build_scalar()};
    descriptor sum = build_map(N, C, H, W, CUDNN_DATA_FLOAT, VIRTUAL);
    it->z = build_map(N, C, H, W, CUDNN_DATA_HALF, REAL);
    it->out = build_map(N, C, H, W, CUDNN_DATA_HALF, REAL);
    it->mask = build_map(N, C, H, W, CUDNN_DATA_BOOLEAN, REAL);
    it->zero = build_scalar();
    /* in another order than they are computed */
    descriptor ops[] = {build_pointwise(CUDNN_POINTWISE_CMP_GT, it->out, it->zero, it->mask),
                        build_norm(&it->t, true),
                        build_pointwise(CUDNN_POINTWISE_RELU_FWD, sum, NULL, it->out),
                        build_pointwise(CUDNN_POINTWISE_ADD, it->t.y, it->z, sum)};
    struct binding binding = {.count = 0};
    bind(&binding, it->t.x, it->x);
    bind(&binding, it->t.scale, it->scale);
    bind(&binding, it->t.bias, it->bias);
    bind(&binding, it->t.mean, it->mean);
    bind(&binding, it->t.inverse, it->inverse);
    bind(&binding, it->t.epsilon, &epsilon);
    bind(&binding, it->z, it->z_at);
    bind(&binding, it->out, it->out_at);
    bind(&binding, it->mask, it->mask_at);
    bind(&binding, it->zero, &zero);
    run(4, ops, &binding);
    moments_of(&it->moments, epsilon);
}

static struct norm_graph norm;

static void test_norm_forward(void **state)
{
    run_norm_forward(&norm);
    const struct moments *m = &norm.moments;
    for (int i = 0; i < COUNT; i++)
        result[i] = fmax((x[i] - m->mean[i % C]) * m->inverse[i % C] * norm.scale_values[i % C] +
                             norm.bias_values[i % C] + norm.z_values[i],
                         0);
    check_halves(norm.out_at, result, COUNT, 1e-5);
    check_floats(norm.mean, m->mean, C, 1e-6);
    check_floats(norm.inverse, m->inverse, C, 1e-6);
    static uint16_t out[COUNT];
    uint8_t mask[COUNT / 8];
    testing_download(out, norm.out_at, sizeof out, stream);
    testing_download(mask, norm.mask_at, sizeof mask, stream);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(mask[i / 8] >> i % 8 & 1, half_to_float(out[i]) > 0);
}

/* dy = dz mask; then dx, dscale, dbias by the definition. */
static void test_norm_backward(void **state)
{
    run_norm_forward(&norm);
    static float dz[COUNT];
    uint8_t mask[COUNT / 8];
    void *dz_at = random_halves(dz, COUNT, 1), *dx_at = testing_device(COUNT * 2);
    void *dscale = testing_device(C * sizeof(float)), *dbias = testing_device(C * sizeof(float));
    testing_download(mask, norm.mask_at, sizeof mask, stream);
    struct build_norm t = {.x = build_map(N, C, H, W, CUDNN_DATA_HALF, REAL),
                           .dy = build_map(N, C, H, W, CUDNN_DATA_HALF, VIRTUAL),
                           .y = build_map(N, C, H, W, CUDNN_DATA_HALF, REAL),
                           .scale = build_vector(C),
                           .mean = build_vector(C),
                           .inverse = build_vector(C),
                           .dscale = build_vector(C),
                           .dbias = build_vector(C)};
    descriptor tz = build_map(N, C, H, W, CUDNN_DATA_HALF, REAL);
    descriptor tm = build_map(N, C, H, W, CUDNN_DATA_BOOLEAN, REAL);
    descriptor ops[] = {build_pointwise(CUDNN_POINTWISE_MUL, tz, tm, t.dy), build_norm(&t, false)};
    struct binding binding = {.count = 0};
    bind(&binding, tz, dz_at);
    bind(&binding, tm, norm.mask_at);
    bind(&binding, t.x, norm.x);
    bind(&binding, t.y, dx_at);
    bind(&binding, t.scale, norm.scale);
    bind(&binding, t.mean, norm.mean);
    bind(&binding, t.inverse, norm.inverse);
    bind(&binding, t.dscale, dscale);
    bind(&binding, t.dbias, dbias);
    run(2, ops, &binding);
    double sums[C] = {0}, products[C] = {0};
    const struct moments *m = &norm.moments;
    for (int i = 0; i < COUNT; i++) {
        dz[i] = mask[i / 8] >> i % 8 & 1 ? dz[i] : 0;
        sums[i % C] += dz[i];
        products[i % C] += dz[i] * (x[i] - m->mean[i % C]) * m->inverse[i % C];
    }
    for (int i = 0; i < COUNT; i++) {
        int c = i % C;
        double apart = (x[i] - m->mean[c]) * m->inverse[c];
        result[i] = norm.scale_values[c] * m->inverse[c] *
                    (dz[i] - sums[c] / PIXELS - apart * products[c] / PIXELS);
    }
    check_halves(dx_at, result, COUNT, 1e-5);
    check_floats(dscale, products, C, 1e-5);
    check_floats(dbias, sums, C, 1e-5);
}

static void test_relu_backward(void **state)
{
    static float dy[64], before[64];
    void *dy_at = random_halves(dy, 64, 1), *x_at = random_halves(before, 64, 1);
    descriptor tdy = build_map(1, 8, 4, 2, CUDNN_DATA_HALF, REAL);
    descriptor tx = build_map(1, 8, 4, 2, CUDNN_DATA_HALF, REAL);
    descriptor tdx = build_map(1, 8, 4, 2, CUDNN_DATA_HALF, REAL);
    descriptor op = build_pointwise(CUDNN_POINTWISE_RELU_BWD, tdy, tx, tdx);
    struct binding binding = {.count = 0};
    bind(&binding, tdy, dy_at);
    bind(&binding, tx, x_at);
    bind(&binding, tdx, dy_at); /* in place */
    run(1, &op, &binding);
    for (int i = 0; i < 64; i++)
        result[i] = before[i] > 0 ? dy[i] : 0;
    check_halves(dy_at, result, 64, 0);
}

/* Pools. */
static void check_pool(const struct build_pool *pool, int64_t size)
{
    bool max = pool->mode == CUDNN_RESAMPLE_MAXPOOL;
    int64_t to = (size + pool->before + pool->after - pool->window) / pool->stride + 1;
    int64_t in_count = 2 * size * size * 8, out_count = 2 * to * to * 8;
    void *x_at = random_halves(x, in_count, 1), *y_at = testing_device((size_t)out_count * 2);
    void *dy_at = random_halves(y, out_count, 1), *dx_at = testing_device((size_t)in_count * 2);
    void *index_at = testing_device((size_t)out_count);
    static double back[ROOM];
    memset(back, 0, sizeof back);
    for (int64_t i = 0; i < out_count; i++) {
        int64_t c = i % 8, q = i / 8 % to, p = i / 8 / to % to, n = i / 8 / to / to, inside = 0;
        int64_t best = -1;
        double sum = 0;
        for (int pass = 0; pass < 2; pass++)
            for (int64_t tap = 0; tap < pool->window * pool->window; tap++) {
                int64_t h = p * pool->stride - pool->before + tap / pool->window;
                int64_t v = q * pool->stride - pool->before + tap % pool->window;
                if (h < 0 || v < 0 || h >= size || v >= size)
                    continue;
                int64_t at = ((n * size + h) * size + v) * 8 + c;
                if (pass) {
                    double share = pool->mode == CUDNN_RESAMPLE_AVGPOOL_INCLUDE_PADDING
                                       ? (double)(pool->window * pool->window)
                                       : (double)inside;
                    back[at] += max ? (at == best ? y[i] : 0) : y[i] / share;
                    result[i] = max ? x[best] : sum / share;
                    continue;
                }
                inside++;
                sum += x[at];
                if (best < 0 || x[at] > x[best])
                    best = at;
            }
    }
    descriptor tx = build_map(2, 8, size, size, CUDNN_DATA_HALF, REAL);
    descriptor ty = build_map(2, 8, to, to, CUDNN_DATA_HALF, REAL);
    descriptor ti = max ? build_map(2, 8, to, to, CUDNN_DATA_INT8, REAL) : NULL;
    descriptor op = build_pool(pool, true, tx, ty, ti);
    struct binding binding = {.count = 0};
    bind(&binding, tx, x_at);
    bind(&binding, ty, y_at);
    if (max)
        bind(&binding, ti, index_at);
    run(1, &op, &binding);
    check_halves(y_at, result, out_count, 1e-6);
    op = build_pool(pool, false, tx, ty, ti);
    binding.pointers[0] = dx_at;
    binding.pointers[1] = dy_at;
    run(1, &op, &binding);
    check_halves(dx_at, back, in_count, 1e-6);
}

static void test_pools(void **state)
{
    check_pool(&(struct build_pool){CUDNN_RESAMPLE_MAXPOOL, 3, 2, 1, 0}, 8);
    check_pool(&(struct build_pool){CUDNN_RESAMPLE_MAXPOOL, 3, 2, 1, 1}, 7);
    check_pool(&(struct build_pool){CUDNN_RESAMPLE_AVGPOOL_INCLUDE_PADDING, 2, 2, 0, 0}, 8);
    check_pool(&(struct build_pool){CUDNN_RESAMPLE_AVGPOOL_EXCLUDE_PADDING, 2, 2, 0, 1}, 7);
    check_pool(&(struct build_pool){CUDNN_RESAMPLE_AVGPOOL_INCLUDE_PADDING, 7, 7, 0, 0}, 7);
}

/* Heuristics: what cannot be run has no configurations and no error; what must not be taken is
 * marked. */
static void test_heuristics(void **state)
{
    descriptor configs[8];
    descriptor tx = build_map(1, 8, 4, 4, CUDNN_DATA_HALF, REAL);
    descriptor ty = build_map(1, 8, 4, 4, CUDNN_DATA_HALF, REAL);
    descriptor tw = build_map(8, 8, 3, 3, CUDNN_DATA_FLOAT, REAL);
    descriptor op = build_conv(2, tx, tw, ty, build_convolution(1, 1), 0);
    assert_int_equal(build_configs(build_graph(handle, 1, &op), CUDNN_HEUR_MODE_A, configs), 0);
    tw = build_map(8, 8, 3, 3, CUDNN_DATA_HALF, REAL);
    op = build_conv(0, tx, tw, ty, build_convolution(1, 1), 0);
    descriptor graph = build_graph(handle, 1, &op);
    assert_int_equal(build_configs(graph, CUDNN_HEUR_MODE_FALLBACK, configs), 1);
    assert_int_equal(build_configs(graph, CUDNN_HEUR_MODE_A, configs), 5);
    static const int notes[] = {CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION,
                                CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC, -1, -1};
    for (int i = 0; i < 4; i++) {
        descriptor engine = build_new(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
        cudnnBackendNumericalNote_t note[8];
        int64_t count;
        cudnnBackendGetAttribute(configs[i], CUDNN_ATTR_ENGINECFG_ENGINE,
                                 CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count, &engine);
        cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                 CUDNN_TYPE_NUMERICAL_NOTE, 8, &count, note);
        assert_int_equal(count, notes[i] < 0 ? 1 : 2);
        assert_true(notes[i] < 0 || (int)note[1] == notes[i]);
        cudnnStatus_t status = cudnnBackendFinalize(build_plan(handle, configs[i]));
        assert_int_equal(status, i == 2 ? CUDNN_STATUS_NOT_SUPPORTED : CUDNN_STATUS_SUCCESS);
    }
    setenv("VGPU_CAPABILITY", "75", 1);
    struct build_norm t = {.x = tx,
                           .y = build_map(1, 8, 4, 4, CUDNN_DATA_HALF, REAL),
                           .scale = build_vector(8),
                           .bias = build_vector(8),
                           .mean = build_vector(8),
                           .inverse = build_vector(8),
                           .epsilon = build_scalar()};
    op = build_norm(&t, true);
    assert_int_equal(build_configs(build_graph(handle, 1, &op), CUDNN_HEUR_MODE_A, configs), 0);
    unsetenv("VGPU_CAPABILITY");
    op = build_norm(&t, true);
    assert_int_equal(build_configs(build_graph(handle, 1, &op), CUDNN_HEUR_MODE_A, configs), 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conv),          cmocka_unit_test(test_conv_epilogue),
        cmocka_unit_test(test_norm_forward),  cmocka_unit_test(test_norm_backward),
        cmocka_unit_test(test_relu_backward), cmocka_unit_test(test_pools),
        cmocka_unit_test(test_heuristics),
    };
    return cmocka_run_group_tests(tests, build_setup, build_teardown);
}
