/* SPDX-License-Identifier: Apache-2.0 */
/* Files that say which class a file is of: what --labels takes, and what --source list packs.
 * Told apart by their first lines; blank lines and lines that begin with # are left out:
 *
 *   two columns    FILE CLASS, separated by white space; the class is the last word
 *   im2rec's .lst  INDEX <tab> LABEL <tab> FILE, the label a whole number or like 3.000000
 *   csv            FILE,CLASS... with or without a heading; the second field's first word counts
 *                  (LOC_val_solution.csv: "n03995372 85 1 499 272")
 *
 * Classes are ids or, where every one in the file is a number, numbers from 0. A file of nothing
 * but numbers is refused: ImageNet's devkit has one, whose numbers are not places in the sorted
 * ids. */
#ifndef DATASETS_LABELS_H
#define DATASETS_LABELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct labels_entry {
    const char *file;
    uint32_t class_index; /* in ids, or the number itself */
    bool used;            /* found by labels_find */
};

struct labels {
    struct labels_entry *entries; /* [count], sorted by file */
    size_t count;
    bool numbers;     /* classes are numbers */
    uint32_t most;    /* the highest number */
    const char **ids; /* [id_count], NULL with numbers; in no order */
    size_t id_count;
    size_t common; /* bytes that all files begin with, up to a slash */
    char *text;    /* owns all strings */
};

/* ERR_IO, ERR_NOMEM; ERR_DATA names file and line. Zero *labels before. */
int labels_read(struct labels *labels, const char *path);
/* The same from `bytes` bytes of text with a NUL behind them, which labels owns afterwards. */
int labels_parse(struct labels *labels, char *text, size_t bytes, const char *path);
void labels_release(struct labels *labels);

/* The entry of a file: by its path or the path's end behind any slash, with or without its
 * extension. What the files of all entries have in common (val/) may be missing. NULL: none. */
struct labels_entry *labels_find(struct labels *labels, const char *path);

/* Is the text a whole number from 0 and under STORE_CLASSES_MAX, perhaps with zeros behind a point?
 */
bool labels_number(uint32_t *number, const char *text);

#endif
