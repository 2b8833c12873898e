/* SPDX-License-Identifier: Apache-2.0 */
/* cuBLASLt's matrix product D = alpha op(A) op(B) + beta C (+ bias), matrices column by column. */
#include <cublasLt.h>

#include <stdlib.h>
#include <string.h>

#include "common/half.h"
#include "tests/vgpu/ops.h"
#include "tests/vgpu/stream.h"

enum { LT_MAGIC = 0xb1a5, PRODUCT, LAYOUT, PREFERENCE, WORKSPACE = 8192 };

/* What lies behind the opaque handles. */
struct product {
    unsigned kind;
    cublasOperation_t turn_a, turn_b;
    cublasLtEpilogue_t epilogue;
    const void *bias;
    int32_t bias_type; /* cudaDataType_t; -1: as D */
};
struct layout {
    unsigned kind;
    cudaDataType type;
    int64_t rows, columns, pitch;
};
enum { MATRICES = 4 }; /* A, B, C, D */
struct preference {
    unsigned kind;
    uint64_t workspace;
    uint32_t alignments[MATRICES]; /* bytes that the heuristics may rely on */
};

static void *make(const void *value, size_t bytes)
{
    void *memory = malloc(bytes);
    if (!memory)
        vgpu_fail("no memory");
    return memcpy(memory, value, bytes);
}

static const void *open_as(const void *handle, unsigned kind, const char *what)
{
    if (!handle || *(const unsigned *)handle != kind)
        vgpu_fail("%p is no cuBLASLt %s, or was destroyed", handle, what);
    return handle;
}

static cublasStatus_t drop(void *handle, unsigned kind, const char *what)
{
    open_as(handle, kind, what);
    memset(handle, 0, sizeof(unsigned));
    free(handle);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    unsigned magic = LT_MAGIC;
    *handle = make(&magic, sizeof magic);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    return drop(handle, LT_MAGIC, "handle");
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    return status == CUBLAS_STATUS_SUCCESS ? "CUBLAS_STATUS_SUCCESS" : "CUBLAS_STATUS_?";
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *handle, cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F)
        vgpu_fail("a matrix product that is not summed and scaled in fp32");
    struct product product = {.kind = PRODUCT,
                              .turn_a = CUBLAS_OP_N,
                              .turn_b = CUBLAS_OP_N,
                              .epilogue = CUBLASLT_EPILOGUE_DEFAULT,
                              .bias_type = -1};
    *handle = make(&product, sizeof product);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t handle)
{
    return drop(handle, PRODUCT, "matmul descriptor");
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t handle,
                                              cublasLtMatmulDescAttributes_t name,
                                              const void *value, size_t bytes)
{
    struct product *product = (struct product *)open_as(handle, PRODUCT, "matmul descriptor");
    void *to = NULL;
    size_t size = sizeof(int32_t);
    if (name == CUBLASLT_MATMUL_DESC_TRANSA) {
        to = &product->turn_a;
    } else if (name == CUBLASLT_MATMUL_DESC_TRANSB) {
        to = &product->turn_b;
    } else if (name == CUBLASLT_MATMUL_DESC_EPILOGUE) {
        to = &product->epilogue;
    } else if (name == CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE) {
        to = &product->bias_type;
    } else if (name == CUBLASLT_MATMUL_DESC_BIAS_POINTER) {
        to = &product->bias;
        size = sizeof product->bias;
    } else {
        vgpu_fail("the double has no matmul attribute %d", (int)name);
    }
    if (bytes != size)
        vgpu_fail("matmul attribute %d has %zu bytes and is set with %zu", (int)name, size, bytes);
    memcpy(to, value, size);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *handle, cudaDataType type,
                                          uint64_t rows, uint64_t columns, int64_t pitch)
{
    if (type != CUDA_R_16F && type != CUDA_R_32F)
        vgpu_fail("a matrix of type %d: the double has fp16 and fp32", (int)type);
    if (rows == 0 || columns == 0 || pitch < (int64_t)rows)
        vgpu_fail("a matrix of %llu x %llu with leading dimension %lld", (unsigned long long)rows,
                  (unsigned long long)columns, (long long)pitch);
    struct layout layout = {LAYOUT, type, (int64_t)rows, (int64_t)columns, pitch};
    *handle = make(&layout, sizeof layout);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t handle)
{
    return drop(handle, LAYOUT, "matrix layout");
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *handle)
{
    struct preference preference = {PREFERENCE, 0, {256, 256, 256, 256}};
    *handle = make(&preference, sizeof preference);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t handle)
{
    return drop(handle, PREFERENCE, "matmul preference");
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t handle,
                                                    cublasLtMatmulPreferenceAttributes_t name,
                                                    const void *value, size_t bytes)
{
    struct preference *preference =
        (struct preference *)open_as(handle, PREFERENCE, "matmul preference");
    bool workspace = name == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
    bool alignment = name >= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES &&
                     name <= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES;
    if (!workspace && !alignment && name != CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK)
        vgpu_fail("the double has no matmul preference %d", (int)name);
    if (bytes != (workspace ? sizeof preference->workspace : sizeof(uint32_t)))
        vgpu_fail("matmul preference %d is set with %zu bytes", (int)name, bytes);
    if (workspace)
        memcpy(&preference->workspace, value, bytes);
    if (alignment)
        memcpy(&preference->alignments[name - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value,
               bytes);
    return CUBLAS_STATUS_SUCCESS;
}

struct matmul { /* one launch */
    struct product product;
    struct layout a, b, c, d;
    const void *at_a, *at_b, *at_c;
    void *at_d, *workspace;
    float alpha, beta;
};

static void check_shapes(const struct matmul *it)
{
    bool ta = it->product.turn_a == CUBLAS_OP_T, tb = it->product.turn_b == CUBLAS_OP_T;
    int64_t m = ta ? it->a.columns : it->a.rows, k = ta ? it->a.rows : it->a.columns;
    int64_t n = tb ? it->b.rows : it->b.columns, inner = tb ? it->b.columns : it->b.rows;
    if (k != inner || it->d.rows != m || it->d.columns != n || it->c.rows != m ||
        it->c.columns != n)
        vgpu_fail("matmul: op(A) %lld x %lld, op(B) %lld x %lld, C %lld x %lld, D %lld x %lld",
                  (long long)m, (long long)k, (long long)inner, (long long)n, (long long)it->c.rows,
                  (long long)it->c.columns, (long long)it->d.rows, (long long)it->d.columns);
    if (it->a.type != it->b.type || it->c.type != it->d.type)
        vgpu_fail("matmul: A and B, or C and D, are of different types");
    if (it->product.epilogue != CUBLASLT_EPILOGUE_DEFAULT &&
        it->product.epilogue != CUBLASLT_EPILOGUE_BIAS)
        vgpu_fail("the double has no matmul epilogue %d", (int)it->product.epilogue);
    if (it->product.bias_type >= 0 && it->product.bias_type != (int32_t)it->d.type)
        vgpu_fail("matmul: a bias of another type than D");
}

static struct matmul matmul_of(cublasLtMatmulDesc_t product, cublasLtMatrixLayout_t a,
                               cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                               cublasLtMatrixLayout_t d)
{
    struct matmul it = {.product =
                            *(const struct product *)open_as(product, PRODUCT, "matmul descriptor"),
                        .a = *(const struct layout *)open_as(a, LAYOUT, "matrix layout"),
                        .b = *(const struct layout *)open_as(b, LAYOUT, "matrix layout"),
                        .c = *(const struct layout *)open_as(c, LAYOUT, "matrix layout"),
                        .d = *(const struct layout *)open_as(d, LAYOUT, "matrix layout")};
    check_shapes(&it);
    return it;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t product,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t results[], int *count)
{
    open_as(handle, LT_MAGIC, "handle");
    const struct preference *limits = open_as(preference, PREFERENCE, "matmul preference");
    struct matmul it = matmul_of(product, a, b, c, d);
    /* Tensor cores on fp16 want columns that begin on 16 bytes. */
    bool aligned = it.a.type != CUDA_R_16F || (it.a.pitch % 8 == 0 && it.b.pitch % 8 == 0);
    *count = requested > 0 && aligned;
    if (*count) {
        memset(results, 0, sizeof *results);
        results->algo.data[0] = limits->workspace >= WORKSPACE ? WORKSPACE : 0;
        results->workspaceSize = results->algo.data[0];
        memcpy(&results->algo.data[1], limits->alignments, sizeof limits->alignments);
        results->state = CUBLAS_STATUS_SUCCESS;
    }
    return *count ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

static size_t element_bytes(const struct layout *layout)
{
    return layout->type == CUDA_R_16F ? 2 : 4;
}

static size_t span(const struct layout *layout)
{
    return (size_t)((layout->columns - 1) * layout->pitch + layout->rows) * element_bytes(layout);
}

/* dst[columns][rows], straight or turned over. */
static double *load(const void *device, const struct layout *layout, bool turned, const char *what)
{
    const void *src = vgpu_reach(device, span(layout), VGPU_READ, what);
    double *dst = vgpu_numbers(layout->rows * layout->columns);
    for (int64_t j = 0; j < layout->columns; j++)
        for (int64_t i = 0; i < layout->rows; i++) {
            int64_t at = j * layout->pitch + i;
            dst[j * layout->rows + i] = layout->type == CUDA_R_16F
                                            ? half_to_float(((const uint16_t *)src)[at])
                                            : ((const float *)src)[at];
        }
    if (!turned)
        return dst;
    double *other = vgpu_numbers(layout->rows * layout->columns);
    vgpu_transpose(other, dst, layout->columns, layout->rows);
    free(dst);
    return other;
}

static void store(void *device, const struct layout *layout, const double *src)
{
    void *dst = vgpu_reach(device, span(layout), VGPU_WRITE, "D");
    for (int64_t j = 0; j < layout->columns; j++)
        for (int64_t i = 0; i < layout->rows; i++) {
            float value = (float)src[j * layout->rows + i];
            if (layout->type == CUDA_R_16F)
                ((uint16_t *)dst)[j * layout->pitch + i] = half_from_float(value);
            else
                ((float *)dst)[j * layout->pitch + i] = value;
        }
}

static void add_bias(double *d, const struct matmul *it)
{
    if (it->product.epilogue != CUBLASLT_EPILOGUE_BIAS)
        return;
    struct layout shape = {LAYOUT, it->d.type, it->d.rows, 1, it->d.rows};
    double *bias = load(it->product.bias, &shape, false, "the bias");
    for (int64_t j = 0; j < it->d.columns; j++)
        for (int64_t i = 0; i < it->d.rows; i++)
            d[j * it->d.rows + i] += bias[i];
    free(bias);
}

static void run(void *payload)
{
    const struct matmul *it = payload;
    int64_t m = it->d.rows, n = it->d.columns;
    bool ta = it->product.turn_a == CUBLAS_OP_T, tb = it->product.turn_b == CUBLAS_OP_T;
    int64_t k = ta ? it->a.rows : it->a.columns;
    double *a = load(it->at_a, &it->a, ta, "A"), *b = load(it->at_b, &it->b, tb, "B");
    double *c = it->beta != 0 ? load(it->at_c, &it->c, false, "C") : NULL;
    double *d = vgpu_numbers(m * n);
    vgpu_gemm(d, b, a, n, m, k, false); /* [n][k] by [k][m] */
    for (int64_t i = 0; i < m * n; i++)
        d[i] = it->alpha * d[i] + (c ? it->beta * c[i] : 0.0);
    add_bias(d, it);
    if (it->workspace)
        vgpu_reach(it->workspace, WORKSPACE, VGPU_WRITE, "the workspace");
    store(it->at_d, &it->d, d);
    if (it->workspace)
        vgpu_forget(it->workspace, WORKSPACE);
    free(a);
    free(b);
    free(c);
    free(d);
    vgpu_count.plans++;
}

/* An algorithm relies on what the heuristics were told, 256 bytes when on nothing. */
static void check_alignments(const struct matmul *it, const cublasLtMatmulAlgo_t *algo)
{
    const void *const at[MATRICES] = {it->at_a, it->at_b, it->at_c, it->at_d};
    uint32_t told[MATRICES];
    memcpy(told, &algo->data[1], sizeof told);
    for (int i = 0; i < MATRICES; i++)
        if (!told[i] || (uintptr_t)at[i] % told[i])
            vgpu_fail("matmul: %c is not aligned to the %u bytes that its algorithm was chosen for",
                      "ABCD"[i], told[i]);
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t product,
                              const void *alpha, const void *a, cublasLtMatrixLayout_t layout_a,
                              const void *b, cublasLtMatrixLayout_t layout_b, const void *beta,
                              const void *c, cublasLtMatrixLayout_t layout_c, void *d,
                              cublasLtMatrixLayout_t layout_d, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    vgpu_lock();
    open_as(handle, LT_MAGIC, "handle");
    struct matmul *it = malloc(sizeof *it);
    if (!it)
        vgpu_fail("no memory");
    *it = matmul_of(product, layout_a, layout_b, layout_c, layout_d);
    it->at_a = a;
    it->at_b = b;
    it->at_c = c;
    it->at_d = d;
    it->alpha = *(const float *)alpha;
    it->beta = *(const float *)beta;
    if (!algo)
        vgpu_fail("cublasLtMatmul without an algorithm searches at every call");
    it->workspace = algo->data[0] ? workspace : NULL;
    if (workspace_bytes < algo->data[0] || (algo->data[0] && !workspace))
        vgpu_fail("matmul needs a workspace of %llu bytes and has %zu",
                  (unsigned long long)algo->data[0], workspace_bytes);
    if (it->beta != 0 && (c != d || memcmp(&it->c, &it->d, sizeof it->c) != 0))
        vgpu_fail("matmul: the double adds to C in place only");
    check_alignments(it, algo);
    if ((uintptr_t)a % 16 || (uintptr_t)b % 16 || (uintptr_t)d % 16 || (uintptr_t)workspace % 256)
        vgpu_fail("matmul: A, B or D is not aligned to 16 bytes, or the workspace not to 256");
    vgpu_enqueue(
        vgpu_stream_of(stream),
        vgpu_task(run, free, it, "matmul %lldx%lld of %lld", (long long)it->d.rows,
                  (long long)it->d.columns,
                  (long long)(it->product.turn_a == CUBLAS_OP_T ? it->a.rows : it->a.columns)));
    vgpu_unlock();
    return CUBLAS_STATUS_SUCCESS;
}
