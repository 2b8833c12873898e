/* SPDX-License-Identifier: Apache-2.0 */
/* What is taken for what: the worst classes with sample pictures, and for few classes the whole
 * matrix. */
#ifndef TOOLS_REPORT_CONFUSION_H
#define TOOLS_REPORT_CONFUSION_H

#include "datasets/store.h"
#include "tools/report/run.h"

/* Whether the run's predictions, which it must have, are of this store. ERR_ARG. */
int confusion_check(const struct run *run, const struct store *store);

/* Writes the section of one run with predictions. store: the validation store. ERR_NOMEM, ERR_DATA.
 */
int confusion_write(FILE *stream, const struct run *run, const struct store *store);

#endif
