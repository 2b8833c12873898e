/* SPDX-License-Identifier: Apache-2.0 */
/* How OpenMP's threads wait for each other. */
#ifndef TRAINER_OPENMP_H
#define TRAINER_OPENMP_H

/* libgomp's waiting threads spin for milliseconds before they sleep: beside loaders on the same
 * cores each barrier then costs a time slice, and training falls to a few per cent of its rate. A
 * few microseconds of spinning keep a quiet machine as fast. libgomp reads its settings before
 * main(), so this starts the program again with GOMP_SPINCOUNT set, unless the user chose
 * OMP_WAIT_POLICY or GOMP_SPINCOUNT; when that fails it returns and nothing has changed. Call it
 * first in main(). */
void openmp_limit_spinning(char **argv);

#endif
