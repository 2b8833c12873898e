/* SPDX-License-Identifier: Apache-2.0 */
#include "datasets/labels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/err.h"
#include "common/file.h"
#include "datasets/source.h"
#include "datasets/store.h"

enum { FILE_BYTES_MAX = 1 << 30 };

enum form { FORM_UNKNOWN, FORM_COLUMNS, FORM_LST, FORM_CSV };

/* A line's parts, cut out of the text. */
struct line {
    char *file, *label;
};

struct parser {
    struct labels *labels;
    const char *path;
    enum form form;
    size_t number; /* of the line, from 1 */
    size_t room;
    const char **words; /* [room]: the label of each entry */
};

static int refuse(const struct parser *parser, const char *what)
{
    return err_set(ERR_DATA, "%s: line %zu: %s", parser->path, parser->number, what);
}

/* Cuts white space off both ends. */
static char *trimmed(char *begin, char *end)
{
    while (end > begin && strchr(" \t\r", end[-1]))
        end--;
    *end = '\0';
    return begin + strspn(begin, " \t");
}

/* Without the quotes around a csv field. */
static char *unquoted(char *field)
{
    size_t length = strlen(field);
    if (length >= 2 && field[0] == '"' && field[length - 1] == '"') {
        field[length - 1] = '\0';
        field++;
    }
    return field;
}

static char *end_of(char *text)
{
    return text + strlen(text);
}

static size_t count_of(const char *text, char what)
{
    size_t count = 0;
    for (; (text = strchr(text, what)); text++)
        count++;
    return count;
}

static bool is_whole_number(const char *text)
{
    return *text && text[strspn(text, "0123456789")] == '\0';
}

static enum form form_of(const char *text)
{
    if (count_of(text, '\t') >= 2 && is_whole_number((char[2]){text[0], '\0'}))
        return FORM_LST;
    return strchr(text, ',') && !strchr(text, '\t') ? FORM_CSV : FORM_COLUMNS;
}

static int cut_csv(const struct parser *parser, struct line *line, char *text)
{
    char *comma = strchr(text, ',');
    if (!comma)
        return refuse(parser, "no comma");
    line->file = unquoted(trimmed(text, comma));
    char *field = comma + 1, *end = strchr(field, ',');
    field = unquoted(trimmed(field, end ? end : end_of(field)));
    field[strcspn(field, " ")] = '\0';
    line->label = field;
    return 0;
}

static int cut_lst(const struct parser *parser, struct line *line, char *text)
{
    char *label = strchr(text, '\t'), *file = strrchr(text, '\t');
    if (!label || label == file)
        return refuse(parser, "not INDEX, LABEL and FILE with tabs between them");
    *label++ = '\0';
    line->label = trimmed(label, file);
    line->file = trimmed(file + 1, end_of(file + 1));
    if (strchr(line->label, '\t'))
        return refuse(parser, "several labels; a sample has one class");
    return 0;
}

static int cut_columns(const struct parser *parser, struct line *line, char *text)
{
    char *end = end_of(text), *label = end;
    while (label > text && !strchr(" \t", label[-1]))
        label--;
    if (label == text)
        return is_whole_number(text)
                   ? refuse(parser,
                            "nothing but a number. The devkit's ground truth cannot be used "
                            "as it is: its numbers are ILSVRC2012_IDs of meta.mat, not places in "
                            "the sorted WNIDs, and its lines name no files; take "
                            "LOC_val_solution.csv or lines \"FILE WNID\"")
                   : refuse(parser, "not FILE and CLASS with white space between them");
    line->label = label;
    line->file = trimmed(text, label);
    return 0;
}

/* Names that the first field of a heading has. */
static bool is_heading(const struct parser *parser, const struct line *line)
{
    static const char *const words[] = {"imageid", "image", "image_id", "file", "filename",
                                        "path",    "name",  "filepath", "id",   "file_name"};
    if (parser->form != FORM_CSV || parser->labels->count > 0 || is_whole_number(line->label))
        return false;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcasecmp(words[i], line->file) == 0)
            return true;
    }
    return false;
}

static int add(struct parser *parser, const struct line *line)
{
    struct labels *labels = parser->labels;
    if (!*line->file || !*line->label)
        return refuse(parser, *line->file ? "no class" : "no file");
    if (labels->count == UINT32_MAX - 1)
        return refuse(parser, "more samples than a store can hold");
    if (labels->count == parser->room) {
        size_t room = parser->room ? 2 * parser->room : 1024;
        struct labels_entry *entries = reallocarray(labels->entries, room, sizeof *entries);
        if (entries)
            labels->entries = entries;
        const char **words = reallocarray(parser->words, room, sizeof *words);
        if (words)
            parser->words = words;
        if (!entries || !words)
            return err_set(ERR_NOMEM, "out of memory for labels");
        parser->room = room;
    }
    const char *file = line->file;
    while (strncmp(file, "./", 2) == 0)
        file += 2;
    parser->words[labels->count] = line->label;
    labels->entries[labels->count++] = (struct labels_entry){.file = file};
    return 0;
}

static int parse_line(struct parser *parser, char *text)
{
    struct line line = {NULL, NULL};
    if (parser->form == FORM_UNKNOWN)
        parser->form = form_of(text);
    int code = parser->form == FORM_CSV   ? cut_csv(parser, &line, text)
               : parser->form == FORM_LST ? cut_lst(parser, &line, text)
                                          : cut_columns(parser, &line, text);
    return code || is_heading(parser, &line) ? code : add(parser, &line);
}

static int parse_lines(struct parser *parser, char *text, const char *end)
{
    int code = 0;
    while (!code && text < end) {
        char *stop = memchr(text, '\n', (size_t)(end - text));
        char *next = stop ? stop + 1 : (char *)end;
        parser->number++;
        if (memchr(text, '\0', (size_t)((stop ? stop : end) - text)))
            return refuse(parser, "a NUL byte: not a text file");
        char *begin = trimmed(text, stop ? stop : (char *)end);
        if (*begin && *begin != '#')
            code = parse_line(parser, begin);
        text = next;
    }
    if (!code && parser->labels->count == 0)
        code = err_set(ERR_DATA, "%s: no labels in it", parser->path);
    return code;
}

bool labels_number(uint32_t *number, const char *text)
{
    uint64_t value = 0;
    const char *at = text;
    for (; *at >= '0' && *at <= '9' && value < STORE_CLASSES_MAX; at++)
        value = 10 * value + (uint64_t)(*at - '0');
    if (at == text || value >= STORE_CLASSES_MAX)
        return false;
    if (*at == '.')
        at += 1 + strspn(at + 1, "0");
    *number = (uint32_t)value;
    return *at == '\0';
}

static int compare_words(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int take_ids(struct parser *parser)
{
    struct labels *labels = parser->labels;
    labels->ids = calloc(labels->count, sizeof *labels->ids);
    if (!labels->ids)
        return err_set(ERR_NOMEM, "out of memory for class ids");
    memcpy(labels->ids, parser->words, labels->count * sizeof *labels->ids);
    qsort(labels->ids, labels->count, sizeof *labels->ids, compare_words);
    for (size_t i = 0; i < labels->count; i++) {
        if (i == 0 || strcmp(labels->ids[labels->id_count - 1], labels->ids[i]) != 0)
            labels->ids[labels->id_count++] = labels->ids[i];
    }
    for (size_t i = 0; i < labels->count; i++) {
        const char **found = bsearch(&parser->words[i], labels->ids, labels->id_count,
                                     sizeof *labels->ids, compare_words);
        labels->entries[i].class_index = (uint32_t)(found - labels->ids);
    }
    return 0;
}

static int take_classes(struct parser *parser)
{
    struct labels *labels = parser->labels;
    labels->numbers = true;
    for (size_t i = 0; labels->numbers && i < labels->count; i++) {
        uint32_t number = 0;
        labels->numbers = labels_number(&number, parser->words[i]);
        if (!labels->numbers && parser->form == FORM_LST)
            return err_set(ERR_DATA, "%s: label %s of %s is not a whole number from 0",
                           parser->path, parser->words[i], labels->entries[i].file);
        labels->entries[i].class_index = number;
        labels->most = number > labels->most ? number : labels->most;
    }
    return labels->numbers ? 0 : take_ids(parser);
}

static int compare_files(const void *a, const void *b)
{
    const struct labels_entry *x = a, *y = b;
    return strcmp(x->file, y->file);
}

/* How much of the names, up to a slash, all of them have in common. */
static size_t common_folder(const struct labels *labels)
{
    const char *first = labels->entries[0].file;
    size_t length = (size_t)(source_base_name(first) - first);
    for (size_t i = 1; length > 0 && i < labels->count; i++) {
        while (length > 0 && strncmp(first, labels->entries[i].file, length) != 0) {
            do
                length--;
            while (length > 0 && first[length - 1] != '/');
        }
    }
    return length;
}

static int sort(struct parser *parser)
{
    struct labels *labels = parser->labels;
    qsort(labels->entries, labels->count, sizeof *labels->entries, compare_files);
    for (size_t i = 1; i < labels->count; i++) {
        if (compare_files(&labels->entries[i - 1], &labels->entries[i]) == 0)
            return err_set(ERR_DATA, "%s: %s is there twice", parser->path,
                           labels->entries[i].file);
    }
    labels->common = common_folder(labels);
    return 0;
}

int labels_parse(struct labels *labels, char *text, size_t bytes, const char *path)
{
    struct parser parser = {.labels = labels, .path = path};
    *labels = (struct labels){.text = text};
    int code = parse_lines(&parser, text, text + bytes);
    if (!code)
        code = take_classes(&parser);
    if (!code)
        code = sort(&parser);
    free(parser.words);
    return code;
}

int labels_read(struct labels *labels, const char *path)
{
    uint8_t *text;
    size_t bytes;
    int code = file_read(&text, &bytes, path, FILE_BYTES_MAX);
    return code ? code : labels_parse(labels, (char *)text, bytes, path);
}

void labels_release(struct labels *labels)
{
    free(labels->entries);
    free(labels->ids);
    free(labels->text);
    *labels = (struct labels){0};
}

/* Compares an entry's file, without the common folder or with it, to `length` bytes of a name. */
static struct labels_entry *find_exact(struct labels *labels, const char *name, size_t length,
                                       size_t skip)
{
    size_t low = 0, high = labels->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const char *file = labels->entries[middle].file + skip;
        int order = strncmp(file, name, length);
        if (order == 0 && file[length] == '\0')
            return &labels->entries[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static size_t without_extension(const char *name)
{
    const char *base = source_base_name(name), *dot = strrchr(base, '.');
    return dot && dot > base ? (size_t)(dot - name) : strlen(name);
}

struct labels_entry *labels_find(struct labels *labels, const char *path)
{
    while (strncmp(path, "./", 2) == 0)
        path += 2;
    for (;;) {
        size_t lengths[2] = {strlen(path), without_extension(path)};
        for (int i = 0; i < 4; i++) {
            struct labels_entry *found =
                find_exact(labels, path, lengths[i / 2], i % 2 ? labels->common : 0);
            if (found) {
                found->used = true;
                return found;
            }
        }
        const char *slash = strchr(path, '/');
        if (!slash)
            return NULL;
        path = slash + 1;
    }
}
