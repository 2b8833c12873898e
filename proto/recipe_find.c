/* SPDX-License-Identifier: Apache-2.0 */
/* Where shipped recipes are. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/err.h"
#include "proto/recipe.h"

enum { DIRECTORIES = 3, LIST_BYTES = 600 };

static const char suffix[] = ".ini";

/* In the order in which they are searched; the first is NULL when the environment names none. */
static void list_directories(const char *directories[DIRECTORIES])
{
    const char *chosen = getenv("SATCHEL_RECIPES");
    directories[0] = chosen && *chosen ? chosen : NULL;
    directories[1] = RECIPES_SOURCE;
    directories[2] = RECIPES_INSTALLED;
}

static bool is_file(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISREG(status.st_mode);
}

/* Adds the names in directory to the text in list. */
static void add_names(char *list, const char *directory)
{
    struct dirent **entries;
    int count = scandir(directory, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        size_t length = strlen(entries[i]->d_name), used = strlen(list);
        if (length > strlen(suffix) &&
            strcmp(entries[i]->d_name + length - strlen(suffix), suffix) == 0)
            snprintf(list + used, LIST_BYTES - used, "%s%.*s", used ? ", " : "",
                     (int)(length - strlen(suffix)), entries[i]->d_name);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
}

static int not_found(const char *name, const char *const directories[DIRECTORIES])
{
    char list[LIST_BYTES] = "";
    for (int i = 0; i < DIRECTORIES && !*list; i++) {
        if (directories[i])
            add_names(list, directories[i]);
    }
    return err_set(ERR_ARG, "recipe '%s' is neither a file nor shipped; shipped are: %s", name,
                   *list ? list : "none (set SATCHEL_RECIPES to their directory)");
}

int recipe_find(char **path, const char *name_or_path)
{
    const char *directories[DIRECTORIES];
    *path = NULL;
    if (is_file(name_or_path)) {
        *path = strdup(name_or_path);
        return *path ? 0 : err_set(ERR_NOMEM, "out of memory for the recipe's path");
    }
    list_directories(directories);
    for (int i = 0; i < DIRECTORIES && !strchr(name_or_path, '/'); i++) {
        if (!directories[i])
            continue;
        if (asprintf(path, "%s/%s%s", directories[i], name_or_path, suffix) < 0) {
            *path = NULL;
            return err_set(ERR_NOMEM, "out of memory for the recipe's path");
        }
        if (is_file(*path))
            return 0;
        free(*path);
        *path = NULL;
    }
    return not_found(name_or_path, directories);
}
