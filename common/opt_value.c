/* SPDX-License-Identifier: Apache-2.0 */
/* Values of options: from text, to text, and the memory that they live in. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/opt_private.h"

struct block {
    struct block *next;
    max_align_t data[];
};

struct note {
    const struct opt *option;
    struct note *next;
};

struct opt_memory {
    struct block *blocks;
    struct note *notes;
};

struct opt_memory *opt_memory_open(void)
{
    return calloc(1, sizeof(struct opt_memory));
}

void opt_memory_close(struct opt_memory *memory)
{
    if (!memory)
        return;
    for (struct block *block = memory->blocks, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    free(memory);
}

void *opt_memory_take(struct opt_memory *memory, size_t bytes)
{
    struct block *block = malloc(sizeof *block + bytes);
    if (!block)
        return NULL;
    block->next = memory->blocks;
    memory->blocks = block;
    return block->data;
}

char *opt_memory_copy(struct opt_memory *memory, const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = opt_memory_take(memory, bytes);
    return copy ? memcpy(copy, text, bytes) : NULL;
}

int opt_memory_note(struct opt_memory *memory, const struct opt *option)
{
    struct note *note = opt_memory_take(memory, sizeof *note);
    if (!note)
        return err_set(ERR_NOMEM, "out of memory for the options");
    *note = (struct note){option, memory->notes};
    memory->notes = note;
    return 0;
}

bool opt_memory_noted(const struct opt_memory *memory, const struct opt *option)
{
    for (const struct note *note = memory->notes; note; note = note->next) {
        if (note->option == option)
            return true;
    }
    return false;
}

static int set_flag(bool *value, const char *text, const char *where)
{
    static const char *const yes[] = {"true", "yes", "on", "1"};
    static const char *const no[] = {"false", "no", "off", "0"};
    for (size_t i = 0; i < ARRAY_COUNT(yes); i++) {
        if (strcmp(text, yes[i]) == 0 || strcmp(text, no[i]) == 0) {
            *value = strcmp(text, yes[i]) == 0;
            return 0;
        }
    }
    return err_set(ERR_ARG, "%s: '%s' is neither true nor false", where, text);
}

/* A table that names no limits means none. */
static bool has_limits(const struct opt *option)
{
    return option->min != 0 || option->max != 0;
}

static int out_of_range(const struct opt *option, const char *text, const char *where)
{
    return err_set(ERR_ARG, "%s: %s is not within %.15g to %.15g", where, text, option->min,
                   option->max);
}

/* strtod and its kin skip blanks and accept more than people mean. */
static bool starts_number(const char *text)
{
    return *text && strchr("+-.0123456789", *text);
}

static int set_int(int64_t *value, const struct opt *option, const char *text, const char *where)
{
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (!starts_number(text) || *end != '\0')
        return err_set(ERR_ARG, "%s: '%s' is not a whole number", where, text);
    double real = (double)number;
    if (errno == ERANGE || (has_limits(option) && !(real >= option->min && real <= option->max)))
        return out_of_range(option, text, where);
    *value = number;
    return 0;
}

static int set_uint64(uint64_t *value, const char *text, const char *where)
{
    char *end;
    errno = 0;
    bool hexadecimal = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    unsigned long long number = strtoull(text, &end, hexadecimal ? 16 : 10);
    if (!starts_number(text) || *text == '-' || *end != '\0' || errno == ERANGE)
        return err_set(ERR_ARG, "%s: '%s' is not a whole number of 0 to 2^64 - 1", where, text);
    *value = number;
    return 0;
}

/* One real that ends at end or at a comma, blanks around it allowed there. */
static int read_real(double *value, const char **text, const struct opt *option, const char *whole,
                     const char *where)
{
    char *end;
    errno = 0;
    double number = strtod(*text, &end);
    if (!starts_number(*text) || end == *text)
        return err_set(ERR_ARG, "%s: '%s' is not a number", where, whole);
    if (!isfinite(number) ||
        (has_limits(option) && !(number >= option->min && number <= option->max)))
        return out_of_range(option, whole, where);
    *value = number;
    *text = end;
    return 0;
}

static int set_real(double *value, const struct opt *option, const char *text, const char *where)
{
    double number;
    const char *at = text;
    int code = read_real(&number, &at, option, text, where);
    if (code)
        return code;
    if (*at != '\0')
        return err_set(ERR_ARG, "%s: '%s' is not a number", where, text);
    *value = number;
    return 0;
}

static int set_reals(struct opt_reals *value, const struct opt *option, const char *text,
                     const char *where)
{
    struct opt_reals reals = {0};
    const char *at = text;
    for (;;) {
        at += strspn(at, " \t");
        if (reals.count == (int)ARRAY_COUNT(reals.values))
            return err_set(ERR_ARG, "%s: '%s' has more than 4 numbers", where, text);
        int code = read_real(&reals.values[reals.count++], &at, option, text, where);
        if (code)
            return code;
        at += strspn(at, " \t");
        if (*at == '\0')
            break;
        if (*at++ != ',')
            return err_set(ERR_ARG, "%s: '%s' is not a list of numbers with commas", where, text);
    }
    *value = reals;
    return 0;
}

static int set_string(const char **value, const struct opt *option, const char *text,
                      const char *where)
{
    if (*text == '\0' && option->fallback)
        return err_set(ERR_ARG, "%s needs a value", where);
    *value = *text ? text : NULL; /* an empty one takes back what a recipe gave */
    return 0;
}

static int set_choice(const char **value, const struct opt *option, const char *text,
                      const char *where)
{
    size_t length = strlen(text);
    for (const char *at = option->choices; *at;) {
        size_t choice = strcspn(at, "|");
        if (choice == length && strncmp(at, text, length) == 0) {
            *value = text;
            return 0;
        }
        at += choice;
        at += *at == '|';
    }
    return err_set(ERR_ARG, "%s: '%s' is not one of %s", where, text, option->choices);
}

/* Items move to twice the room when their number reaches a power of two. */
static int add_item(struct opt_memory *memory, struct opt_list *list, const char *text)
{
    if ((list->count & (list->count - 1)) == 0) {
        size_t room = list->count ? 2 * list->count : 1;
        const char **items = opt_memory_take(memory, room * sizeof *items);
        if (!items)
            return err_set(ERR_NOMEM, "out of memory for the options");
        if (list->count)
            memcpy(items, list->items, list->count * sizeof *items);
        list->items = items;
    }
    list->items[list->count++] = text;
    return 0;
}

int opt_set(struct opt_memory *memory, const struct opt *option, void *values, const char *text,
            const char *where)
{
    void *value = (char *)values + option->offset;
    switch (option->type) {
    case OPT_FLAG:
        return set_flag(value, text, where);
    case OPT_INT:
        return set_int(value, option, text, where);
    case OPT_UINT64:
        return set_uint64(value, text, where);
    case OPT_REAL:
        return set_real(value, option, text, where);
    case OPT_REALS:
        return set_reals(value, option, text, where);
    case OPT_STRING:
        return set_string(value, option, text, where);
    case OPT_CHOICE:
        return set_choice(value, option, text, where);
    case OPT_LIST:
        return add_item(memory, value, text);
    }
    return err_set(ERR_INTERNAL, "option %s has no such type", option->name);
}

size_t opt_value_bytes(enum opt_type type)
{
    switch (type) {
    case OPT_FLAG:
        return sizeof(bool);
    case OPT_INT:
    case OPT_UINT64:
        return sizeof(int64_t);
    case OPT_REAL:
        return sizeof(double);
    case OPT_REALS:
        return sizeof(struct opt_reals);
    case OPT_STRING:
    case OPT_CHOICE:
        return sizeof(const char *);
    case OPT_LIST:
        return sizeof(struct opt_list);
    }
    return 0;
}

int opt_defaults(struct opt_section *section)
{
    for (size_t i = 0; i < section->count; i++) {
        const struct opt *option = &section->options[i];
        memset((char *)section->values + option->offset, 0, opt_value_bytes(option->type));
        if (!option->fallback)
            continue;
        if (option->type == OPT_LIST ||
            opt_set(NULL, option, section->values, option->fallback, option->name) != 0)
            return err_set(ERR_INTERNAL, "option %s has a bad default '%s'", option->name,
                           option->fallback);
    }
    return 0;
}

/* The shortest text that reads back as the very same number; 20 rather than 2e+01. */
static void write_real(FILE *stream, double value)
{
    char text[40];
    bool plain = fabs(value) >= 1 && fabs(value) < 1e15;
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value && !(plain && strchr(text, 'e')))
            break;
    }
    fputs(text, stream);
}

static void write_value(FILE *stream, const struct opt *option, const void *values)
{
    const void *value = (const char *)values + option->offset;
    const struct opt_reals *reals = value;
    const struct opt_list *list = value;
    const char *text;
    switch (option->type) {
    case OPT_FLAG:
        fputs(*(const bool *)value ? "true" : "false", stream);
        break;
    case OPT_INT:
        fprintf(stream, "%lld", (long long)*(const int64_t *)value);
        break;
    case OPT_UINT64:
        fprintf(stream, "%llu", (unsigned long long)*(const uint64_t *)value);
        break;
    case OPT_REAL:
        write_real(stream, *(const double *)value);
        break;
    case OPT_REALS:
        for (int i = 0; i < reals->count; i++) {
            fputs(i ? "," : "", stream);
            write_real(stream, reals->values[i]);
        }
        break;
    case OPT_STRING:
    case OPT_CHOICE:
        text = *(const char *const *)value;
        fputs(text ? text : "", stream);
        break;
    case OPT_LIST:
        for (size_t i = 0; i < list->count; i++)
            fprintf(stream, "%s%s", i ? " " : "", list->items[i]);
        break;
    }
}

char *opt_value_text(const struct opt *option, const void *values)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *stream = open_memstream(&text, &bytes);
    if (!stream)
        return NULL;
    write_value(stream, option, values);
    if (fclose(stream) != 0) {
        free(text);
        return NULL;
    }
    return text;
}
