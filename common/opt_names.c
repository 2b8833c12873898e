/* SPDX-License-Identifier: Apache-2.0 */
/* Finding options by name, and what was meant by a name that is none. */
#include <string.h>

#include "common/opt_private.h"

enum { NAME_BYTES = 64 };

bool opt_same_name(const char *a, const char *b)
{
    for (; *a && *b; a++, b++) {
        if ((*a == '_' ? '-' : *a) != (*b == '_' ? '-' : *b))
            return false;
    }
    return *a == *b;
}

struct opt_place opt_find(struct opt_section *sections, size_t count, const char *name)
{
    for (size_t s = 0; s < count; s++) {
        for (size_t i = 0; i < sections[s].count; i++) {
            if (opt_same_name(sections[s].options[i].name, name))
                return (struct opt_place){&sections[s].options[i], &sections[s]};
        }
    }
    return (struct opt_place){0};
}

/* Levenshtein's distance, one row of the table at a time. */
static size_t distance(const char *a, const char *b)
{
    size_t row[NAME_BYTES], length = strlen(b);
    if (length >= NAME_BYTES)
        return NAME_BYTES;
    for (size_t j = 0; j <= length; j++)
        row[j] = j;
    for (size_t i = 0; a[i]; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < length; j++) {
            size_t change = diagonal + (a[i] != b[j]);
            size_t least = row[j] < row[j + 1] ? row[j] + 1 : row[j + 1] + 1;
            diagonal = row[j + 1];
            row[j + 1] = change < least ? change : least;
        }
    }
    return row[length];
}

const char *opt_nearest(const struct opt_section *sections, size_t count, const char *name)
{
    const char *nearest = NULL;
    size_t best = 2 + strlen(name) / 6; /* more changes than this are another word */
    for (size_t s = 0; s < count; s++) {
        for (size_t i = 0; i < sections[s].count; i++) {
            size_t now = distance(name, sections[s].options[i].name);
            if (now < best || (now == best && !nearest)) {
                best = now;
                nearest = sections[s].options[i].name;
            }
        }
    }
    return nearest;
}
