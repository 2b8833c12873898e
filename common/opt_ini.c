/* SPDX-License-Identifier: Apache-2.0 */
/* Recipe files: reading (the lines are inih's job) and writing. */
#include <ini.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/file.h"
#include "common/opt_private.h"

#ifdef HAVE_INI_MAX_LINE
enum { LINE_BYTES = 8192 }; /* two paths of PATH_MAX */
#else
enum { LINE_BYTES = 200 }; /* what inih is built for when nobody says otherwise */
#endif

enum { MAX_FILE_BYTES = 1 << 20 };

struct reader {
    struct opt_section *sections;
    size_t count;
    struct opt_memory *memory;
    const char *const *foreign_keys;
    const char *name; /* of the file, for messages */
    const char *at;   /* where the next line begins */
    int line;
    int code; /* of the first error; its message is set */
};

/* inih's fgets: hands out the next line. Blanks in front are taken off, because inih takes an
 * indented line for the continuation of the value above. */
static char *next_line(char *dst, int bytes, void *opaque)
{
    struct reader *reader = opaque;
    if (*reader->at == '\0' || reader->code)
        return NULL;
    reader->line++;
    size_t length = strcspn(reader->at, "\n");
    const char *begin = reader->at;
    reader->at += length + (reader->at[length] == '\n');
    size_t blanks = strspn(begin, " \t\r");
    blanks = blanks < length ? blanks : length;
    begin += blanks;
    length -= blanks;
    if (length + 2 > (size_t)bytes) {
        reader->code = err_set(ERR_ARG, "%s:%d: the line is longer than %d characters",
                               reader->name, reader->line, bytes - 2);
        return NULL;
    }
    memcpy(dst, begin, length);
    memcpy(dst + length, "\n", 2);
    return dst;
}

static bool is_foreign(const struct reader *reader, const char *key)
{
    for (const char *const *known = reader->foreign_keys; known && *known; known++) {
        if (opt_same_name(*known, key))
            return true;
    }
    return false;
}

static int unknown_key(const struct reader *reader, const char *key)
{
    const char *nearest = opt_nearest(reader->sections, reader->count, key);
    if (nearest)
        return err_set(ERR_ARG, "unknown key '%s', did you mean '%s'?", key, nearest);
    return err_set(ERR_ARG, "unknown key '%s'", key);
}

static int set_key(struct reader *reader, const char *key, const char *value)
{
    struct opt_place place = opt_find(reader->sections, reader->count, key);
    if (!place.option)
        return is_foreign(reader, key) ? 0 : unknown_key(reader, key);
    if (!place.section->in_recipe || place.option->type == OPT_LIST)
        return 0;
    const char *copy = opt_memory_copy(reader->memory, value);
    if (!copy)
        return err_set(ERR_NOMEM, "out of memory for the options");
    int code = opt_set(reader->memory, place.option, place.section->values, copy, key);
    return code ? code : opt_memory_note(reader->memory, place.option);
}

/* inih's handler; 0 is an error there. */
static int on_key(void *opaque, const char *section, const char *key, const char *value)
{
    struct reader *reader = opaque;
    if (reader->code)
        return 0;
    int code = set_key(reader, key, value);
    if (code)
        reader->code = err_wrap(code, "%s:%d", reader->name, reader->line);
    return code == 0;
}

static int read_text(struct opt_section *sections, size_t count, struct opt_memory *memory,
                     const char *text, const char *name, const char *const *foreign_keys)
{
    struct reader reader = {sections, count, memory, foreign_keys, name, text};
#ifdef HAVE_INI_MAX_LINE
    ini_use_stack = false;
    ini_max_line = ini_initial_alloc = LINE_BYTES;
#endif
    int bad_line = ini_parse_stream(next_line, &reader, on_key, &reader);
    if (bad_line < 0)
        return err_set(ERR_NOMEM, "out of memory for reading '%s'", name);
    /* A line that is no "name = value" does not reach the handler, so a later key may have failed.
     */
    if (bad_line > 0 && (!reader.code || bad_line < reader.line))
        return err_set(ERR_ARG, "%s:%d: expected 'name = value'", name, bad_line);
    return reader.code;
}

int opt_read_file(struct opt_section *sections, size_t count, struct opt_memory *memory,
                  const char *path, const char *const *foreign_keys)
{
    uint8_t *text;
    size_t bytes;
    int code = file_read(&text, &bytes, path, MAX_FILE_BYTES);
    if (code)
        return code;
    if (strlen((const char *)text) != bytes)
        code = err_set(ERR_ARG, "'%s' is not a text file", path);
    else
        code = read_text(sections, count, memory, (const char *)text, path, foreign_keys);
    free(text);
    return code;
}

int opt_read_ini_text(struct opt_section *section, struct opt_memory *memory, const char *text,
                      const char *name, const char *const *foreign_keys)
{
    struct opt_section readable = *section;
    readable.in_recipe = true;
    return read_text(&readable, 1, memory, text, name, foreign_keys);
}

int opt_read_ini(struct opt_section *section, struct opt_memory *memory, const char *path,
                 const char *const *foreign_keys)
{
    struct opt_section readable = *section;
    readable.in_recipe = true;
    return opt_read_file(&readable, 1, memory, path, foreign_keys);
}

/* False for a text that inih would not give back: blanks at its ends, control characters, or " ;",
 * where a comment begins. */
static bool survives(const char *text)
{
    size_t length = strlen(text);
    if (length && (strchr(" \t;#", text[0]) || strchr(" \t", text[length - 1])))
        return false;
    for (size_t i = 0; i < length; i++) {
        if ((unsigned char)text[i] < 0x20 || (text[i] == ' ' && text[i + 1] == ';'))
            return false;
    }
    return true;
}

static int write_key(FILE *stream, const struct opt *option, const char *text, bool comments)
{
    if (!survives(text) || strlen(option->name) + strlen(text) + 8 > LINE_BYTES)
        return err_set(ERR_ARG, "--%s: '%s' cannot be written into a recipe file", option->name,
                       text);
    if (comments && option->help)
        fprintf(stream, "# %s\n", option->help);
    fprintf(stream, "%s = %s\n", option->name, text);
    return 0;
}

int opt_write_ini(FILE *stream, const struct opt_section *section, bool comments)
{
    for (size_t i = 0; i < section->count; i++) {
        const struct opt *option = &section->options[i];
        const void *value = (const char *)section->values + option->offset;
        if (option->type == OPT_LIST ||
            (option->type == OPT_STRING && !*(const char *const *)value))
            continue;
        char *text = opt_value_text(option, section->values);
        if (!text)
            return err_set(ERR_NOMEM, "out of memory for writing the options");
        int code = write_key(stream, option, text, comments);
        free(text);
        if (code)
            return code;
    }
    return ferror(stream) ? err_set(ERR_IO, "cannot write the options") : 0;
}
