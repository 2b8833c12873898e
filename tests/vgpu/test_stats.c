/* SPDX-License-Identifier: Apache-2.0 */
/* The operations of fused batch normalisation on the double, against plain loops in double; which
 * fused graphs have engines, and which have none. */
#include "tests/vgpu/bench.h"

enum { N = 3, C = 16, K = 8, SIDE = 5, PIXELS = N * SIDE * SIDE, COUNT = PIXELS * C };

static const float epsilon = 1e-5f, factor = 0.25f;
static const int64_t pixels = PIXELS;

static descriptor vector_of(int64_t channels, cudnnDataType_t type)
{
    return build_map(1, channels, 1, 1, type, REAL);
}

static descriptor build_stats(descriptor x, descriptor sum, descriptor squares)
{
    const cudnnGenStatsMode_t mode = CUDNN_GENSTATS_SUM_SQSUM;
    const cudnnDataType_t type = CUDNN_DATA_FLOAT;
    descriptor op = build_new(CUDNN_BACKEND_OPERATION_GEN_STATS_DESCRIPTOR);
    build_set(op, CUDNN_ATTR_OPERATION_GENSTATS_MODE, CUDNN_TYPE_GENSTATS_MODE, 1, &mode);
    build_set(op, CUDNN_ATTR_OPERATION_GENSTATS_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &type);
    build_link(op, CUDNN_ATTR_OPERATION_GENSTATS_XDESC, x);
    build_link(op, CUDNN_ATTR_OPERATION_GENSTATS_SUMDESC, sum);
    build_link(op, CUDNN_ATTR_OPERATION_GENSTATS_SQSUMDESC, squares);
    return build_final(op);
}

static int64_t configs_of(int count, const descriptor ops[])
{
    descriptor configs[8];
    return build_configs(build_graph(handle, count, ops), CUDNN_HEUR_MODE_A, configs);
}

static void run(int count, const descriptor ops[], const struct binding *binding)
{
    descriptor configs[8];
    descriptor graph = build_graph(handle, count, ops);
    assert_int_equal(build_configs(graph, CUDNN_HEUR_MODE_A, configs), 5);
    execute(build_final(build_plan(handle, configs[3])), binding);
}

static void check(void *device, const double *expected, int count, double tolerance)
{
    float values[C];
    testing_download(values, device, (size_t)count * sizeof *values, stream);
    for (int i = 0; i < count; i++)
        if (!(fabs(values[i] - expected[i]) <= tolerance * (1 + fabs(expected[i]))))
            fail_msg("value %d is %g, expected %g", i, values[i], expected[i]);
}

struct prologue { /* relu(scale x + shift) before a 1x1 convolution with sums behind it */
    descriptor x, scale, shift, read, w, y, sum, squares, ops[5];
};

static struct prologue prologue_of(cudnnDataType_t vectors, cudnnDataType_t between)
{
    struct prologue it = {.x = build_map(N, C, SIDE, SIDE, CUDNN_DATA_HALF, REAL),
                          .scale = vector_of(C, vectors),
                          .shift = vector_of(C, vectors),
                          .read = build_map(N, C, SIDE, SIDE, between, VIRTUAL),
                          .w = build_map(K, C, 1, 1, CUDNN_DATA_HALF, REAL),
                          .y = build_map(N, K, SIDE, SIDE, CUDNN_DATA_HALF, REAL),
                          .sum = build_vector(K),
                          .squares = build_vector(K)};
    descriptor scaled = build_map(N, C, SIDE, SIDE, between, VIRTUAL);
    descriptor shifted = build_map(N, C, SIDE, SIDE, between, VIRTUAL);
    it.ops[0] = build_pointwise(CUDNN_POINTWISE_MUL, it.x, it.scale, scaled);
    it.ops[1] = build_pointwise(CUDNN_POINTWISE_ADD, scaled, it.shift, shifted);
    it.ops[2] = build_pointwise(CUDNN_POINTWISE_RELU_FWD, shifted, NULL, it.read);
    it.ops[3] = build_conv(0, it.read, it.w, it.y, build_convolution(1, 0), 0);
    it.ops[4] = build_stats(it.y, it.sum, it.squares);
    return it;
}

static float half(double value)
{
    return half_to_float(half_from_float((float)value));
}

static void test_prologue(void **state)
{
    static float x[COUNT], w[K * C], scale[C], shift[C];
    static uint16_t halves[PIXELS * K];
    double sums[K] = {0}, squares[K] = {0};
    const struct prologue it = prologue_of(CUDNN_DATA_HALF, CUDNN_DATA_HALF);
    void *y_at = testing_device(sizeof halves), *sum_at = testing_device(K * sizeof(float)),
         *squares_at = testing_device(K * sizeof(float));
    struct binding binding = {.count = 0};
    bind(&binding, it.x, random_halves(x, COUNT, 2));
    bind(&binding, it.w, random_halves(w, K * C, 1));
    bind(&binding, it.scale, random_halves(scale, C, 1));
    bind(&binding, it.shift, random_halves(shift, C, 1));
    bind(&binding, it.y, y_at);
    bind(&binding, it.sum, sum_at);
    bind(&binding, it.squares, squares_at);
    run(5, it.ops, &binding);
    testing_download(halves, y_at, sizeof halves, stream);
    for (int i = 0; i < PIXELS * K; i++) {
        double expected = 0;
        for (int c = 0; c < C; c++) {
            float read = half(x[i / K * C + c] * (double)scale[c] + shift[c]);
            expected += (double)w[i % K * C + c] * (read > 0 ? read : 0);
        }
        double y = half_to_float(halves[i]);
        assert_true(fabs(y - expected) <= 1e-6 + fabs(expected) * 0x1p-11);
        sums[i % K] += expected; /* not of what is stored */
        squares[i % K] += expected * expected;
    }
    check(sum_at, sums, K, 1e-6);
    check(squares_at, squares, K, 1e-6);
}

/* Engines' limits, as cuDNN's were seen. */
static void test_no_engines(void **state)
{
    struct prologue it = prologue_of(CUDNN_DATA_HALF, CUDNN_DATA_HALF);
    assert_int_equal(configs_of(5, it.ops), 5);
    it = prologue_of(CUDNN_DATA_FLOAT, CUDNN_DATA_HALF); /* fp32 vectors */
    assert_int_equal(configs_of(5, it.ops), 0);
    it = prologue_of(CUDNN_DATA_HALF, CUDNN_DATA_FLOAT); /* fp32 between */
    assert_int_equal(configs_of(5, it.ops), 0);
    descriptor x = build_map(N, C, SIDE, SIDE, CUDNN_DATA_HALF, REAL);
    descriptor alone = build_stats(x, build_vector(C), build_vector(C));
    assert_int_equal(configs_of(1, &alone), 0);
    const struct build_pool pool = {CUDNN_RESAMPLE_MAXPOOL, 3, 2, 1, 1};
    descriptor read = build_map(N, C, SIDE, SIDE, CUDNN_DATA_FLOAT, VIRTUAL);
    const descriptor pooled[] = {build_pointwise(CUDNN_POINTWISE_RELU_FWD, x, NULL, read),
                                 build_pool(&pool, true, read,
                                            build_map(N, C, 3, 3, CUDNN_DATA_HALF, REAL),
                                            build_map(N, C, 3, 3, CUDNN_DATA_INT8, REAL))};
    assert_int_equal(configs_of(2, pooled), 0); /* wrong ones only */
}

#define FINALIZE(name) CUDNN_ATTR_OPERATION_BN_FINALIZE_##name

enum { INPUTS = 6, VECTORS = 12 }; /* of BN finalize, in the order of its attributes */

struct finalize {
    descriptor vectors[VECTORS], count, epsilon, factor, op;
};

static struct finalize finalize_of(bool running)
{
    static const int names[VECTORS] = {FINALIZE(Y_SUM_DESC),
                                       FINALIZE(Y_SQ_SUM_DESC),
                                       FINALIZE(SCALE_DESC),
                                       FINALIZE(BIAS_DESC),
                                       FINALIZE(PREV_RUNNING_MEAN_DESC),
                                       FINALIZE(PREV_RUNNING_VAR_DESC),
                                       FINALIZE(UPDATED_RUNNING_MEAN_DESC),
                                       FINALIZE(UPDATED_RUNNING_VAR_DESC),
                                       FINALIZE(SAVED_MEAN_DESC),
                                       FINALIZE(SAVED_INV_STD_DESC),
                                       FINALIZE(EQ_SCALE_DESC),
                                       FINALIZE(EQ_BIAS_DESC)};
    const cudnnBnFinalizeStatsMode_t mode = CUDNN_BN_FINALIZE_STATISTICS_TRAINING;
    const cudnnDataType_t type = CUDNN_DATA_FLOAT;
    struct finalize it = {.count = build_map(1, 1, 1, 1, CUDNN_DATA_INT64, BY_VALUE),
                          .epsilon = build_scalar(),
                          .factor = build_scalar(),
                          .op =
                              build_new(CUDNN_BACKEND_OPERATION_BN_FINALIZE_STATISTICS_DESCRIPTOR)};
    build_set(it.op, FINALIZE(STATS_MODE), CUDNN_TYPE_BN_FINALIZE_STATS_MODE, 1, &mode);
    build_set(it.op, FINALIZE(MATH_PREC), CUDNN_TYPE_DATA_TYPE, 1, &type);
    for (int i = 0; i < VECTORS; i++) {
        it.vectors[i] = build_vector(C);
        if (running || i < 4 || i > 7)
            build_link(it.op, names[i], it.vectors[i]);
    }
    build_link(it.op, FINALIZE(ACCUM_COUNT_DESC), it.count);
    build_link(it.op, FINALIZE(EPSILON_DESC), it.epsilon);
    if (running)
        build_link(it.op, FINALIZE(EXP_AVERATE_FACTOR_DESC), it.factor);
    build_final(it.op);
    return it;
}

static void test_finalize(void **state)
{
    float given[INPUTS][C];
    void *at[VECTORS];
    const struct finalize it = finalize_of(true);
    struct binding binding = {.count = 0};
    for (int i = 0; i < VECTORS; i++) {
        for (int c = 0; c < C && i < INPUTS; c++)
            given[i][c] = (float)(0.5 + testing_unit(&seed) + (i == 1 ? 3 : 0)) *
                          (i < 2 ? PIXELS : 1); /* mean^2 < 3 */
        at[i] = i < INPUTS ? testing_upload(given[i], sizeof given[i], stream)
                           : testing_device(C * sizeof(float));
        bind(&binding, it.vectors[i], at[i]);
    }
    bind(&binding, it.count, (void *)&pixels);
    bind(&binding, it.epsilon, (void *)&epsilon);
    bind(&binding, it.factor, (void *)&factor);
    run(1, &it.op, &binding);
    double expected[VECTORS - INPUTS][C];
    for (int c = 0; c < C; c++) {
        double mean = given[0][c] / (double)PIXELS;
        double variance = given[1][c] / (double)PIXELS - mean * mean;
        double inverse = 1 / sqrt(variance + epsilon);
        expected[0][c] = 0.75 * given[4][c] + 0.25 * mean;
        expected[1][c] = 0.75 * given[5][c] + 0.25 * variance * PIXELS / (PIXELS - 1.0);
        expected[2][c] = mean;
        expected[3][c] = inverse;
        expected[4][c] = given[2][c] * inverse;
        expected[5][c] = given[3][c] - mean * given[2][c] * inverse;
    }
    for (int i = INPUTS; i < VECTORS; i++)
        check(at[i], expected[i - INPUTS], C, 1e-6);
    descriptor without = finalize_of(false).op;
    assert_int_equal(configs_of(1, &without), 0);
}

#define WEIGHTS(name) CUDNN_ATTR_OPERATION_BN_BWD_WEIGHTS_##name

/* A dgrad behind which ReLU's derivative and the sums of BN's backward follow. With A, B and C the
 * gradient that NORM backward has in one piece. */
static void test_backward_sums(void **state)
{
    enum { MEAN, INVERSE, GAMMA, DGAMMA, DBETA, A, B, CONSTANT, ALL };
    static const int names[ALL] = {WEIGHTS(MEAN_DESC),       WEIGHTS(INVSTD_DESC),
                                   WEIGHTS(BN_SCALE_DESC),   WEIGHTS(DBN_SCALE_DESC),
                                   WEIGHTS(DBN_BIAS_DESC),   WEIGHTS(EQ_DY_SCALE_DESC),
                                   WEIGHTS(EQ_X_SCALE_DESC), WEIGHTS(EQ_BIAS)};
    static float x[COUNT], dy[PIXELS * K], w[K * C], given[3][C];
    static uint16_t halves[COUNT];
    const cudnnDataType_t type = CUDNN_DATA_FLOAT;
    descriptor tx = build_map(N, C, SIDE, SIDE, CUDNN_DATA_HALF, REAL);
    descriptor tdy = build_map(N, K, SIDE, SIDE, CUDNN_DATA_HALF, REAL);
    descriptor tw = build_map(K, C, 1, 1, CUDNN_DATA_HALF, REAL);
    descriptor tdx = build_map(N, C, SIDE, SIDE, CUDNN_DATA_FLOAT, VIRTUAL);
    descriptor tdz = build_map(N, C, SIDE, SIDE, CUDNN_DATA_HALF, REAL);
    descriptor op = build_new(CUDNN_BACKEND_OPERATION_BN_BWD_WEIGHTS_DESCRIPTOR);
    struct binding binding = {.count = 0};
    void *at[ALL], *dz_at = testing_device(COUNT * 2);
    build_set(op, WEIGHTS(MATH_PREC), CUDNN_TYPE_DATA_TYPE, 1, &type);
    build_link(op, WEIGHTS(X_DESC), tx);
    build_link(op, WEIGHTS(DY_DESC), tdz);
    for (int i = 0; i < ALL; i++) {
        descriptor vector = build_vector(C);
        for (int c = 0; c < C && i < DGAMMA; c++)
            given[i][c] = (float)(0.25 + testing_unit(&seed));
        at[i] = i < DGAMMA ? testing_upload(given[i], sizeof given[i], stream)
                           : testing_device(C * sizeof(float));
        build_link(op, names[i], vector);
        bind(&binding, vector, at[i]);
    }
    bind(&binding, tx, random_halves(x, COUNT, 2));
    bind(&binding, tdy, random_halves(dy, PIXELS * K, 1));
    bind(&binding, tw, random_halves(w, K * C, 1));
    bind(&binding, tdz, dz_at);
    descriptor ops[] = {build_conv(1, tdx, tw, tdy, build_convolution(1, 0), 0),
                        build_pointwise(CUDNN_POINTWISE_RELU_BWD, tdx, tx, tdz), build_final(op)};
    run(3, ops, &binding);
    testing_download(halves, dz_at, sizeof halves, stream);
    double sums[ALL][C] = {{0}};
    for (int i = 0; i < COUNT; i++) {
        double expected = 0, dz = half_to_float(halves[i]);
        for (int k = 0; k < K && x[i] > 0; k++)
            expected += (double)dy[i / C * K + k] * w[k * C + i % C];
        assert_true(fabs(dz - expected) <= 1e-6 + fabs(expected) * 0x1p-11);
        sums[DBETA][i % C] += dz;
        sums[DGAMMA][i % C] += dz * (x[i] - given[MEAN][i % C]) * given[INVERSE][i % C];
    }
    for (int c = 0; c < C; c++) {
        double scale = given[GAMMA][c] * (double)given[INVERSE][c];
        sums[A][c] = scale;
        sums[B][c] = -scale * given[INVERSE][c] * sums[DGAMMA][c] / PIXELS;
        sums[CONSTANT][c] = -scale * sums[DBETA][c] / PIXELS - sums[B][c] * given[MEAN][c];
    }
    for (int i = DGAMMA; i < ALL; i++)
        check(at[i], sums[i], C, 1e-5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prologue),
        cmocka_unit_test(test_no_engines),
        cmocka_unit_test(test_finalize),
        cmocka_unit_test(test_backward_sums),
    };
    return cmocka_run_group_tests(tests, build_setup, build_teardown);
}
