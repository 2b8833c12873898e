/* SPDX-License-Identifier: Apache-2.0 */
/* What the files opt*.c share. */
#ifndef COMMON_OPT_PRIVATE_H
#define COMMON_OPT_PRIVATE_H

#include "common/opt.h"

/* An option and the section that holds its value. */
struct opt_place {
    const struct opt *option; /* NULL: not found */
    struct opt_section *section;
};

/* Memory that lives until opt_memory_close; NULL when out. */
void *opt_memory_take(struct opt_memory *memory, size_t bytes);
char *opt_memory_copy(struct opt_memory *memory, const char *text);

/* Remembers that the option was given, and tells so. */
int opt_memory_note(struct opt_memory *memory, const struct opt *option);
bool opt_memory_noted(const struct opt_memory *memory, const struct opt *option);

/* Parses text into the option's value; where names the option in messages ("--epochs", "epochs").
 * Strings are not copied. An OPT_LIST gets one item more. ERR_ARG, ERR_NOMEM. */
int opt_set(struct opt_memory *memory, const struct opt *option, void *values, const char *text,
            const char *where);

/* Size of an option's value in memory. */
size_t opt_value_bytes(enum opt_type type);

/* Equal when '_' and '-' are the same. */
bool opt_same_name(const char *a, const char *b);

struct opt_place opt_find(struct opt_section *sections, size_t count, const char *name);

/* The name that the user may have meant, NULL when none is near. */
const char *opt_nearest(const struct opt_section *sections, size_t count, const char *name);

/* Reads keys into all sections that are in_recipe and notes them; keys that another section or
 * foreign_keys knows are skipped. */
int opt_read_file(struct opt_section *sections, size_t count, struct opt_memory *memory,
                  const char *path, const char *const *foreign_keys);

/* What stands for the option's value: "N", "FILE", "a|b". */
const char *opt_value_name(const struct opt *option);

void opt_print_help(FILE *stream, const struct opt_program *program,
                    const struct opt_section *general);
void opt_print_man(FILE *stream, const struct opt_program *program,
                   const struct opt_section *general); /* roff, section 1 */

#endif
