/* SPDX-License-Identifier: Apache-2.0 */
/* --class-names FILE. */
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/file.h"
#include "datasets/meta.h"
#include "datasets/pack.h"

enum { FILE_BYTES_MAX = 16 << 20, WNID_BYTES = 9 };

/* Cuts the text into its non-blank lines, without white space at their ends. */
static char *next_line(char **rest)
{
    while (**rest) {
        char *line = *rest, *end = line + strcspn(line, "\n");
        *rest = *end ? end + 1 : end;
        *end = '\0';
        line += strspn(line, " \t\r");
        while (end > line && strchr(" \t\r", end[-1]))
            *--end = '\0';
        if (*line)
            return line;
    }
    return NULL;
}

static int read_text(char **text, const char *path)
{
    size_t bytes;
    return file_read((uint8_t **)text, &bytes, path, FILE_BYTES_MAX);
}

int class_names_count_lines(size_t *lines, const char *path)
{
    char *text, *rest;
    int code = read_text(&text, path);
    *lines = 0;
    if (code)
        return code;
    for (rest = text; next_line(&rest);)
        ++*lines;
    free(text);
    return 0;
}

static int compare_ids(const void *key, const void *element)
{
    return strcmp(key, *(char *const *)element);
}

/* The name behind the id that the line begins with; NULL when it begins with none. Ids are sorted.
 */
static char *name_behind_id(char *line, char *const *class_ids, size_t count, size_t *index)
{
    size_t length = strcspn(line, " \t");
    char separator = line[length];
    line[length] = '\0';
    char *const *found = bsearch(line, class_ids, count, sizeof *class_ids, compare_ids);
    line[length] = separator;
    if (!found || !separator)
        return NULL;
    *index = (size_t)(found - class_ids);
    return line + length + strspn(line + length, " \t");
}

static int set_name(char **names, size_t index, const char *name)
{
    if (names[index])
        return err_set(ERR_DATA, "a class has two names: %s and %s", names[index], name);
    if (!meta_text_is_clean(name))
        return err_set(ERR_DATA, "class name \"%s\" is not UTF-8 or holds control characters",
                       name);
    names[index] = strdup(name);
    return names[index] ? 0 : err_set(ERR_NOMEM, "out of memory for class names");
}

/* True when every class got its name. */
static int by_id(char **names, bool *complete, char *text, char *const *class_ids, size_t count)
{
    char *rest = text, *line;
    size_t index, named = 0;
    while ((line = next_line(&rest))) {
        const char *name = name_behind_id(line, class_ids, count, &index);
        if (!name)
            continue; /* a file for more classes than this source has */
        int code = set_name(names, index, name);
        if (code)
            return code;
        named++;
    }
    *complete = named == count;
    return 0;
}

static int by_line(char **names, char *text, size_t count)
{
    char *rest = text, *line;
    size_t lines = 0;
    for (; (line = next_line(&rest)); lines++) {
        int code = lines < count ? set_name(names, lines, line) : 0;
        if (code)
            return code;
    }
    if (lines != count)
        return err_set(ERR_ARG,
                       "%zu lines for %zu classes: neither \"ID NAME\" for each class nor one name "
                       "per line",
                       lines, count);
    return 0;
}

static void clear(char **names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(names[i]);
        names[i] = NULL;
    }
}

int class_names_read(char ***out, const char *path, char *const *class_ids, size_t count)
{
    char *text = NULL, *copy = NULL, **names = calloc(count, sizeof *names);
    bool complete = false;
    *out = NULL;
    int code = names ? read_text(&text, path) : err_set(ERR_NOMEM, "out of memory");
    if (code)
        goto fail;
    copy = strdup(text);
    if (!copy)
        code = err_set(ERR_NOMEM, "out of memory");
    else if (class_ids)
        code = by_id(names, &complete, copy, class_ids, count);
    if (!code && !complete) {
        clear(names, count);
        code = by_line(names, text, count);
    }
    if (code) {
        err_wrap(code, "%s", path);
        goto fail;
    }
    free(text);
    free(copy);
    *out = names;
    return 0;
fail:
    free(text);
    free(copy);
    class_names_free(names, count);
    return code;
}

static bool begins_with_wnid(const char *line)
{
    return line[0] == 'n' && strspn(line + 1, "0123456789") == WNID_BYTES - 1 &&
           strchr(" \t", line[WNID_BYTES]);
}

int class_names_wnids(char ***out, size_t *count, const char *path)
{
    char *text, *rest, *line, **ids;
    size_t lines;
    *out = NULL;
    *count = 0;
    int code = class_names_count_lines(&lines, path);
    if (!code)
        code = read_text(&text, path);
    if (code)
        return code;
    ids = calloc(lines + 1, sizeof *ids);
    if (!ids)
        code = err_set(ERR_NOMEM, "out of memory for class ids");
    for (rest = text; !code && *count < lines && (line = next_line(&rest));) {
        if (!begins_with_wnid(line))
            break;
        ids[*count] = strndup(line, WNID_BYTES);
        if (!ids[(*count)++])
            code = err_set(ERR_NOMEM, "out of memory for class ids");
    }
    free(text);
    if (code || *count < lines || lines == 0) {
        class_names_free(ids, *count);
        *count = 0;
        return code;
    }
    *out = ids;
    return 0;
}

void class_names_free(char **names, size_t count)
{
    if (!names)
        return;
    clear(names, count);
    free(names);
}
