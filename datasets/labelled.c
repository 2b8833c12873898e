/* SPDX-License-Identifier: Apache-2.0 */
#include "datasets/labelled.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"

int labelled_begin(struct labelled *labelled, struct source *source,
                   const struct source_request *request)
{
    *labelled = (struct labelled){.source = source, .request = request, .last_class = SIZE_MAX};
    if (!request->labels)
        return 0;
    int code = labels_read(&labelled->labels, request->labels);
    if (code || labelled->labels.numbers)
        return code;
    labelled->class_of_id = malloc(labelled->labels.id_count * sizeof *labelled->class_of_id);
    if (!labelled->class_of_id)
        return err_set(ERR_NOMEM, "out of memory for classes");
    for (size_t i = 0; i < labelled->labels.id_count; i++)
        labelled->class_of_id[i] = SIZE_MAX;
    return 0;
}

static int by_label(struct labelled *labelled, size_t *class_index, const char *path)
{
    struct labels_entry *entry = labels_find(&labelled->labels, path);
    if (!entry) {
        if (labelled->unlabelled++ == 0)
            labelled->first_unlabelled = strdup(path);
        *class_index = SIZE_MAX;
        return 0;
    }
    *class_index = entry->class_index;
    if (labelled->labels.numbers)
        return 0;
    size_t *known = &labelled->class_of_id[entry->class_index];
    int code = 0;
    if (*known == SIZE_MAX)
        code = list_add_class(&labelled->source->list, labelled->labels.ids[entry->class_index],
                              known);
    *class_index = *known;
    return code;
}

struct folder {
    size_t class_index;
    char id[];
};

static int compare_folders(const void *a, const void *b)
{
    const struct folder *x = a, *y = b;
    return strcmp(x->id, y->id);
}

static int find_folder(struct labelled *labelled, const char *id, size_t length)
{
    struct folder *folder = malloc(sizeof *folder + length + 1);
    if (!folder)
        return err_set(ERR_NOMEM, "out of memory for classes");
    memcpy(folder->id, id, length);
    folder->id[length] = '\0';
    struct folder **found = tsearch(folder, &labelled->folders, compare_folders);
    int code = 0;
    if (!found)
        code = err_set(ERR_NOMEM, "out of memory for classes");
    else if (*found == folder)
        code = list_add_class(&labelled->source->list, folder->id, &folder->class_index);
    if (found && !code)
        labelled->last_class = (*found)->class_index;
    if (!found || *found != folder)
        free(folder);
    return code;
}

int labelled_folder(struct labelled *labelled, size_t *class_index, const char *folder)
{
    int code = find_folder(labelled, folder, strlen(folder));
    *class_index = labelled->last_class;
    return code;
}

/* Files of a class come one after another, as a rule. */
static int by_folder(struct labelled *labelled, size_t *class_index, const char *path)
{
    const struct source_list *list = &labelled->source->list;
    const char *base = source_base_name(path);
    if (base == path)
        return err_set(ERR_DATA,
                       "%s: %s is in no class folder; for files without folders say --labels FILE",
                       labelled->source->path, path);
    const char *begin = base - 1;
    while (begin > path && begin[-1] != '/')
        begin--;
    size_t length = (size_t)(base - 1 - begin);
    size_t last = labelled->last_class;
    if (last == SIZE_MAX || strncmp(list->class_ids[last], begin, length) != 0 ||
        list->class_ids[last][length] != '\0') {
        int code = find_folder(labelled, begin, length);
        if (code)
            return code;
    }
    *class_index = labelled->last_class;
    return 0;
}

int labelled_class(struct labelled *labelled, size_t *class_index, const char *path)
{
    return labelled->request->labels ? by_label(labelled, class_index, path)
                                     : by_folder(labelled, class_index, path);
}

int labelled_end(struct labelled *labelled)
{
    const struct labels *labels = &labelled->labels;
    const char *path = labelled->request->labels;
    if (!path)
        return 0;
    if (labelled->unlabelled) {
        if (!labelled->request->allow_empty)
            return err_set(ERR_DATA,
                           "%s: no label for %zu files, one is %s; --skip-bad leaves them out",
                           path, labelled->unlabelled,
                           labelled->first_unlabelled ? labelled->first_unlabelled : "?");
        log_warn("%s: %zu files without a label are left out, one is %s", path,
                 labelled->unlabelled,
                 labelled->first_unlabelled ? labelled->first_unlabelled : "?");
    }
    size_t unused = 0;
    for (size_t i = 0; i < labels->count; i++)
        unused += !labels->entries[i].used;
    if (unused)
        log_warn("%s: %zu of %zu labels are of files that are not there", path, unused,
                 labels->count);
    return labels->numbers
               ? list_number_classes(&labelled->source->list, labelled->request, labels->most)
               : 0;
}

void labelled_release(struct labelled *labelled)
{
    labels_release(&labelled->labels);
    tdestroy(labelled->folders, free);
    free(labelled->class_of_id);
    free(labelled->first_unlabelled);
}
