/* SPDX-License-Identifier: Apache-2.0 */
/* --man: the manual page, from the same tables as --help. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "common/opt_private.h"

/* Text for roff: a backslash, a line's first dot or quote and hyphens are not what they seem. */
static void print_text(FILE *stream, const char *text)
{
    for (const char *at = text; *at; at++) {
        bool first = at == text || at[-1] == '\n';
        if (first && (*at == '.' || *at == '\''))
            fputs("\\&", stream);
        if (*at == '\\')
            fputs("\\e", stream);
        else if (*at == '-')
            fputs("\\-", stream);
        else
            fputc(*at, stream);
    }
}

/* What whatis and apropos show: the summary up to its first mark, in small letters at its start. */
static void print_title(FILE *stream, const char *summary)
{
    char title[200];
    size_t length = strcspn(summary, ".;:");
    if (length >= sizeof title)
        length = sizeof title - 1;
    memcpy(title, summary, length);
    title[length] = '\0';
    title[0] = (char)tolower((unsigned char)title[0]);
    fputs(" \\- ", stream);
    print_text(stream, title);
    fputc('\n', stream);
}

static void print_option(FILE *stream, const struct opt *option)
{
    bool choices = option->type == OPT_CHOICE && option->value_name;
    fputs(".TP\n.B ", stream);
    print_text(stream, "--");
    print_text(stream, option->name);
    if (option->type != OPT_FLAG) {
        fputs(" \\fI", stream);
        print_text(stream, opt_value_name(option));
        fputs("\\fP", stream);
    }
    fputc('\n', stream);
    print_text(stream, option->help ? option->help : "");
    if (choices) {
        fputs(": ", stream);
        print_text(stream, option->choices);
    }
    if (option->fallback && option->type != OPT_FLAG) {
        fputs(" (default ", stream);
        print_text(stream, option->fallback);
        fputs(")", stream);
    }
    fputs(".\n", stream);
}

static void print_section(FILE *stream, const struct opt_section *section)
{
    fprintf(stream, ".SS \"%s\"\n", section->title);
    for (size_t i = 0; i < section->count; i++)
        print_option(stream, &section->options[i]);
}

void opt_print_man(FILE *stream, const struct opt_program *program,
                   const struct opt_section *general)
{
    fprintf(stream, ".TH %s 1 \"\" \"Satchel %s\" \"Satchel\"\n.SH NAME\n", program->name,
            SATCHEL_VERSION);
    print_text(stream, program->name);
    print_title(stream, program->summary ? program->summary : "part of Satchel");
    fprintf(stream, ".SH SYNOPSIS\n.B %s\n", program->name);
    print_text(stream, program->usage ? program->usage : "[OPTIONS]");
    fputc('\n', stream);
    if (program->summary) {
        fputs(".SH DESCRIPTION\n", stream);
        print_text(stream, program->summary);
        fputc('\n', stream);
    }
    fputs(".SH OPTIONS\n", stream);
    for (size_t i = 0; i < program->section_count; i++)
        print_section(stream, &program->sections[i]);
    print_section(stream, general);
    fputs(
        ".SH EXIT STATUS\n0 when the work is done, 2 for bad arguments, 3 when it was stopped and "
        "can be resumed, 1 for all else.\n",
        stream);
}
