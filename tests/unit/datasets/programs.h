/* SPDX-License-Identifier: Apache-2.0 */
/* Running the project's programs and looking at what they say. */
#ifndef TESTS_UNIT_DATASETS_PROGRAMS_H
#define TESTS_UNIT_DATASETS_PROGRAMS_H

#include "tests/unit/datasets/inputs.h"

#include <cjson/cJSON.h>
#include <spawn.h>
#include <sys/wait.h>

extern char **environ;

enum { ARGUMENTS_MAX = 16, OUTPUT_BYTES = 64 << 10 };

struct run {
    int status; /* exit status, -1 when killed */
    char out[OUTPUT_BYTES], err[OUTPUT_BYTES];
};

static inline void read_text(char dst[OUTPUT_BYTES], const char *path)
{
    struct bytes bytes = read_whole(path);
    assert_true(bytes.count < OUTPUT_BYTES);
    memcpy(dst, bytes.data, bytes.count + 1);
    free(bytes.data);
}

/* Arguments up to NULL. */
static inline struct run *run(const char *program, ...)
{
    static struct run result;
    static const char *directory;
    const char *arguments[ARGUMENTS_MAX] = {program};
    char out[TESTING_PATH_BYTES], err[TESTING_PATH_BYTES];
    posix_spawn_file_actions_t actions;
    va_list list;
    pid_t child;
    int status, count = 1;
    va_start(list, program);
    while (count < ARGUMENTS_MAX - 1 && (arguments[count] = va_arg(list, const char *)))
        count++;
    va_end(list);
    if (!directory)
        directory = testing_directory();
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, testing_path(out, directory, "out"),
                                     O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_addopen(&actions, 2, testing_path(err, directory, "err"),
                                     O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_int_equal(
        posix_spawn(&child, program, &actions, NULL, (char *const *)arguments, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    assert_int_equal(waitpid(child, &status, 0), child);
    result.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    read_text(result.out, out);
    read_text(result.err, err);
    return &result;
}

/* Lines that are not progress. */
static inline int count_lines(const char *text)
{
    int lines = 0;
    for (const char *end; (end = strchr(text, '\n')); text = end + 1)
        lines += !memmem(text, (size_t)(end - text), " images, ", 9);
    return lines;
}

static inline void expect(const struct run *got, int status, const char *word)
{
    if (got->status != status || count_lines(got->err) != 1 || !strstr(got->err, word) ||
        got->out[0])
        fail_msg("status %d, stdout: %s, stderr: %s", got->status, got->out, got->err);
}

/* Nothing is at this path, and what packing left beside it is no store to either program. */
static inline void expect_no_store(const char *inspect, const char *loader, const char *out)
{
    char partial[TESTING_PATH_BYTES + 16], data[TESTING_PATH_BYTES + 32];
    assert_int_equal(access(out, F_OK), -1);
    snprintf(partial, sizeof partial, "%s.partial", out);
    if (access(partial, F_OK) != 0)
        return;
    expect(run(inspect, partial, NULL), 1, partial);
    snprintf(data, sizeof data, "train=%s", partial);
    expect(run(loader, "--data", data, "--bind", "tcp://127.0.0.1:*", NULL), 1, partial);
}

/* The last line of stdout; free with cJSON_Delete. */
static inline cJSON *json_of(struct run *got)
{
    size_t length = strlen(got->out);
    assert_true(length > 1 && got->out[length - 1] == '\n');
    got->out[length - 1] = '\0';
    char *line = strrchr(got->out, '\n');
    cJSON *json = cJSON_Parse(line ? line + 1 : got->out);
    assert_non_null(json);
    return json;
}

static inline double number_of(const cJSON *json, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, key);
    assert_true(cJSON_IsNumber(item));
    return item->valuedouble;
}

#endif
