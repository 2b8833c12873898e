/* SPDX-License-Identifier: Apache-2.0 */
/* One table of options per program drives everything: the parser, --help, recipe files (.ini with
 * the same names), the print at start and what a checkpoint records.
 *
 * A program puts together sections, each a table over one plain struct of values. The recipe's
 * section (proto/recipe.h) is shared by all programs that need it.
 *
 *   struct pool_options values;
 *   const struct opt options[] = {
 *       {"workers", OPT_INT, offsetof(struct pool_options, workers), .fallback = "0", .min = 0,
 * .max = 4096, .value_name = "N", .help = "worker threads; 0: one per core"},
 *   };
 *   struct opt_section sections[] = {{"Workers", options, ARRAY_COUNT(options), &values}};
 *   struct opt_program program = {.name = "satchel-loader", .usage = "--data NAME=FILE...", ...};
 *   int code = opt_parse(&program, argc, argv);
 *
 * Command line: --name VALUE or --name=VALUE; a flag is --name, or --name=false to undo a recipe's
 * true. "--" ends the options. Ini: "name = value", '_' and '-' are the same, [sections] are
 * ignored, # and ; begin comments. Precedence: command line over recipe file over fallback. */
#ifndef COMMON_OPT_H
#define COMMON_OPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define ARRAY_COUNT(array) (sizeof(array) / sizeof((array)[0]))

enum opt_type {
    OPT_FLAG,   /* bool */
    OPT_INT,    /* int64_t within min..max */
    OPT_UINT64, /* uint64_t, any value */
    OPT_REAL,   /* double within min..max, finite */
    OPT_REALS,  /* struct opt_reals: 1 to 4 reals separated by commas, each within min..max */
    OPT_STRING, /* const char *, NULL when not given and without fallback */
    OPT_CHOICE, /* const char *, one of choices ("a|b|c") */
    OPT_LIST,   /* struct opt_list: the option may be repeated, each takes one or more values up to
                   the   next option ("--data a=1 b=2"); not readable from a recipe */
};

struct opt_reals {
    double values[4];
    int count;
};

struct opt_list {
    const char **items; /* owned by the program's memory, see opt_release */
    size_t count;
};

struct opt {
    const char *name; /* without the leading "--" */
    enum opt_type type;
    size_t offset;        /* of the value in the section's struct */
    const char *fallback; /* text of the default; NULL: zero, empty or not given */
    double min, max;
    const char *choices;
    const char *value_name; /* for --help */
    const char *help;       /* one sentence, no final full stop */
};

struct opt_section {
    const char *title;
    const struct opt *options;
    size_t count;
    void *values;   /* the struct that offsets point into; opt_parse fills all of it that the table
                       names */
    bool in_recipe; /* its keys may come from a recipe file */
};

struct opt_program {
    const char *name;
    const char *usage;   /* what stands behind the name: "FILE.lmdb --out FILE [OPTIONS]" */
    const char *summary; /* one or two sentences for --help */
    struct opt_section *sections;
    size_t section_count;
    int min_positional, max_positional; /* max -1: any number */
    /* Turns the value of --recipe into a file's path (shipped names); NULL when the program has no
     * --recipe. The option itself is built in when this is set. Allocates *path with malloc. */
    int (*find_recipe)(char **path, const char *name_or_path);
    /* Names of all keys that some other program knows, NULL-terminated: ignored in recipe files. */
    const char *const *foreign_keys;
    bool json; /* has --json: built in, sets json_wanted */
    /* Prints what --version tells behind the version's line; NULL: nothing. */
    void (*print_parts)(FILE *stream);

    /* Filled by opt_parse. */
    const char **positional;
    int positional_count;
    const char *recipe_path; /* NULL: none given */
    bool json_wanted;
    bool finished; /* --help, --man or --version was printed to stdout: the program ends with 0 */
    struct opt_memory *memory;
};

/* Parses. --help, --man, --version, --verbose (log_set_verbose), and --recipe and --json where the
 * program has them, are built in. Errors are ERR_ARG with one line that names the option, the value
 * and what is accepted, and points at --help; an unknown option suggests the nearest name. A key in
 * a recipe file that neither the program nor foreign_keys knows is ERR_ARG naming file and line.
 * Values stay valid until opt_release. */
int opt_parse(struct opt_program *program, int argc, char **argv);
void opt_release(struct opt_program *program);

/* Sends off what was printed to stdout. ERR_IO when it cannot be written; but who reads --help from
 * a pipe may leave after the first lines. */
int opt_flush(const struct opt_program *program);

/* How a program ends: opt_flush, says what went wrong when code is not 0, releases, and returns the
 * exit status. */
int opt_end(struct opt_program *program, int code);

/* Fills a section's values from its fallbacks alone. Strings point to literals. */
int opt_defaults(struct opt_section *section);

/* Reads only an .ini file into an already filled section (strings are kept in memory, see
 * opt_memory_open); keys of foreign_keys are skipped. */
int opt_read_ini(struct opt_section *section, struct opt_memory *memory, const char *path,
                 const char *const *foreign_keys);

/* The same from text (for what a checkpoint recorded); name is used in messages. */
int opt_read_ini_text(struct opt_section *section, struct opt_memory *memory, const char *text,
                      const char *name, const char *const *foreign_keys);

struct opt_memory *opt_memory_open(void); /* owns strings; NULL when memory is out */
void opt_memory_close(struct opt_memory *memory);

/* True when the command line or the recipe gave this option (after opt_parse). */
bool opt_was_given(const struct opt_program *program, const char *name);

/* Takes over from another struct of the section's values those that neither the command line nor
 * the recipe gave. Strings are not copied. */
void opt_fill(struct opt_section *section, const struct opt_program *program, const void *from);

/* The value as text, as an .ini would hold it; reals in the shortest form that reads back exactly.
 * NULL when memory is out; caller frees. */
char *opt_value_text(const struct opt *option, const void *values);

/* Writes "name = value" lines of a section: recipe.ini, the print at start. OPT_STRINGs that are
 * NULL are left out. comments: each key's help above it. */
int opt_write_ini(FILE *stream, const struct opt_section *section, bool comments);

#endif
