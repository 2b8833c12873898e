/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of the trainer whose libraries many machines lack (CUDA, MPI) are shared objects that are
 * opened when asked for, so that one binary runs anywhere. They use the program's own functions
 * (common/, trainer/): the program exports its symbols. */
#ifndef TRAINER_MODULE_H
#define TRAINER_MODULE_H

/* Opens satchel-NAME.so (the first there is of $SATCHEL_MODULES, the program's own directory,
 * ../trainer beside it as in a build tree, the installed one) and finds a symbol in it. It stays
 * open until the process ends: such libraries do not survive being closed. ERR_UNSUPPORTED when no
 * module is there or what it links to is missing; the message says which. */
int module_open(void **symbol, const char *name, const char *symbol_name);

#endif
