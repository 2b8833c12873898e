/* SPDX-License-Identifier: Apache-2.0 */
/* What the files recipe*.c share. */
#ifndef PROTO_RECIPE_PRIVATE_H
#define PROTO_RECIPE_PRIVATE_H

#include "proto/recipe.h"

/* "rrc", "none" or "pad:N" with N within 1 to size. ERR_ARG. */
int recipe_check_crop(const struct recipe *recipe);

#endif
