/* SPDX-License-Identifier: Apache-2.0 */
#include "trainer/module.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/err.h"

enum { PATH_BYTES = 4096 };

/* The directory that the program was started from; "" when it cannot be known. */
static void program_directory(char path[PATH_BYTES])
{
    ssize_t bytes = readlink("/proc/self/exe", path, PATH_BYTES - 1);
    path[bytes > 0 ? bytes : 0] = '\0';
    char *slash = strrchr(path, '/');
    if (slash)
        *slash = '\0';
}

/* Whether directory/below/satchel-NAME.so is there. */
static bool find_in(char path[PATH_BYTES], const char *directory, const char *below,
                    const char *name)
{
    int bytes = snprintf(path, PATH_BYTES, "%s%s/satchel-%s.so", directory, below, name);
    return bytes < PATH_BYTES && access(path, F_OK) == 0;
}

/* list: directories with colons between them. */
static bool find_in_list(char path[PATH_BYTES], const char *list, const char *name)
{
    bool found = false;
    for (const char *at = list; *at && !found; at += *at == ':') {
        char directory[PATH_BYTES];
        int bytes = (int)strcspn(at, ":");
        snprintf(directory, sizeof directory, "%.*s", bytes, at);
        found = bytes > 0 && bytes < PATH_BYTES && find_in(path, directory, "", name);
        at += bytes;
    }
    return found;
}

static bool find(char path[PATH_BYTES], const char *name)
{
    char program[PATH_BYTES];
    const char *told = getenv("SATCHEL_MODULES");
    if (told && *told)
        return find_in_list(path, told, name);
    program_directory(program);
    return find_in(path, program, "", name) || find_in(path, program, "/../trainer", name) ||
           find_in(path, SATCHEL_MODULE_DIR, "", name);
}

int module_open(void **symbol, const char *name, const char *symbol_name)
{
    char path[PATH_BYTES];
    *symbol = NULL;
    if (!find(path, name))
        return err_set(ERR_UNSUPPORTED, "there is no module satchel-%s.so: this build lacks it",
                       name);
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!module)
        return err_set(ERR_UNSUPPORTED, "the module cannot be opened: %s", dlerror());
    *symbol = dlsym(module, symbol_name);
    return *symbol ? 0 : err_set(ERR_UNSUPPORTED, "'%s' is no module of this program", path);
}
