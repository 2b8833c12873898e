/* SPDX-License-Identifier: Apache-2.0 */
/* The loss scale of low-precision training. */
#include "trainer/scaler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"

static const double highest_scale =
    16777216; /* 2^24: past it a loss of 1 nears fp16 gradients' end */

int scaler_init(struct scaler *scaler, const char *text, enum precision precision)
{
    *scaler = (struct scaler){.scale = 1};
    if (strcmp(text, "dynamic") == 0) {
        if (precision == PRECISION_FP16)
            *scaler = (struct scaler){.scale = SCALER_START, .dynamic = true};
        return 0;
    }
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value) || value <= 0)
        return err_set(ERR_ARG, "--loss-scale '%s': give 'dynamic' or a number above 0", text);
    if (precision == PRECISION_FP16)
        scaler->scale = value;
    return 0;
}

void scaler_resume(struct scaler *scaler, double scale, uint64_t good_steps, uint64_t bad_steps)
{
    /* A dynamic scale that has come down to 1 has counted a step since: this one is fp32's. */
    bool had_none = scale == 1 && good_steps == 0 && bad_steps == 0;
    scaler->bad_steps = (uint32_t)bad_steps;
    if (!scaler->dynamic || had_none)
        return;
    scaler->scale = scale;
    scaler->good_steps = (uint32_t)good_steps;
}

bool scaler_step(struct scaler *scaler, bool finite)
{
    if (!finite) {
        scaler->good_steps = 0;
        if (scaler->scale <= 1 || ++scaler->bad_steps >= SCALER_BAD_STEPS)
            return false;
        if (scaler->dynamic)
            scaler->scale /= 2;
        return true;
    }
    scaler->bad_steps = 0;
    if (scaler->dynamic && ++scaler->good_steps >= SCALER_GROWTH_STEPS) {
        scaler->good_steps = 0;
        if (scaler->scale < highest_scale)
            scaler->scale *= 2;
    }
    return true;
}
