/* SPDX-License-Identifier: Apache-2.0 */
/* A step of the oneDNN backend allocates no memory to work in: malloc and its kin are counted while
 * it runs. What is left is the library's own: a list of arguments for each primitive, OpenMP teams,
 * and the panels of the classifier's matrix products (dnnl_sgemm takes no memory from its caller).
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/unit/trainer/tiny_net.h"

static atomic_bool counting;
static atomic_size_t calls, large; /* those that are no list of arguments */
enum { ARGUMENTS = 4096 };         /* bytes of one at the most */

/* glibc's own, beneath the names that are taken over below. */
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *memory, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);

static void count(size_t bytes)
{
    if (!counting)
        return;
    atomic_fetch_add(&calls, 1);
    if (bytes > ARGUMENTS)
        atomic_fetch_add(&large, 1);
}

void *malloc(size_t bytes)
{
    count(bytes);
    return __libc_malloc(bytes);
}

void *calloc(size_t number, size_t bytes)
{
    count(number * bytes);
    return __libc_calloc(number, bytes);
}

void *realloc(void *memory, size_t bytes)
{
    count(bytes);
    return __libc_realloc(memory, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    count(bytes);
    return __libc_memalign(alignment, bytes);
}

void *memalign(size_t alignment, size_t bytes);
void *memalign(size_t alignment, size_t bytes)
{
    count(bytes);
    return __libc_memalign(alignment, bytes);
}

int posix_memalign(void **out, size_t alignment, size_t bytes)
{
    count(bytes);
    *out = __libc_memalign(alignment, bytes);
    return *out ? 0 : ENOMEM;
}

static void step(struct tiny *tiny)
{
    const struct update update = {
        .lr = 0.01, .momentum = 0.9, .weight_decay = 1e-4, .grad_scale = 1, .micro_batches = 1};
    assert_int_equal(tiny_run(tiny), 0);
    assert_int_equal(tiny->ops->update(tiny->state, 0, &update), 0);
}

/* Counts within some steps, after two that warm up. */
static void check_steps(const struct tiny_case *what, enum precision precision)
{
    enum { STEPS = 3, THREADS = 2, PRODUCTS = 3 }; /* logits, gradients of weights and features */
    const struct backend_config config = {.threads = THREADS, .precision = precision};
    struct tiny tiny;
    int code = tiny_open(&tiny, &backend_dnnl, &config, what, 7);
    if (code == ERR_UNSUPPORTED) {
        print_message("skipped: %s\n", err_message());
        tiny_close(&tiny);
        return;
    }
    assert_int_equal(code, 0);
    step(&tiny);
    step(&tiny);
    calls = large = 0;
    counting = true;
    for (int i = 0; i < STEPS; i++)
        step(&tiny);
    counting = false;
    print_message("%s: %zu allocations in %d steps, %zu large\n", what->name, (size_t)calls, STEPS,
                  (size_t)large);
    assert_true(large <= PRODUCTS * THREADS * STEPS);
    tiny_close(&tiny);
}

static void test_steps(void **unused)
{
    static const struct tiny_case nets[] = {
        {"resnet8d", NULL, 28, 1, 10, 16, -1, {.label_smoothing = 0.1}, false},
        {"resnet18d-w16", NULL, 64, 3, 1000, 4, -1, {0}, false},
    };
    for (size_t i = 0; i < sizeof nets / sizeof nets[0]; i++) {
        check_steps(&nets[i], PRECISION_FP32);
        check_steps(&nets[i], PRECISION_BF16);
    }
}

/* That they are counted at all. */
static void test_counting(void **unused)
{
    calls = large = 0;
    counting = true;
    void *volatile memory = malloc(5000);
    counting = false;
    free(memory);
    assert_true(calls == 1 && large == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_counting),
                                       cmocka_unit_test(test_steps)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
