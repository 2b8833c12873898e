/* SPDX-License-Identifier: Apache-2.0 */
/* --help. */
#include <string.h>

#include "common/opt_private.h"

enum { COLUMNS = 80, INDENT = 28 };

/* Length of the next word; "[--out DIR]" is one. */
static int word_length(const char *text)
{
    size_t length = *text == '[' ? strcspn(text, "]") : 0;
    return (int)(length + strcspn(text + length, " "));
}

/* Prints words from column on, breaking lines before COLUMNS and continuing at indent. */
static void print_wrapped(FILE *stream, const char *text, int column, int indent)
{
    bool first = true;
    while (*text) {
        int length = word_length(text);
        if (!first && column + 1 + length > COLUMNS) {
            fprintf(stream, "\n%*s", indent, "");
            column = indent;
        } else if (!first) {
            fputc(' ', stream);
            column++;
        }
        fprintf(stream, "%.*s", length, text);
        column += length;
        text += length;
        text += strspn(text, " ");
        first = false;
    }
    fputc('\n', stream);
}

const char *opt_value_name(const struct opt *option)
{
    if (option->value_name)
        return option->value_name;
    switch (option->type) {
    case OPT_INT:
    case OPT_UINT64:
        return "N";
    case OPT_REAL:
        return "X";
    case OPT_REALS:
        return "X,...";
    case OPT_CHOICE:
        return option->choices;
    default:
        return "TEXT";
    }
}

/* "  --name VALUE" into head; returns its length. */
static int option_head(char *head, size_t bytes, const struct opt *option)
{
    if (option->type == OPT_FLAG)
        return snprintf(head, bytes, "  --%s", option->name);
    if (option->type == OPT_CHOICE && !option->value_name)
        return snprintf(head, bytes, "  --%s {%s}", option->name, option->choices);
    return snprintf(head, bytes, "  --%s %s", option->name, opt_value_name(option));
}

static void print_option(FILE *stream, const struct opt *option)
{
    char head[256], help[1024];
    int column = option_head(head, sizeof head, option);
    bool choices = option->type == OPT_CHOICE && option->value_name;
    bool fallback = option->fallback && option->type != OPT_FLAG;
    snprintf(help, sizeof help, "%s%s%s%s%s%s", option->help ? option->help : "",
             choices ? ": " : "", choices ? option->choices : "", fallback ? " (default " : "",
             fallback ? option->fallback : "", fallback ? ")" : "");
    fputs(head, stream);
    if (column + 2 > INDENT) {
        fputc('\n', stream);
        column = 0;
    }
    fprintf(stream, "%*s", INDENT - column, "");
    print_wrapped(stream, help, INDENT, INDENT);
}

static void print_section(FILE *stream, const struct opt_section *section)
{
    fprintf(stream, "\n%s:\n", section->title);
    for (size_t i = 0; i < section->count; i++)
        print_option(stream, &section->options[i]);
}

void opt_print_help(FILE *stream, const struct opt_program *program,
                    const struct opt_section *general)
{
    int column = fprintf(stream, "usage: %s ", program->name);
    print_wrapped(stream, program->usage ? program->usage : "[OPTIONS]", column, 4);
    if (program->summary) {
        fputc('\n', stream);
        print_wrapped(stream, program->summary, 0, 0);
    }
    for (size_t i = 0; i < program->section_count; i++)
        print_section(stream, &program->sections[i]);
    print_section(stream, general);
}
