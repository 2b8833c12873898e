/* SPDX-License-Identifier: Apache-2.0 */
/* cuBLASLt counts columns first: a row-major [rows][columns] matrix is its columns x rows matrix.
 */
#include <stdlib.h>

#include "common/err.h"
#include "trainer/cuda/cuda.h"

static const size_t workspace_limit = (size_t)32 << 20; /* what NVIDIA advises for Hopper */

enum product_kind { PRODUCT_FORWARD, PRODUCT_DATA, PRODUCT_WEIGHTS, PRODUCTS };

struct product { /* d = op(a) op(b), fp16 in, summed in fp32 */
    cublasLtMatmulDesc_t what;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulHeuristicResult_t choice;
};

struct fc {
    struct backend *backend;
    struct product products[PRODUCTS];
};

struct matrix { /* as stored */
    int columns, rows;
    cudaDataType_t type;
    bool transposed; /* taken so */
};

static int check(cublasStatus_t status, const char *what)
{
    if (status == CUBLAS_STATUS_SUCCESS)
        return 0;
    return err_set(status == CUBLAS_STATUS_ALLOC_FAILED ? ERR_NOMEM : ERR_UNSUPPORTED,
                   "cuBLASLt: %s: status %d", what, (int)status);
}

static cublasStatus_t make_matrix(cublasLtMatrixLayout_t *out, const struct matrix *matrix)
{
    return cublasLtMatrixLayoutCreate(out, matrix->type, (uint64_t)matrix->columns,
                                      (uint64_t)matrix->rows, matrix->columns);
}

static cublasStatus_t describe(struct product *product, const struct matrix *a,
                               const struct matrix *b, const struct matrix *d, bool bias)
{
    const cublasOperation_t plain = CUBLAS_OP_N, transposed = CUBLAS_OP_T;
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    cublasStatus_t status =
        cublasLtMatmulDescCreate(&product->what, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (!status)
        status = cublasLtMatmulDescSetAttribute(product->what, CUBLASLT_MATMUL_DESC_TRANSA,
                                                a->transposed ? &transposed : &plain, sizeof plain);
    if (!status)
        status = cublasLtMatmulDescSetAttribute(product->what, CUBLASLT_MATMUL_DESC_TRANSB,
                                                b->transposed ? &transposed : &plain, sizeof plain);
    if (!status && bias)
        status = cublasLtMatmulDescSetAttribute(product->what, CUBLASLT_MATMUL_DESC_EPILOGUE,
                                                &epilogue, sizeof epilogue);
    if (!status)
        status = make_matrix(&product->a, a);
    if (!status)
        status = make_matrix(&product->b, b);
    if (!status)
        status = make_matrix(&product->d, d);
    return status;
}

/* Of what trainer/cuda/layout.h places; where nothing is said the library counts on 256 bytes. */
static cublasStatus_t tell_alignment(cublasLtMatmulPreference_t preference)
{
    static const cublasLtMatmulPreferenceAttributes_t names[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    const uint32_t bytes = LANES * sizeof(uint16_t);
    cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
    for (size_t i = 0; i < sizeof names / sizeof names[0] && !status; i++)
        status = cublasLtMatmulPreferenceSetAttribute(preference, names[i], &bytes, sizeof bytes);
    return status;
}

/* The library's first choice among algorithms that add up in fp32. */
static int choose(struct product *product, cublasLtHandle_t lt)
{
    cublasLtMatmulPreference_t preference = NULL;
    const uint32_t reductions =
        CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    int found = 0;
    cublasStatus_t status = cublasLtMatmulPreferenceCreate(&preference);
    if (!status)
        status = cublasLtMatmulPreferenceSetAttribute(preference,
                                                      CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                      &workspace_limit, sizeof workspace_limit);
    if (!status)
        status = cublasLtMatmulPreferenceSetAttribute(
            preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof reductions);
    if (!status)
        status = tell_alignment(preference);
    if (!status)
        status =
            cublasLtMatmulAlgoGetHeuristic(lt, product->what, product->a, product->b, product->d,
                                           product->d, preference, 1, &product->choice, &found);
    if (preference)
        cublasLtMatmulPreferenceDestroy(preference);
    if (!status && found == 0)
        status = CUBLAS_STATUS_NOT_SUPPORTED;
    return check(status, "choosing an algorithm for the classifier");
}

static int open_product(struct fc *fc, enum product_kind kind, const struct matrix *a,
                        const struct matrix *b, const struct matrix *d)
{
    struct product *product = &fc->products[kind];
    int code =
        check(describe(product, a, b, d, kind == PRODUCT_FORWARD), "describing the classifier");
    return code ? code : choose(product, fc->backend->lt);
}

int fc_cuda_open(struct fc **out, struct backend *backend, int batch, int features, int classes,
                 bool trains)
{
    *out = NULL;
    struct fc *fc = calloc(1, sizeof *fc);
    if (!fc)
        return err_set(ERR_NOMEM, "no memory for the classifier");
    fc->backend = backend;
    struct matrix x = {features, batch, CUDA_R_16F, false};
    struct matrix weights = {features, classes, CUDA_R_16F, true};
    struct matrix dlogits = {classes, batch, CUDA_R_16F, false};
    const struct matrix logits = {classes, batch, CUDA_R_32F, false};
    const struct matrix dweights = {features, classes, CUDA_R_32F, false};
    int code = open_product(fc, PRODUCT_FORWARD, &weights, &x, &logits);
    weights.transposed = false;
    if (!code && trains)
        code = open_product(fc, PRODUCT_DATA, &weights, &dlogits, &x);
    dlogits.transposed = true;
    if (!code && trains)
        code = open_product(fc, PRODUCT_WEIGHTS, &x, &dlogits, &dweights);
    if (code) {
        fc_cuda_close(fc);
        return code;
    }
    *out = fc;
    return 0;
}

void fc_cuda_close(struct fc *fc)
{
    if (!fc)
        return;
    for (int i = 0; i < PRODUCTS; i++) {
        struct product *product = &fc->products[i];
        cublasLtMatrixLayout_t layouts[] = {product->a, product->b, product->d};
        for (int k = 0; k < 3; k++)
            if (layouts[k])
                cublasLtMatrixLayoutDestroy(layouts[k]);
        if (product->what)
            cublasLtMatmulDescDestroy(product->what);
    }
    free(fc);
}

size_t fc_cuda_workspace(const struct fc *fc)
{
    size_t most = 0;
    for (int i = 0; i < PRODUCTS; i++)
        if (fc->products[i].choice.workspaceSize > most)
            most = fc->products[i].choice.workspaceSize;
    return most;
}

static int multiply(const struct fc *fc, enum product_kind kind, void *d, const void *a,
                    const void *b, void *workspace)
{
    const struct product *product = &fc->products[kind];
    const float one = 1, none = 0;
    return check(cublasLtMatmul(fc->backend->lt, product->what, &one, a, product->a, b, product->b,
                                &none, d, product->d, d, product->d, &product->choice.algo,
                                workspace, product->choice.workspaceSize, fc->backend->compute),
                 "a product of the classifier");
}

int fc_cuda_forward(const struct fc *fc, const struct fc_data *data)
{
    int code = check(cublasLtMatmulDescSetAttribute(fc->products[PRODUCT_FORWARD].what,
                                                    CUBLASLT_MATMUL_DESC_BIAS_POINTER, &data->bias,
                                                    sizeof data->bias),
                     "the classifier's bias");
    return code ? code
                : multiply(fc, PRODUCT_FORWARD, data->logits, data->weights, data->x,
                           data->workspace);
}

int fc_cuda_backward_data(const struct fc *fc, const struct fc_data *data)
{
    return multiply(fc, PRODUCT_DATA, data->dx, data->weights, data->dlogits, data->workspace);
}

int fc_cuda_backward_weights(const struct fc *fc, const struct fc_data *data)
{
    return multiply(fc, PRODUCT_WEIGHTS, data->dweights, data->x, data->dlogits, data->workspace);
}
