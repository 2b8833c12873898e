/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a whole store: every record verified and, with a decoder, every image decoded. */
#ifndef DATASETS_CHECK_H
#define DATASETS_CHECK_H

#include "datasets/pack.h"
#include "datasets/store.h"

struct check_damage {
    uint32_t id;
    char *reason;
};

struct check_result {
    struct check_damage *damaged; /* [damaged_count], by id */
    size_t damaged_count;
};

/* decoder NULL: records only. Damage is a result, not an error. ERR_NOMEM, ERR_STOPPED by a
 * signal. result must be released in any case. */
int check_run(struct check_result *result, const struct store *store,
              const struct image_decoder *decoder, int jobs);
void check_result_release(struct check_result *result);

#endif
