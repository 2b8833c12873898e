/* SPDX-License-Identifier: Apache-2.0 */
/* The command line. Options are collected first and applied after the recipe file, so that they
 * win. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"
#include "common/opt_private.h"

enum { GENERAL_OPTIONS = 6, MAX_SECTIONS = 16 };

/* What every program has. */
struct general {
    const char *recipe;
    bool json, verbose, version, man, help;
};

struct assignment {
    struct opt_place place;
    const char *text;
    struct assignment *next;
};

struct parser {
    struct opt_program *program;
    struct general values;
    struct opt general_options[GENERAL_OPTIONS];
    struct opt_section sections[MAX_SECTIONS]; /* the program's, then the general one */
    size_t section_count;
    struct assignment *first, **last;
    char **argv;
    int argc, next; /* next: the argument to look at */
};

static void add_general(struct parser *parser, const char *name, enum opt_type type, size_t offset,
                        const char *value_name, const char *help)
{
    struct opt_section *section = &parser->sections[parser->section_count - 1];
    parser->general_options[section->count++] = (struct opt){
        .name = name, .type = type, .offset = offset, .value_name = value_name, .help = help};
}

static int list_sections(struct parser *parser)
{
    struct opt_program *program = parser->program;
    if (program->section_count + 1 > MAX_SECTIONS)
        return err_set(ERR_INTERNAL, "%zu sections of options", program->section_count);
    for (size_t i = 0; i < program->section_count; i++)
        parser->sections[i] = program->sections[i];
    parser->section_count = program->section_count + 1;
    parser->sections[parser->section_count - 1] = (struct opt_section){
        .title = "General", .options = parser->general_options, .values = &parser->values};
    if (program->find_recipe)
        add_general(parser, "recipe", OPT_STRING, offsetof(struct general, recipe), "NAME|FILE.ini",
                    "take options from a shipped recipe or a file; the command line wins");
    if (program->json)
        add_general(parser, "json", OPT_FLAG, offsetof(struct general, json), NULL,
                    "end stdout with one JSON object");
    add_general(parser, "verbose", OPT_FLAG, offsetof(struct general, verbose), NULL,
                "say more on stderr");
    add_general(parser, "version", OPT_FLAG, offsetof(struct general, version), NULL,
                "print the version and exit");
    add_general(parser, "man", OPT_FLAG, offsetof(struct general, man), NULL,
                "print the manual page (roff) and exit");
    add_general(parser, "help", OPT_FLAG, offsetof(struct general, help), NULL,
                "print this and exit");
    for (size_t i = 0; i < parser->section_count; i++) {
        int code = opt_defaults(&parser->sections[i]);
        if (code)
            return code;
    }
    return 0;
}

static bool is_option(const char *argument)
{
    return argument[0] == '-' && argument[1] == '-' && argument[2] != '\0';
}

static int assign(struct parser *parser, struct opt_place place, const char *text)
{
    if (place.section == &parser->sections[parser->section_count - 1]) {
        char where[80];
        snprintf(where, sizeof where, "--%s", place.option->name);
        return opt_set(parser->program->memory, place.option, &parser->values, text, where);
    }
    struct assignment *assignment = opt_memory_take(parser->program->memory, sizeof *assignment);
    if (!assignment)
        return err_set(ERR_NOMEM, "out of memory for the options");
    *assignment = (struct assignment){place, text, NULL};
    *parser->last = assignment;
    parser->last = &assignment->next;
    return 0;
}

static int unknown_option(const struct parser *parser, const char *argument, const char *name)
{
    const char *nearest = opt_nearest(parser->sections, parser->section_count, name);
    int shown = (int)strcspn(argument, "=");
    if (nearest)
        return err_set(ERR_ARG, "unknown option '%.*s', did you mean '--%s'?", shown, argument,
                       nearest);
    return err_set(ERR_ARG, "unknown option '%.*s'", shown, argument);
}

/* The values behind "--name": none for a flag, one, or for a list all up to the next option. */
static int take_values(struct parser *parser, struct opt_place place)
{
    if (place.option->type == OPT_FLAG)
        return assign(parser, place, "true");
    int begin = parser->next;
    do {
        if (parser->next == parser->argc || is_option(parser->argv[parser->next]) ||
            strcmp(parser->argv[parser->next], "--") == 0)
            break;
        int code = assign(parser, place, parser->argv[parser->next++]);
        if (code)
            return code;
    } while (place.option->type == OPT_LIST);
    if (parser->next == begin)
        return err_set(ERR_ARG, "--%s needs a value", place.option->name);
    return 0;
}

static int take_option(struct parser *parser, const char *argument)
{
    char name[80];
    const char *begin = argument + 2, *equals = strchr(begin, '=');
    size_t length = equals ? (size_t)(equals - begin) : strlen(begin);
    if (length >= sizeof name)
        return err_set(ERR_ARG, "unknown option '%.40s...'", argument);
    memcpy(name, begin, length);
    name[length] = '\0';
    struct opt_place place = opt_find(parser->sections, parser->section_count, name);
    if (!place.option)
        return unknown_option(parser, argument, name);
    return equals ? assign(parser, place, equals + 1) : take_values(parser, place);
}

static int collect(struct parser *parser)
{
    struct opt_program *program = parser->program;
    bool options_ended = false;
    program->positional =
        opt_memory_take(program->memory, ((size_t)parser->argc + 1) * sizeof *program->positional);
    if (!program->positional)
        return err_set(ERR_NOMEM, "out of memory for the options");
    while (parser->next < parser->argc && !parser->values.help && !parser->values.version &&
           !parser->values.man) {
        const char *argument = parser->argv[parser->next++];
        int code = 0;
        if (options_ended || argument[0] != '-' || argument[1] == '\0')
            program->positional[program->positional_count++] = argument;
        else if (strcmp(argument, "--") == 0)
            options_ended = true;
        else if (strcmp(argument, "-h") == 0)
            parser->values.help = true;
        else if (is_option(argument))
            code = take_option(parser, argument);
        else
            code = err_set(ERR_ARG, "unknown option '%s'", argument);
        if (code)
            return code;
    }
    return 0;
}

static int read_recipe(struct parser *parser)
{
    struct opt_program *program = parser->program;
    char *path = NULL;
    int code = program->find_recipe(&path, parser->values.recipe);
    if (code)
        goto out;
    program->recipe_path = opt_memory_copy(program->memory, path);
    if (!program->recipe_path) {
        code = err_set(ERR_NOMEM, "out of memory for the options");
        goto out;
    }
    /* Without the general section: a recipe that names another, say, is refused, not obeyed in
     * part. */
    code = opt_read_file(parser->sections, parser->section_count - 1, program->memory,
                         program->recipe_path, program->foreign_keys);
out:
    free(path);
    return code;
}

static int apply(struct parser *parser)
{
    struct opt_memory *memory = parser->program->memory;
    for (struct assignment *at = parser->first; at; at = at->next) {
        char where[80];
        snprintf(where, sizeof where, "--%s", at->place.option->name);
        int code = opt_set(memory, at->place.option, at->place.section->values, at->text, where);
        code = code ? code : opt_memory_note(memory, at->place.option);
        if (code)
            return code;
    }
    return 0;
}

static int check_positional(const struct opt_program *program)
{
    if (program->positional_count < program->min_positional)
        return err_set(ERR_ARG, "too few arguments, expected %s", program->usage);
    if (program->max_positional >= 0 && program->positional_count > program->max_positional)
        return err_set(ERR_ARG, "'%s' is one argument too many",
                       program->positional[program->max_positional]);
    return 0;
}

static void print_version(const struct opt_program *program)
{
    printf("%s %s\n", program->name, SATCHEL_VERSION);
    if (program->print_parts)
        program->print_parts(stdout);
}

static int run(struct parser *parser)
{
    struct opt_program *program = parser->program;
    int code = list_sections(parser);
    code = code ? code : collect(parser);
    if (code)
        return code;
    if (parser->values.help || parser->values.version || parser->values.man) {
        const struct opt_section *general = &parser->sections[parser->section_count - 1];
        if (parser->values.help)
            opt_print_help(stdout, program, general);
        else if (parser->values.man)
            opt_print_man(stdout, program, general);
        else
            print_version(program);
        program->finished = true;
        return 0;
    }
    if (parser->values.recipe)
        code = read_recipe(parser);
    code = code ? code : apply(parser);
    code = code ? code : check_positional(program);
    program->json_wanted = parser->values.json;
    if (parser->values.verbose)
        log_set_verbose(true);
    return code;
}

int opt_parse(struct opt_program *program, int argc, char **argv)
{
    struct parser parser = {.program = program, .argv = argv, .argc = argc, .next = 1};
    parser.last = &parser.first;
    program->positional = NULL;
    program->positional_count = 0;
    program->recipe_path = NULL;
    program->json_wanted = program->finished = false;
    program->memory = opt_memory_open();
    if (!program->memory)
        return err_set(ERR_NOMEM, "out of memory for the options");
    int code = run(&parser);
    if (code != ERR_ARG)
        return code;
    char message[900]; /* room for the hint, should the message be long */
    snprintf(message, sizeof message, "%s", err_message());
    return err_set(ERR_ARG, "%s (%s --help lists the options)", message, program->name);
}

void opt_release(struct opt_program *program)
{
    opt_memory_close(program->memory);
    program->memory = NULL;
    program->positional = NULL;
    program->positional_count = 0;
}

int opt_flush(const struct opt_program *program)
{
    errno = 0; /* stays so when the stream failed earlier: why is no longer known */
    if (fflush(stdout) == 0 && !ferror(stdout))
        return 0;
    if (program->finished && errno == EPIPE)
        return 0;
    return err_set(ERR_IO, "cannot write to standard output%s%s", errno ? ": " : "",
                   errno ? strerror(errno) : "");
}

int opt_end(struct opt_program *program, int code)
{
    code = code ? code : opt_flush(program);
    if (code)
        log_error("%s", err_message());
    opt_release(program);
    return err_exit_status(code);
}

bool opt_was_given(const struct opt_program *program, const char *name)
{
    struct opt_place place = opt_find(program->sections, program->section_count, name);
    return place.option && program->memory && opt_memory_noted(program->memory, place.option);
}

void opt_fill(struct opt_section *section, const struct opt_program *program, const void *from)
{
    for (size_t i = 0; i < section->count; i++) {
        const struct opt *option = &section->options[i];
        if (!opt_was_given(program, option->name))
            memcpy((char *)section->values + option->offset, (const char *)from + option->offset,
                   opt_value_bytes(option->type));
    }
}
