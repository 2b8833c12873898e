/* SPDX-License-Identifier: Apache-2.0 */
/* What runs are spent on: seconds by node and kind of work, beside the operations and the bytes
 * that the work takes at the least, and what this machine can do of each in a second. */
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/err.h"
#include "trainer/dnnl/dnnl.h"

int profile_dnnl_start(struct program *program)
{
    size_t bytes = (size_t)program->net->node_count * sizeof program->profile[0];
    if (!program->profile)
        program->profile = malloc(bytes);
    if (!program->profile)
        return err_set(ERR_NOMEM, "out of memory for a profile");
    memset(program->profile, 0, bytes);
    return 0;
}

double profile_dnnl_mark(const struct program *program)
{
    return program->profile ? clock_seconds() : 0;
}

double profile_dnnl_add(struct program *program, int node, enum work work, double mark_s)
{
    if (!program->profile)
        return 0;
    double now_s = clock_seconds();
    program->profile[node][work] += now_s - mark_s;
    return now_s;
}

static double elements(const struct program *program, const struct map *map)
{
    return (double)map->batch * map->blocks * map->height * map->width *
           backend_cpu_of(program->state)->kernels->block;
}

static double weights_of(const struct node *node)
{
    return (double)node->in_channels * node->out_channels * node->kernel * node->kernel;
}

/* Of one run. Bytes: each map and each weight read or written once a pass over it. */
static void cost_of(struct profile_line *line, const struct program *program, enum work work)
{
    const struct node *node = &program->net->nodes[line->node];
    const struct node_plan *plan = &program->nodes[line->node];
    double in = elements(program, &plan->in), out = elements(program, &plan->out);
    double pixels = (double)program->config.batch * node->out_height * node->out_width;
    double passes = 0, flops = 0;
    switch (work) {
    case WORK_CONV:
    case WORK_CONV_DATA:
    case WORK_CONV_WEIGHTS:
        flops = 2 * pixels * weights_of(node);
        passes = in + out + weights_of(node);
        break;
    case WORK_BN: /* x for the sums; x, residual -> y; x -> y again */
        passes = out * ((node->residual < 0 ? 3 : 4) + (plan->at.again ? 2 : 0));
        break;
    case WORK_BN_BACKWARD: /* x, gradients and y for the sums and again; -> x */
        passes = out * (2 * (2 + (plan->gradient_count > 1) + (node->residual >= 0)) + 1 +
                        (plan->to_residual && node->relu));
        break;
    case WORK_PACK:
    case WORK_UNPACK:
        passes = 2 * weights_of(node);
        break;
    case WORK_CLASSIFIER:
        flops = 2 * (program_trains(program) ? 3 : 1) * (double)program->config.batch *
                node->in_channels * node->out_channels;
        passes = (double)node->in_channels * node->out_channels;
        break;
    case WORK_ADD:
        passes = 3 * out;
        break;
    case WORK_POOL:
        passes = (program_trains(program) ? 2 : 1) * (in + out);
        break;
    default:
        passes = out;
    }
    line->flops = flops;
    line->bytes = passes * (double)backend_cpu_of(program->state)->kernels->element;
}

int profile_dnnl_read(struct profile_line *lines, int most, const struct program *program)
{
    static const char *const names[WORKS] = {
        [WORK_INPUT] = "input",
        [WORK_PACK] = "weights to blocks",
        [WORK_CONV] = "convolution",
        [WORK_BN] = "BN, ReLU, add",
        [WORK_POOL] = "pool",
        [WORK_CLASSIFIER] = "classifier",
        [WORK_BN_BACKWARD] = "BN backward",
        [WORK_CONV_WEIGHTS] = "convolution, weights' gradient",
        [WORK_CONV_DATA] = "convolution, data's gradient",
        [WORK_UNPACK] = "gradient from blocks",
        [WORK_ADD] = "gradients added",
    };
    int count = 0;
    for (int node = 0; program->profile && node < program->net->node_count; node++) {
        for (int work = 0; work < WORKS && count < most; work++) {
            double seconds = program->profile[node][work];
            if (seconds == 0)
                continue;
            lines[count] = (struct profile_line){.node = node, .work = names[work]};
            cost_of(&lines[count], program, (enum work)work);
            lines[count++].seconds = seconds;
        }
    }
    return count;
}

/* The best of a few: a matrix product that fits the caches, and copying what fits none. */
int profile_dnnl_peaks(double *flops, double *bytes, struct backend *backend)
{
    enum { SIDE = 1024, TRIES = 5 };
    const size_t count = (size_t)16 << 20;
    float *a = calloc(3 * (size_t)SIDE * SIDE, sizeof *a);
    float *memory = malloc(2 * count * sizeof *memory);
    int code = a && memory ? 0 : err_set(ERR_NOMEM, "out of memory for the machine's peaks");
    omp_set_num_threads(backend->threads);
    *flops = *bytes = 0;
    for (int i = 0; i < TRIES && !code; i++) {
        const float *b = a + (size_t)SIDE * SIDE;
        double begin_s = clock_seconds();
        code = matrix_product(a + 2 * (size_t)SIDE * SIDE, a, false, b, false, SIDE, SIDE, SIDE);
        double rate = 2.0 * SIDE * SIDE * SIDE / (clock_seconds() - begin_s);
        *flops = rate > *flops ? rate : *flops;
        begin_s = clock_seconds();
#pragma omp parallel for num_threads(backend->threads) schedule(static)
        for (size_t k = 0; k < count; k++)
            memory[k] = i == 0 ? 1 : memory[count + k];
        rate = 2.0 * (double)count * sizeof *memory / (clock_seconds() - begin_s);
        if (i == 0)
            memset(memory + count, 0, count * sizeof *memory);
        else
            *bytes = rate > *bytes ? rate : *bytes;
    }
    free(a);
    free(memory);
    return code;
}
