/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: any bytes as a file of labels: columns, .lst or csv. Every entry must be found by its
 * own name, and classes must exist. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "datasets/labels.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct labels labels;
    char *text = malloc(bytes + 1);
    if (!text)
        return 0;
    memcpy(text, data, bytes);
    text[bytes] = '\0';
    if (labels_parse(&labels, text, bytes, "labels") == 0) {
        for (size_t i = 0; i < labels.count; i++) {
            const struct labels_entry *entry = &labels.entries[i];
            if (labels.numbers ? entry->class_index > labels.most
                               : entry->class_index >= labels.id_count)
                abort();
            if (!labels_find(&labels, entry->file))
                abort();
        }
    }
    labels_release(&labels);
    return 0;
}
