/* SPDX-License-Identifier: Apache-2.0 */
/* The directory of a run. */
#include "trainer/rundir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/err.h"
#include "common/file.h"

static const char *const file_names[] = {"recipe.ini",       "metrics.jsonl",    "last.safetensors",
                                         "best.safetensors", "best.predictions", "poisonous.txt"};
enum {
    FILE_NAMES = sizeof file_names / sizeof file_names[0],
    LONGEST_NAME = 160, /* of an event file, or one while it is written (common/file.h) */
};
static const char step_prefix[] = "step-", step_suffix[] = ".safetensors";
static const char probe_name[] = "metrics.jsonl.probe.tmp";

static int set_paths(struct rundir *dir, const char *path)
{
    char **paths[FILE_NAMES] = {&dir->recipe, &dir->metrics,          &dir->last,
                                &dir->best,   &dir->best_predictions, &dir->poisonous};
    *dir = (struct rundir){.lock = -1};
    if (strlen(path) + LONGEST_NAME >= PATH_MAX)
        return err_set(ERR_IO, "--out: the path is too long (%zu bytes)", strlen(path));
    if (!(dir->path = strdup(path)))
        return err_set(ERR_NOMEM, "out of memory for '%s'", path);
    for (int i = 0; i < FILE_NAMES; i++) {
        if (asprintf(paths[i], "%s/%s", path, file_names[i]) < 0) {
            *paths[i] = NULL;
            return err_set(ERR_NOMEM, "out of memory for '%s'", path);
        }
    }
    return 0;
}

static bool starts_with_ours(const char *name)
{
    for (int i = 0; i < FILE_NAMES; i++)
        if (strncmp(name, file_names[i], strlen(file_names[i])) == 0)
            return true;
    return strncmp(name, "events.out.tfevents.", 20) == 0 ||
           strncmp(name, step_prefix, strlen(step_prefix)) == 0;
}

/* Of the checkpoint that is named so; false when it is another file. */
static bool parse_step(uint64_t *step, const char *name)
{
    char *end;
    if (strncmp(name, step_prefix, strlen(step_prefix)) != 0)
        return false;
    const char *digits = name + strlen(step_prefix);
    if (*digits < '0' || *digits > '9')
        return false;
    errno = 0;
    *step = strtoull(digits, &end, 10);
    return !errno && strcmp(end, step_suffix) == 0;
}

static bool is_temporary(const char *name)
{
    size_t length = strlen(name);
    return length > 4 && strcmp(name + length - 4, ".tmp") == 0 && starts_with_ours(name);
}

/* Adds up the entries, and those of them that a run writes; removes half-written ones. */
static int look_through(const struct rundir *dir, int *entries, int *ours)
{
    DIR *stream = opendir(dir->path);
    if (!stream)
        return err_set(ERR_IO, "cannot read the directory '%s': %s", dir->path, strerror(errno));
    for (const struct dirent *entry; (entry = readdir(stream));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        (*entries)++;
        *ours += starts_with_ours(entry->d_name);
        if (is_temporary(entry->d_name))
            unlinkat(dirfd(stream), entry->d_name, 0);
    }
    closedir(stream);
    return 0;
}

static int make(const struct rundir *dir)
{
    struct stat status;
    if (stat(dir->path, &status) == 0 && !S_ISDIR(status.st_mode))
        return err_set(ERR_IO, "--out '%s' is a file: give a directory", dir->path);
    return file_make_directory(dir->path);
}

static int take(struct rundir *dir)
{
    dir->lock = open(dir->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir->lock < 0)
        return err_set(ERR_IO, "cannot open the directory '%s': %s", dir->path, strerror(errno));
    /* File systems without locks cannot protect the run; that is no reason not to train. */
    if (flock(dir->lock, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return err_set(ERR_IO,
                       "another satchel-trainer is running in '%s': wait for it, or give "
                       "another --out",
                       dir->path);
    if (faccessat(AT_FDCWD, dir->path, W_OK | X_OK, AT_EACCESS) != 0)
        return err_set(ERR_IO, "cannot write into '%s': %s", dir->path, strerror(errno));
    return 0;
}

/* Training must not find out hours later that a file cannot be written. */
static int check_names(const struct rundir *dir)
{
    const char *const paths[FILE_NAMES] = {dir->recipe, dir->metrics,          dir->last,
                                           dir->best,   dir->best_predictions, dir->poisonous};
    struct stat status;
    for (int i = 0; i < FILE_NAMES; i++)
        if (lstat(paths[i], &status) == 0 && !S_ISREG(status.st_mode))
            return err_set(ERR_IO,
                           "'%s' is %s, where the run has to write a file: move it away, or give "
                           "another --out",
                           paths[i], S_ISDIR(status.st_mode) ? "a directory" : "no regular file");
    int fd = openat(dir->lock, probe_name, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0 || write(fd, "\n", 1) != 1 || fsync(fd) != 0) {
        int code = err_set(ERR_IO, "cannot write into '%s': %s", dir->path, strerror(errno));
        if (fd >= 0)
            close(fd);
        unlinkat(dir->lock, probe_name, 0);
        return code;
    }
    close(fd);
    unlinkat(dir->lock, probe_name, 0);
    return 0;
}

static int find_checkpoint(struct rundir *dir)
{
    uint64_t *steps;
    size_t count;
    int code = rundir_kept(&steps, &count, dir);
    free(steps);
    dir->has_checkpoint = access(dir->last, F_OK) == 0 || count > 0;
    return code;
}

static int check_content(struct rundir *dir, bool resume)
{
    int entries = 0, ours = 0;
    int code = look_through(dir, &entries, &ours);
    if (code)
        return code;
    if (entries > 0 && !resume)
        return err_set(ERR_ARG,
                       "--out '%s' is not empty: give a new directory, or --resume to go on "
                       "with the run in it",
                       dir->path);
    if (entries > 0 && ours == 0)
        return err_set(ERR_ARG,
                       "--out '%s' holds files, but no run to resume: give a new directory",
                       dir->path);
    return find_checkpoint(dir);
}

int rundir_open(struct rundir *dir, const char *path, bool resume)
{
    int code = set_paths(dir, path);
    if (!code)
        code = make(dir);
    if (!code)
        code = take(dir);
    if (!code)
        code = check_content(dir, resume);
    if (!code)
        code = check_names(dir);
    if (code)
        rundir_close(dir);
    return code;
}

int rundir_look(struct rundir *dir, const char *path)
{
    return rundir_follow(dir, path, true);
}

int rundir_follow(struct rundir *dir, const char *path, bool has_checkpoint)
{
    int code = set_paths(dir, path);
    if (!code && has_checkpoint)
        code = find_checkpoint(dir);
    if (!code && has_checkpoint && !dir->has_checkpoint)
        code = err_set(ERR_IO, "there is no checkpoint '%s'", dir->last);
    if (code)
        rundir_close(dir);
    else
        dir->has_checkpoint = has_checkpoint;
    return code;
}

static int newest_first(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left < right) - (left > right);
}

int rundir_kept(uint64_t **steps, size_t *count, const struct rundir *dir)
{
    uint64_t step, *found = NULL;
    size_t room = 0;
    *count = 0;
    *steps = NULL;
    DIR *stream = opendir(dir->path);
    if (!stream)
        return err_set(ERR_IO, "cannot read the directory '%s': %s", dir->path, strerror(errno));
    for (const struct dirent *entry; (entry = readdir(stream));) {
        if (!parse_step(&step, entry->d_name))
            continue;
        if (*count == room) {
            room = room ? 2 * room : 8;
            uint64_t *larger = realloc(found, room * sizeof *found);
            if (!larger) {
                free(found);
                closedir(stream);
                return err_set(ERR_NOMEM, "out of memory for the files of '%s'", dir->path);
            }
            found = larger;
        }
        found[(*count)++] = step;
    }
    closedir(stream);
    if (*count > 0)
        qsort(found, *count, sizeof *found, newest_first);
    *steps = found;
    return 0;
}

char *rundir_step_path(const struct rundir *dir, uint64_t step)
{
    char *path;
    if (asprintf(&path, "%s/%s%010" PRIu64 "%s", dir->path, step_prefix, step, step_suffix) >= 0)
        return path;
    err_set(ERR_NOMEM, "out of memory for a path in '%s'", dir->path);
    return NULL;
}

void rundir_close(struct rundir *dir)
{
    if (dir->path && dir->lock >= 0)
        close(dir->lock);
    free(dir->path);
    free(dir->recipe);
    free(dir->metrics);
    free(dir->last);
    free(dir->best);
    free(dir->best_predictions);
    free(dir->poisonous);
    *dir = (struct rundir){.lock = -1};
}
