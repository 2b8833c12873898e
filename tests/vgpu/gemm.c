/* SPDX-License-Identifier: Apache-2.0 */
/* Matrix products, summed in double: what rounding is left is that of what is stored. */
#include <stdlib.h>
#include <string.h>

#include "tests/vgpu/ops.h"

enum { ROWS = 4, COLUMNS = 16, LANES = 8 };

typedef double lanes __attribute__((vector_size(LANES * sizeof(double)), aligned(8), may_alias));

double *vgpu_numbers(int64_t count)
{
    double *memory = malloc((size_t)(count ? count : 1) * sizeof *memory);
    if (!memory)
        vgpu_fail("no memory for %lld numbers", (long long)count);
    return memory;
}

void vgpu_transpose(double *dst, const double *src, int64_t rows, int64_t columns)
{
    for (int64_t i0 = 0; i0 < rows; i0 += 16)
        for (int64_t j = 0; j < columns; j++)
            for (int64_t i = i0; i < rows && i < i0 + 16; i++)
                dst[j * rows + i] = src[i * columns + j];
}

/* ROWS x COLUMNS sums from a panel of b: [inner][COLUMNS]. */
static inline __attribute__((always_inline)) void block(double *sums, const double *const a[ROWS],
                                                        const double *panel, int64_t inner)
{
    lanes sum[ROWS][2] = {0};
    for (int64_t k = 0; k < inner; k++) {
        const lanes *b = (const lanes *)(panel + k * COLUMNS);
        for (int r = 0; r < ROWS; r++) {
            sum[r][0] += a[r][k] * b[0];
            sum[r][1] += a[r][k] * b[1];
        }
    }
    memcpy(sums, sum, sizeof sum);
}

static void block_base(double *sums, const double *const a[ROWS], const double *panel,
                       int64_t inner)
{
    block(sums, a, panel, inner);
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) static void
block_avx2(double *sums, const double *const a[ROWS], const double *panel, int64_t inner)
{
    block(sums, a, panel, inner);
}

__attribute__((target("avx512f"))) static void
block_avx512(double *sums, const double *const a[ROWS], const double *panel, int64_t inner)
{
    block(sums, a, panel, inner);
}
#endif

typedef void block_function(double *, const double *const[ROWS], const double *, int64_t);

static block_function *best(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        return block_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return block_avx2;
#endif
    return block_base;
}

static void pack(double *panel, const double *b, int64_t inner, int64_t columns, int64_t first)
{
    for (int64_t k = 0; k < inner; k++)
        for (int64_t j = 0; j < COLUMNS; j++)
            panel[k * COLUMNS + j] = first + j < columns ? b[k * columns + first + j] : 0.0;
}

static void strip(double *c, const double *a, const double *b, int64_t rows, int64_t columns,
                  int64_t inner, int64_t first, bool add)
{
    double *panel = vgpu_numbers(inner * COLUMNS), sums[ROWS * COLUMNS];
    pack(panel, b, inner, columns, first);
    block_function *run = best();
    for (int64_t row = 0; row < rows; row += ROWS) {
        const double *from[ROWS];
        for (int r = 0; r < ROWS; r++)
            from[r] = a + (row + r < rows ? row + r : row) * inner;
        run(sums, from, panel, inner);
        for (int r = 0; r < ROWS && row + r < rows; r++)
            for (int64_t j = 0; j < COLUMNS && first + j < columns; j++) {
                double *to = &c[(row + r) * columns + first + j];
                *to = sums[r * COLUMNS + j] + (add ? *to : 0.0);
            }
    }
    free(panel);
}

void vgpu_gemm(double *c, const double *a, const double *b, int64_t rows, int64_t columns,
               int64_t inner, bool add)
{
#pragma omp parallel for schedule(dynamic)
    for (int64_t first = 0; first < columns; first += COLUMNS)
        strip(c, a, b, rows, columns, inner, first, add);
}
