/* SPDX-License-Identifier: Apache-2.0 */
/* The list of a source's samples: kept compact, then sorted into the order of ids. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/progress.h"
#include "datasets/meta.h"
#include "datasets/source.h"
#include "datasets/store.h"

enum { SHOW_FROM = 20000, SHOW_EVERY = 1000 }; /* samples: progress of listing */

static int grow(void *array, size_t *room, size_t needed, size_t element_bytes)
{
    void **pointer = array;
    if (needed <= *room)
        return 0;
    size_t wanted = *room ? 2 * *room : 64;
    while (wanted < needed)
        wanted *= 2;
    void *grown = reallocarray(*pointer, wanted, element_bytes);
    if (!grown)
        return err_set(ERR_NOMEM, "out of memory for the list of samples");
    *pointer = grown;
    *room = wanted;
    return 0;
}

int list_add_class(struct source_list *list, const char *id, size_t *index)
{
    if (list->class_count == STORE_CLASSES_MAX)
        return err_set(ERR_DATA, "more than %d classes", STORE_CLASSES_MAX);
    if (!*id || !meta_text_is_clean(id))
        return err_set(ERR_DATA, "class id \"%s\" is empty, not UTF-8 or holds control characters",
                       id);
    int code = grow(&list->class_ids, &list->class_room, list->class_count + 1, sizeof(char *));
    if (code)
        return code;
    char *copy = strdup(id);
    if (!copy)
        return err_set(ERR_NOMEM, "out of memory for the list of classes");
    *index = list->class_count;
    list->class_ids[list->class_count++] = copy;
    return 0;
}

static int add_text(struct source_list *list, const char *text, size_t *at)
{
    size_t length = strlen(text) + 1;
    int code = grow(&list->text, &list->text_room, list->text_bytes + length, 1);
    if (code)
        return code;
    memcpy(list->text + list->text_bytes, text, length);
    *at = list->text_bytes;
    list->text_bytes += length;
    return 0;
}

static int add_entry(struct source_list *list, struct source_entry entry)
{
    if (list->count == UINT32_MAX - 1)
        return err_set(ERR_DATA, "more samples than a store can hold");
    int code = grow(&list->entries, &list->room, list->count + 1, sizeof *list->entries);
    if (code)
        return code;
    list->entries[list->count++] = entry;
    if (list->count == SHOW_FROM)
        list->progress = progress_open("listing", 0, "images");
    if (list->progress && list->count % SHOW_EVERY == 0)
        progress_update(list->progress, list->count, NULL);
    return 0;
}

int list_add(struct source_list *list, size_t class_index, const char *name,
             struct source_place place)
{
    struct source_entry entry = {.label = (uint32_t)class_index,
                                 .file = place.file,
                                 .offset = place.offset,
                                 .bytes = place.bytes};
    int code = add_text(list, name, &entry.name);
    return code ? code : add_entry(list, entry);
}

int list_add_path(struct source_list *list, size_t class_index, const char *path, uint64_t bytes)
{
    struct source_entry entry = {
        .label = (uint32_t)class_index, .file = SOURCE_PATH, .bytes = bytes};
    size_t at;
    int code = add_text(list, path, &at);
    entry.offset = at;
    entry.name = at + (size_t)(source_base_name(path) - path);
    return code ? code : add_entry(list, entry);
}

int list_number_classes(struct source_list *list, const struct source_request *request,
                        uint32_t most)
{
    size_t index, count = (size_t)most + 1;
    char id[32];
    int code = 0;
    if (request->class_ids) {
        if (count > request->class_count)
            return err_set(ERR_DATA, "label %u, but there are %zu classes (they count from 0)",
                           most, request->class_count);
        for (size_t i = 0; !code && i < request->class_count; i++)
            code = list_add_class(list, request->class_ids[i], &index);
        return code;
    }
    /* A class of these must be empty; one strange label shall not make a million of them. */
    if (!request->allow_empty && count > list->count)
        return err_set(ERR_DATA,
                       "labels up to %u, but %zu samples: there are classes without files", most,
                       list->count);
    if (count < request->least_classes)
        count = request->least_classes;
    int width = snprintf(id, sizeof id, "%zu", count - 1);
    for (size_t i = 0; !code && i < count; i++) {
        snprintf(id, sizeof id, "%0*zu", width, i);
        code = list_add_class(list, id, &index);
    }
    return code;
}

static int compare_ids(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The ids sorted; NULL when memory is out. */
static const char **sorted_ids(const char *const *ids, size_t count)
{
    const char **sorted = calloc(count + 1, sizeof *sorted);
    if (!sorted)
        return NULL;
    memcpy(sorted, ids, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, compare_ids);
    return sorted;
}

static bool holds(const char *const *sorted, size_t count, const char *const *id)
{
    return bsearch(id, sorted, count, sizeof *sorted, compare_ids) != NULL;
}

int list_expect_classes(struct source_list *list, const struct source_request *request)
{
    size_t index, have = list->class_count, want = request->class_count;
    if (!request->only_these)
        return 0;
    const char **wanted = sorted_ids(request->class_ids, want);
    const char **found = sorted_ids((const char *const *)list->class_ids, have);
    int code = wanted && found ? 0 : err_set(ERR_NOMEM, "out of memory for the list of classes");
    for (size_t i = 0; !code && i < have; i++)
        if (!holds(wanted, want, &found[i]))
            code = err_set(ERR_DATA,
                           "class %s is none of the %zu classes that are wanted; train and val "
                           "must have the same",
                           found[i], want);
    for (size_t i = 0; !code && i < want; i++)
        if (!holds(found, have, &wanted[i]))
            code = list_add_class(list, wanted[i], &index);
    free(wanted);
    free(found);
    return code;
}

static int compare_classes(const void *a, const void *b, void *ids)
{
    char **class_ids = ids;
    return strcmp(class_ids[*(const uint32_t *)a], class_ids[*(const uint32_t *)b]);
}

static int compare_entries(const void *a, const void *b, void *text)
{
    const struct source_entry *x = a, *y = b;
    if (x->label != y->label)
        return x->label < y->label ? -1 : 1;
    return strcmp((char *)text + x->name, (char *)text + y->name);
}

/* Sorts class_ids and renumbers the entries' labels. */
static int sort_classes(struct source_list *list)
{
    size_t count = list->class_count;
    uint32_t *order = calloc(count, sizeof *order), *place = calloc(count, sizeof *place);
    char **sorted = calloc(count, sizeof *sorted);
    int code = 0;
    if (!order || !place || !sorted) {
        code = err_set(ERR_NOMEM, "out of memory for the list of classes");
        goto end;
    }
    for (size_t i = 0; i < count; i++)
        order[i] = (uint32_t)i;
    qsort_r(order, count, sizeof *order, compare_classes, list->class_ids);
    for (size_t i = 0; i < count; i++) {
        sorted[i] = list->class_ids[order[i]];
        place[order[i]] = (uint32_t)i;
        if (i > 0 && strcmp(sorted[i - 1], sorted[i]) == 0)
            code = err_set(ERR_DATA, "class %s is there twice", sorted[i]);
    }
    memcpy(list->class_ids, sorted, count * sizeof *sorted);
    for (size_t i = 0; i < list->count; i++)
        list->entries[i].label = place[list->entries[i].label];
end:
    free(order);
    free(place);
    free(sorted);
    return code;
}

/* Entries are sorted: walks the classes beside them. */
static int check_classes(const struct source_list *list)
{
    size_t next = 0;
    for (size_t i = 0; i < list->class_count; i++) {
        if (next == list->count || list->entries[next].label != i)
            return err_set(ERR_DATA, "class %s holds no files; --skip-bad allows that",
                           list->class_ids[i]);
        while (next < list->count && list->entries[next].label == i)
            next++;
    }
    return 0;
}

int list_finish(struct source_list *list, bool allow_empty)
{
    if (list->count == 0 && (list->class_count == 0 || allow_empty))
        return err_set(ERR_DATA, "holds no samples");
    int code = sort_classes(list);
    if (code)
        return code;
    if (list->count > 0)
        qsort_r(list->entries, list->count, sizeof *list->entries, compare_entries, list->text);
    for (size_t i = 1; i < list->count; i++) {
        const struct source_entry *entry = &list->entries[i];
        if (compare_entries(entry - 1, entry, list->text) == 0)
            return err_set(ERR_DATA, "class %s holds two files named %s",
                           list->class_ids[entry->label], list->text + entry->name);
    }
    return allow_empty ? 0 : check_classes(list);
}

void list_release(struct source_list *list)
{
    for (size_t i = 0; i < list->class_count; i++)
        free(list->class_ids[i]);
    free(list->class_ids);
    free(list->entries);
    free(list->text);
}
