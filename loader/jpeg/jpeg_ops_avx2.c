/* SPDX-License-Identifier: Apache-2.0 */
/* The indexed decoder's inner loops, compiled for level avx2. */
#include "loader/jpeg/entropy_loops.h"
#include "loader/jpeg/jpeg_levels.h"
#include "loader/jpeg/survey_loops.h"

const struct jpeg_ops jpeg_ops_avx2 = JPEG_OPS(avx2);
