/* SPDX-License-Identifier: Apache-2.0 */
/* A small net's state on the ref backend, and a checkpoint's strings. */
#ifndef TESTS_UNIT_TRAINER_FIXTURE_H
#define TESTS_UNIT_TRAINER_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/testing.h"
#include "trainer/checkpoint.h"

/* A net and its state on the ref backend. */
struct fixture {
    struct backend *backend;
    struct net *net;
    struct weights weights;
};

static inline void open_fixture(struct fixture *fixture, const char *model, int classes)
{
    const struct backend_config config = {.threads = 1};
    assert_int_equal(backend_ref.open(&fixture->backend, &config), 0);
    assert_int_equal(net_open(&fixture->net, model, 16, 3, classes), 0);
    fixture->weights = (struct weights){.ops = &backend_ref, .net = fixture->net};
    assert_int_equal(
        backend_ref.state_open(&fixture->weights.state, fixture->backend, fixture->net, 1), 0);
}

static inline void close_fixture(struct fixture *fixture)
{
    backend_ref.state_close(fixture->weights.state);
    net_close(fixture->net);
    backend_ref.close(fixture->backend);
}

static inline void fill(struct fixture *fixture, uint64_t *random)
{
    float *values = malloc(weights_largest(fixture->net) * sizeof *values);
    for (int i = 0; i < fixture->net->tensor_count; i++) {
        const struct tensor *tensor = &fixture->net->tensors[i];
        for (int kind = 0; kind < (tensor->trained ? 2 : 1); kind++) {
            for (size_t j = 0; j < tensor->count; j++)
                values[j] = (float)(testing_unit(random) - 0.25);
            assert_int_equal(
                backend_ref.state_set(fixture->weights.state, (enum state_kind)kind, i, values), 0);
        }
    }
    free(values);
}

static inline void assert_same(struct fixture *a, struct fixture *b, enum state_kind kind,
                               bool head)
{
    size_t bytes = weights_largest(a->net) * sizeof(float);
    float *left = malloc(bytes), *right = malloc(bytes);
    for (int i = 0; i < a->net->tensor_count; i++) {
        const struct tensor *tensor = &a->net->tensors[i];
        if ((kind == STATE_MOMENTUM && !tensor->trained) || (tensor->head && !head))
            continue;
        assert_int_equal(backend_ref.state_get(left, a->weights.state, kind, i), 0);
        assert_int_equal(backend_ref.state_get(right, b->weights.state, kind, i), 0);
        assert_memory_equal(left, right, tensor->count * sizeof *left);
    }
    free(left);
    free(right);
}

static inline struct checkpoint example(void)
{
    return (struct checkpoint){
        .recipe = "model = resnet8d\nseed = 7\n# \"quoted\"\n",
        .backend = "ref, fp32, 1 thread",
        .epoch = 3,
        .step_in_epoch = 17,
        .step = UINT64_C(1) << 60, /* more than a double holds exactly with 1 added */
        .receipt = {.low = 0x0123456789abcdef, .high = 0xfedcba9876543210},
        .train_fingerprint = {.low = 1, .high = 2},
        .val_fingerprint = {.low = 3, .high = 4},
        .has_val = true,
        .loss_scale = 32768,
        .loss_scale_good_steps = 1999,
        .loss_scale_bad_steps = 3,
        .top1 = 91.0 + 1.0 / 3,
        .best_top1 = 92.00000000000001,
    };
}

#endif
