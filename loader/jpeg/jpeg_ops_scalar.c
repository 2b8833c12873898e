/* SPDX-License-Identifier: Apache-2.0 */
/* The indexed decoder's inner loops, compiled for level scalar. */
#include "loader/jpeg/entropy_loops.h"
#include "loader/jpeg/jpeg_levels.h"
#include "loader/jpeg/survey_loops.h"

const struct jpeg_ops jpeg_ops_scalar = {
    .destuff = destuff_scalar,
    .decode_two = decode_two,
    .decode_one = decode_one,
    .skip_two = skip_two,
    .skip_one = skip_one,
    .survey_one = survey_one,
    .survey_two = survey_two,
    .idct = idct_scalar,
};
