/* SPDX-License-Identifier: Apache-2.0 */
/* Which class a file of the input belongs to, for the layouts that can say it in two ways: by the
 * folder that the file is in, or by a file of labels. */
#ifndef DATASETS_LABELLED_H
#define DATASETS_LABELLED_H

#include "datasets/labels.h"
#include "datasets/source.h"

struct labelled {
    struct source *source;
    const struct source_request *request;
    struct labels labels;
    size_t *class_of_id;    /* [labels.id_count]: index in the list, SIZE_MAX: not yet there */
    size_t last_class;      /* by folders: the class of the file before, SIZE_MAX: none */
    void *folders;          /* tsearch's tree of the classes that there are */
    size_t unlabelled;      /* files without a label */
    char *first_unlabelled; /* one of them */
};

int labelled_begin(struct labelled *labelled, struct source *source,
                   const struct source_request *request);

/* The class of a file, added to the list when it is new. ERR_DATA: it is in no folder. A file
 * without a label is counted: *class_index is SIZE_MAX, and the file is to be left out. */
int labelled_class(struct labelled *labelled, size_t *class_index, const char *path);

/* The class of a folder, without any labels, even if no file follows. */
int labelled_folder(struct labelled *labelled, size_t *class_index, const char *folder);

/* Names the classes where they are numbers. ERR_DATA: there were files without a label (with the
 * request's allow_empty they only cause a warning). */
int labelled_end(struct labelled *labelled);
void labelled_release(struct labelled *labelled);

#endif
