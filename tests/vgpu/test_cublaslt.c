/* SPDX-License-Identifier: Apache-2.0 */
/* The double's matrix products against plain loops. */
#include <cublasLt.h>

#include "common/half.h"
#include "tests/vgpu/testing.h"

enum { M = 24, NN = 10, K = 16 };

static cudaStream_t stream;
static cublasLtHandle_t handle;

struct problem {
    bool turn_a, turn_b, bias, half_out;
    float beta;
};

/* Columns of matrices as stored: A [K][M] or turned [M][K]; B [NN][K] or turned [K][NN]. */
static float a[M * K], b[K * NN], bias[M], before[M * NN];

static void *halves(float *values, int count, uint64_t *seed)
{
    uint16_t bits[M * K];
    for (int i = 0; i < count; i++) {
        bits[i] = half_from_float((float)(testing_unit(seed) * 2 - 1));
        values[i] = half_to_float(bits[i]);
    }
    return testing_upload(bits, (size_t)count * 2, stream);
}

static void *product(const struct problem *it, void *at_a, void *at_b, void *at_bias, void *at_d,
                     void *workspace)
{
    cublasLtMatmulDesc_t how;
    cublasLtMatrixLayout_t la, lb, ld;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t found;
    cublasOperation_t turned = CUBLAS_OP_T;
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    int count;
    uint64_t room = 1 << 20;
    float alpha = 0.5f;
    cublasLtMatmulDescCreate(&how, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (it->turn_a)
        cublasLtMatmulDescSetAttribute(how, CUBLASLT_MATMUL_DESC_TRANSA, &turned, sizeof turned);
    if (it->turn_b)
        cublasLtMatmulDescSetAttribute(how, CUBLASLT_MATMUL_DESC_TRANSB, &turned, sizeof turned);
    if (it->bias) {
        cublasLtMatmulDescSetAttribute(how, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                       sizeof epilogue);
        cublasLtMatmulDescSetAttribute(how, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &at_bias,
                                       sizeof at_bias);
    }
    cublasLtMatrixLayoutCreate(&la, CUDA_R_16F, it->turn_a ? K : M, it->turn_a ? M : K,
                               it->turn_a ? K : M);
    cublasLtMatrixLayoutCreate(&lb, CUDA_R_16F, it->turn_b ? NN : K, it->turn_b ? K : NN,
                               it->turn_b ? 16 : K);
    cublasLtMatrixLayoutCreate(&ld, it->half_out ? CUDA_R_16F : CUDA_R_32F, M, NN, M);
    cublasLtMatmulPreferenceCreate(&preference);
    cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                         &room, sizeof room);
    assert_int_equal(
        cublasLtMatmulAlgoGetHeuristic(handle, how, la, lb, ld, ld, preference, 1, &found, &count),
        CUBLAS_STATUS_SUCCESS);
    assert_int_equal(cublasLtMatmul(handle, how, &alpha, at_a, la, at_b, lb, &it->beta, at_d, ld,
                                    at_d, ld, &found.algo, workspace, found.workspaceSize, stream),
                     CUBLAS_STATUS_SUCCESS);
    cublasLtMatmulPreferenceDestroy(preference);
    cublasLtMatrixLayoutDestroy(la);
    cublasLtMatrixLayoutDestroy(lb);
    cublasLtMatrixLayoutDestroy(ld);
    cublasLtMatmulDescDestroy(how);
    return at_d;
}

static void check(const struct problem *it)
{
    uint64_t seed = testing_seed();
    int pitch = it->turn_b ? 16 : K; /* a turned B has a pitch of its own */
    static float padded[16 * K];
    void *at_a = halves(a, M * K, &seed);
    void *at_b = halves(padded, pitch * (it->turn_b ? K : NN), &seed);
    for (int k = 0; k < K; k++)
        for (int n = 0; n < NN; n++)
            b[k * NN + n] = it->turn_b ? padded[k * 16 + n] : padded[n * K + k];
    for (int i = 0; i < M; i++)
        bias[i] = (float)testing_unit(&seed);
    for (int i = 0; i < M * NN; i++)
        before[i] = (float)testing_unit(&seed);
    void *at_bias = testing_upload(bias, sizeof bias, stream);
    void *at_d = testing_upload(before, sizeof before, stream);
    float got[M * NN];
    uint16_t bits[M * NN];
    product(it, at_a, at_b, at_bias, at_d, testing_device(1 << 13));
    testing_download(it->half_out ? (void *)bits : got, at_d,
                     it->half_out ? sizeof bits : sizeof got, stream);
    for (int n = 0; n < NN; n++)
        for (int m = 0; m < M; m++) {
            double sum = 0;
            for (int k = 0; k < K; k++)
                sum += (double)(it->turn_a ? a[m * K + k] : a[k * M + m]) * b[k * NN + n];
            sum = 0.5 * sum + (it->bias ? bias[m] : 0) +
                  (double)it->beta * (it->half_out ? 0 : before[n * M + m]);
            double value = it->half_out ? half_to_float(bits[n * M + m]) : got[n * M + m];
            assert_true(fabs(value - sum) <= (it->half_out ? 2e-3 : 1e-5));
        }
}

static void test_products(void **state)
{
    check(&(struct problem){.turn_a = true, .bias = true});
    check(&(struct problem){.half_out = true});
    check(&(struct problem){.turn_b = true});
    check(&(struct problem){.turn_a = true, .turn_b = true, .beta = 1});
}

static void no_workspace(void)
{
    uint64_t seed = 1;
    product(&(struct problem){.half_out = true}, halves(a, M * K, &seed), halves(b, K * NN, &seed),
            NULL, testing_device(M * NN * 2), NULL);
}

static void missing_bias(void)
{
    uint64_t seed = 1;
    product(&(struct problem){.bias = true}, halves(a, M * K, &seed), halves(b, K * NN, &seed),
            testing_device(sizeof bias), testing_device(M * NN * 4), testing_device(1 << 13));
    cudaStreamSynchronize(stream);
}

/* 256 bytes are promised where nothing is said. */
static void other_alignment(void)
{
    uint64_t seed = 1;
    product(&(struct problem){.half_out = true}, (char *)halves(a, M * K, &seed) + 16,
            halves(b, K * NN, &seed), NULL, testing_device(M * NN * 2), testing_device(1 << 13));
}

static void test_mistakes(void **state)
{
    testing_dies(other_alignment, "A is not aligned to the 256 bytes");
    testing_dies(no_workspace, "needs a workspace");
    testing_dies(missing_bias, "of the bias");
}

static int setup(void **state)
{
    stream = testing_stream();
    assert_int_equal(cublasLtCreate(&handle), CUBLAS_STATUS_SUCCESS);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_products),
                                       cmocka_unit_test(test_mistakes)};
    return cmocka_run_group_tests(tests, setup, NULL);
}
