/* SPDX-License-Identifier: Apache-2.0 */
/* The options table: command line, recipe files, help, and writing what was read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/err.h"
#include "common/file.h"
#include "common/opt.h"
#include "tests/unit/testing.h"

struct values {
    int64_t epochs;
    double lr;
    uint64_t seed;
    const char *name, *wire, *place;
    bool flip;
    struct opt_list data;
    struct opt_reals mean;
};

struct other {
    int64_t workers;
};

#define FIELD(name) offsetof(struct values, name)

static const struct opt options[] = {
    {"epochs", OPT_INT, FIELD(epochs), .fallback = "120", .min = 1, .max = 1000,
     .help = "passes over the data, in a sentence so long that it does not fit beside the name and "
             "has to be wrapped"},
    {"base-lr", OPT_REAL, FIELD(lr), .fallback = "0.1", .min = 0, .max = 10, .help = "rate"},
    {"seed", OPT_UINT64, FIELD(seed), .fallback = "0", .help = "seed"},
    {"name", OPT_STRING, FIELD(name), .help = "no default"},
    {"place", OPT_STRING, FIELD(place), .fallback = "here", .help = "has a default"},
    {"wire", OPT_CHOICE, FIELD(wire), .fallback = "fp16", .choices = "fp16|uint8",
     .help = "format"},
    {"flip", OPT_FLAG, FIELD(flip), .help = "a flag"},
    {"data", OPT_LIST, FIELD(data), .value_name = "NAME=FILE...", .help = "stores"},
    {"mean", OPT_REALS, FIELD(mean), .fallback = "1,2.5,20", .min = 0, .max = 255, .help = "mean"},
};

static const struct opt other_options[] = {
    {"workers", OPT_INT, offsetof(struct other, workers), .fallback = "4", .help = "no limits"},
};

static const char *const foreign_keys[] = {"loaders", "max-steps", NULL};

static int find(char **path, const char *name)
{
    *path = strdup(name);
    return *path ? 0 : ERR_NOMEM;
}

static struct values values;
static struct other other;
static struct opt_section sections[2];
static struct opt_program program;

/* Parses "satchel-test" with the words of line. */
static int parse(const char *line)
{
    static char words[2000];
    char *argv[40] = {"satchel-test"};
    int argc = 1;
    opt_release(&program);
    snprintf(words, sizeof words, "%s", line);
    for (char *word = strtok(words, " "); word; word = strtok(NULL, " "))
        argv[argc++] = word;
    memset(&values, 0xaa, sizeof values);
    sections[0] = (struct opt_section){"Main", options, ARRAY_COUNT(options), &values, true};
    sections[1] =
        (struct opt_section){"Other", other_options, ARRAY_COUNT(other_options), &other, false};
    program = (struct opt_program){
        .name = "satchel-test",
        .usage = "FILE [--epochs N] [--base-lr X] [--wire fp16] [--place WHERE]",
        .summary = "Tests.",
        .sections = sections,
        .section_count = 2,
        .max_positional = 2,
        .find_recipe = find,
        .foreign_keys = foreign_keys,
        .json = true};
    return opt_parse(&program, argc, argv);
}

static int release(void **state)
{
    opt_release(&program);
    return 0;
}

static void assert_refused(const char *line, const char *part)
{
    assert_int_equal(parse(line), ERR_ARG);
    const char *message = err_message();
    if (!strstr(message, part))
        fail_msg("'%s' does not contain '%s'", message, part);
    assert_non_null(strstr(message, "satchel-test --help"));
    assert_null(strchr(message, '\n'));
}

static void test_defaults(void **state)
{
    assert_int_equal(parse(""), 0);
    assert_int_equal(values.epochs, 120);
    assert_true(values.lr == 0.1);
    assert_true(values.seed == 0);
    assert_null(values.name);
    assert_string_equal(values.place, "here");
    assert_string_equal(values.wire, "fp16");
    assert_false(values.flip);
    assert_int_equal(values.data.count, 0);
    assert_int_equal(values.mean.count, 3);
    assert_true(values.mean.values[2] == 20);
    assert_int_equal(other.workers, 4);
    assert_int_equal(program.positional_count, 0);
    assert_false(program.json_wanted || program.finished || opt_was_given(&program, "epochs"));
}

static void test_command_line(void **state)
{
    assert_int_equal(parse("a.lmdb --epochs 7 --base-lr=2.5e-3 --seed 0xffffffffffffffff --flip "
                           "--name=x=y --wire uint8 --mean 7 --workers -3 --json b.lmdb"),
                     0);
    assert_int_equal(values.epochs, 7);
    assert_true(values.lr == 2.5e-3);
    assert_true(values.seed == UINT64_MAX);
    assert_true(values.flip);
    assert_string_equal(values.name, "x=y");
    assert_string_equal(values.wire, "uint8");
    assert_int_equal(values.mean.count, 1);
    assert_true(values.mean.values[0] == 7);
    assert_int_equal(other.workers, -3);
    assert_true(program.json_wanted);
    assert_int_equal(program.positional_count, 2);
    assert_string_equal(program.positional[1], "b.lmdb");
    assert_true(opt_was_given(&program, "epochs") && !opt_was_given(&program, "place"));
    assert_int_equal(parse("--epochs 7 --flip --epochs=9 --flip=false --seed 12"), 0);
    assert_int_equal(values.epochs, 9);
    assert_false(values.flip);
    assert_true(values.seed == 12);
}

static void test_lists_and_the_end_of_options(void **state)
{
    assert_int_equal(parse("--data a=1 b=2 c=3 --flip x --data=d=4 y -- --data"), ERR_ARG);
    assert_non_null(strstr(err_message(), "'--data' is one argument too many"));
    assert_int_equal(parse("--data a=1 b=2 c=3 --flip x --data=d=4 --data e=5 -- --data -"),
                     ERR_ARG);
    assert_int_equal(parse("--data a=1 b=2 c=3 --flip --data=d=4 x --data e=5 -- --data"), 0);
    assert_int_equal(values.data.count, 5);
    const char *want[] = {"a=1", "b=2", "c=3", "d=4", "e=5"};
    for (int i = 0; i < 5; i++)
        assert_string_equal(values.data.items[i], want[i]);
    assert_string_equal(program.positional[0], "x");
    assert_string_equal(program.positional[1], "--data");
}

static void test_refusals(void **state)
{
    assert_refused("--epoch 3", "unknown option '--epoch', did you mean '--epochs'?");
    assert_refused("--zzzzzz=3", "unknown option '--zzzzzz'");
    assert_null(strstr(err_message(), "did you mean"));
    assert_refused("-x", "unknown option '-x'");
    assert_refused("--epochs 0", "--epochs: 0 is not within 1 to 1000");
    assert_refused("--epochs 1001", "--epochs");
    assert_refused("--epochs 99999999999999999999", "--epochs");
    assert_refused("--epochs 3.5", "'3.5' is not a whole number");
    assert_refused("--epochs=", "'' is not a whole number");
    assert_refused("--epochs", "--epochs needs a value");
    assert_refused("--epochs --flip", "--epochs needs a value");
    assert_refused("--data --flip", "--data needs a value");
    assert_refused("--base-lr nan", "'nan' is not a number");
    assert_refused("--base-lr 1e999", "--base-lr");
    assert_refused("--base-lr 0.1x", "'0.1x' is not a number");
    assert_refused("--base-lr -1", "not within 0 to 10");
    assert_refused("--seed -1", "--seed");
    assert_refused("--seed 18446744073709551616", "--seed");
    assert_refused("--wire fp1", "'fp1' is not one of fp16|uint8");
    assert_refused("--wire fp16|uint8", "is not one of");
    assert_refused("--flip=maybe", "neither true nor false");
    assert_refused("--mean 1,2,3,4,5", "more than 4 numbers");
    assert_refused("--mean 1,,2", "--mean");
    assert_refused("--mean 1;2", "--mean");
    assert_refused("--mean 1,300", "not within 0 to 255");
    assert_refused("--place=", "--place needs a value");
    assert_refused("a b c", "'c' is one argument too many");
}

/* An empty text takes back a string that has no default. */
static void test_empty_string(void **state)
{
    assert_int_equal(parse("--name x --name="), 0);
    assert_null(values.name);
}

static const char *write_recipe(const char *content)
{
    static char path[TESTING_PATH_BYTES];
    testing_path(path, testing_directory(), "r.ini");
    assert_int_equal(file_write_atomic(path, content, strlen(content)), 0);
    return path;
}

static int parse_recipe(const char *content, const char *arguments)
{
    char line[TESTING_PATH_BYTES + 200];
    snprintf(line, sizeof line, "--recipe %s %s", write_recipe(content), arguments);
    return parse(line);
}

static void test_recipe(void **state)
{
    assert_int_equal(
        parse_recipe("# all of it\n; and this\n[stream]\n  epochs = 5\n\tbase_lr=0.2 ; why\r\n"
                     "flip = yes\nname = a b#c\nloaders = x\nmax_steps = 3\n"
                     "workers = 77\ndata = d\nmean = 1, 2 ,3\nseed: 9",
                     "--epochs 6"),
        0);
    assert_int_equal(values.epochs, 6); /* the command line wins, wherever it stands */
    assert_true(values.lr == 0.2);
    assert_true(values.flip);
    assert_string_equal(values.name, "a b#c");
    assert_true(values.mean.values[1] == 2 && values.mean.count == 3);
    assert_true(values.seed == 9);
    assert_int_equal(other.workers, 4); /* not a recipe's section */
    assert_int_equal(values.data.count, 0);
    assert_true(opt_was_given(&program, "base-lr") && !opt_was_given(&program, "wire"));
    assert_non_null(strstr(program.recipe_path, "r.ini"));
    assert_int_equal(parse_recipe("flip = true", "--flip=false"), 0);
    assert_false(values.flip);
}

static void test_recipe_refusals(void **state)
{
    assert_int_equal(parse_recipe("epochs = 5\n\nepcohs = 1\n", ""), ERR_ARG);
    assert_non_null(strstr(err_message(), "r.ini:3: unknown key 'epcohs', did you mean 'epochs'?"));
    assert_int_equal(parse_recipe("epochs = 5\nwhat is this\nepcohs = 1\n", ""), ERR_ARG);
    assert_non_null(strstr(err_message(), "r.ini:2: expected 'name = value'"));
    assert_int_equal(parse_recipe("\n\n\nepochs = many", ""), ERR_ARG);
    assert_non_null(strstr(err_message(), "r.ini:4: epochs: 'many' is not a whole number"));
    assert_int_equal(parse_recipe("epochs = 1\nwire = fp8\nepochs = 0", ""), ERR_ARG);
    assert_non_null(strstr(err_message(), "r.ini:2: wire"));
    /* An indented key is a key, not the tail of the value above. */
    assert_int_equal(parse_recipe("name = a\n  nmae = b", ""), ERR_ARG);
    assert_non_null(strstr(err_message(), "r.ini:2: unknown key 'nmae'"));
    /* What only a command line can say. */
    assert_int_equal(parse_recipe("recipe = other.ini", ""), ERR_ARG);
    assert_non_null(strstr(err_message(), "r.ini:1: unknown key 'recipe'"));
    assert_int_equal(parse("--recipe /nonexistent/r.ini"), ERR_IO);
}

static void test_long_lines(void **state)
{
    char name[4000], content[4100];
    memset(name, 'p', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    snprintf(content, sizeof content, "name = %s\nepochs = 3\n", name);
    assert_int_equal(parse_recipe(content, ""), 0);
    assert_string_equal(values.name, name);
    assert_int_equal(values.epochs, 3);
    char *long_line = calloc(1, 100001);
    assert_non_null(long_line);
    memset(long_line, 'x', 100000);
    assert_int_equal(parse_recipe(long_line, ""), ERR_ARG);
    assert_non_null(strstr(err_message(), "r.ini:1: the line is longer"));
    free(long_line);
}

static void test_files_that_are_no_text(void **state)
{
    char path[TESTING_PATH_BYTES], line[TESTING_PATH_BYTES + 20];
    testing_path(path, testing_directory(), "r.ini");
    assert_int_equal(file_write_atomic(path, "epochs = 3\0\n", 12), 0);
    snprintf(line, sizeof line, "--recipe %s", path);
    assert_refused(line, "is not a text file");
}

/* Bytes from anywhere: accepted or refused, never read out of bounds. */
static void test_random_bytes(void **state)
{
    static const char alphabet[] = "epochs=12\n\n[];# \t\r:_-seedname,.\xff\xef\xbb\xbf";
    uint64_t random = testing_seed();
    struct opt_section section = {"Main", options, ARRAY_COUNT(options), &values, true};
    for (int i = 0; i < 2000; i++) {
        char text[200];
        size_t length = testing_random(&random) % sizeof text;
        for (size_t j = 0; j < length; j++)
            text[j] = alphabet[testing_random(&random) % (sizeof alphabet - 1)];
        text[length ? length - 1 : 0] = '\0';
        struct opt_memory *memory = opt_memory_open();
        assert_non_null(memory);
        assert_int_equal(opt_defaults(&section), 0);
        int code = opt_read_ini_text(&section, memory, text, "text", foreign_keys);
        assert_true(code == 0 || code == ERR_ARG);
        assert_in_range(values.epochs, 1, 1000);
        opt_memory_close(memory);
    }
}

/* Standard output of parse(line). */
static char *output_of(const char *line)
{
    static char text[8000];
    FILE *file = tmpfile();
    assert_non_null(file);
    fflush(stdout);
    int saved = dup(STDOUT_FILENO);
    dup2(fileno(file), STDOUT_FILENO);
    int code = parse(line);
    fflush(stdout);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    rewind(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    assert_int_equal(code, 0);
    assert_true(program.finished);
    return text;
}

static void test_help(void **state)
{
    char *help = output_of("--help --nonsense");
    const char *parts[] = {
        "usage: satchel-test FILE [--epochs N] [--base-lr X] [--wire fp16]\n    [--place WHERE]\n",
        "\nTests.\n",
        "\nMain:\n",
        "\nOther:\n",
        "\nGeneral:\n",
        "--epochs N",
        "(default 120)",
        "{fp16|uint8}",
        "--data NAME=FILE...",
        "--recipe",
        "--json",
        "--version",
        "--flip  "};
    for (size_t i = 0; i < ARRAY_COUNT(parts); i++) {
        if (!strstr(help, parts[i]))
            fail_msg("--help lacks '%s'", parts[i]);
    }
    for (char *line = strtok(help, "\n"); line; line = strtok(NULL, "\n"))
        assert_true(strlen(line) <= 80);
}

static void test_version(void **state)
{
    const char *version = output_of("--version");
    int major, minor, patch, used = 0;
    assert_int_equal(sscanf(version, "satchel-test %d.%d.%d\n%n", &major, &minor, &patch, &used),
                     3);
    assert_int_equal(strlen(version), used);
}

static char *ini_text(bool comments, int *code)
{
    char *text = NULL;
    size_t bytes;
    FILE *stream = open_memstream(&text, &bytes);
    assert_non_null(stream);
    *code = opt_write_ini(stream, &sections[0], comments);
    fclose(stream);
    return text;
}

static void test_written_ini_reads_back(void **state)
{
    uint64_t random = testing_seed();
    for (int i = 0; i < 300; i++) {
        int code;
        assert_int_equal(parse("--name x.safetensors --wire uint8"), 0);
        values.epochs = 1 + (int64_t)(testing_random(&random) % 1000);
        values.lr = testing_unit(&random) * pow(10, -(double)(i % 30));
        values.seed = testing_random(&random);
        values.flip = i & 1;
        values.mean.count = 1 + i % 4;
        for (int j = 0; j < values.mean.count; j++)
            values.mean.values[j] = testing_unit(&random) * 255;
        struct values before = values;
        char *text = ini_text(i & 2, &code);
        assert_int_equal(code, 0);
        memset(&values, 0, sizeof values);
        assert_int_equal(opt_defaults(&sections[0]), 0);
        assert_int_equal(opt_read_ini_text(&sections[0], program.memory, text, "text", NULL), 0);
        free(text);
        assert_int_equal(values.epochs, before.epochs);
        assert_true(values.lr == before.lr);
        assert_true(values.seed == before.seed);
        assert_int_equal(values.flip, before.flip);
        assert_string_equal(values.name, "x.safetensors");
        assert_string_equal(values.wire, "uint8");
        assert_int_equal(values.mean.count, before.mean.count);
        for (int j = 0; j < values.mean.count; j++)
            assert_true(values.mean.values[j] == before.mean.values[j]);
    }
}

static void test_written_ini(void **state)
{
    int code;
    assert_int_equal(parse(""), 0);
    char *text = ini_text(false, &code);
    assert_int_equal(code, 0);
    assert_string_equal(text, "epochs = 120\nbase-lr = 0.1\nseed = 0\nplace = here\nwire = fp16\n"
                              "flip = false\nmean = 1,2.5,20\n");
    free(text);
    const char *bad[] = {"a\nb", " a", "a ", "a ;b", "#a", "a\tb"};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        values.name = bad[i];
        text = ini_text(false, &code);
        free(text);
        assert_int_equal(code, ERR_ARG);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_defaults, release),
        cmocka_unit_test_teardown(test_command_line, release),
        cmocka_unit_test_teardown(test_lists_and_the_end_of_options, release),
        cmocka_unit_test_teardown(test_refusals, release),
        cmocka_unit_test_teardown(test_empty_string, release),
        cmocka_unit_test_teardown(test_recipe, release),
        cmocka_unit_test_teardown(test_recipe_refusals, release),
        cmocka_unit_test_teardown(test_long_lines, release),
        cmocka_unit_test_teardown(test_files_that_are_no_text, release),
        cmocka_unit_test_teardown(test_random_bytes, release),
        cmocka_unit_test_teardown(test_help, release),
        cmocka_unit_test_teardown(test_version, release),
        cmocka_unit_test_teardown(test_written_ini_reads_back, release),
        cmocka_unit_test_teardown(test_written_ini, release),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
