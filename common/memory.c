/* SPDX-License-Identifier: Apache-2.0 */
#include "common/memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 4096, LINE_BYTES = PATH_BYTES + 256 };

static FILE *open_under(const char *root, const char *folder, const char *path, const char *name)
{
    char full[2 * PATH_BYTES];
    int bytes = snprintf(full, sizeof full, "%s%s%s%s", root, folder, path, name);
    return bytes < (int)sizeof full ? fopen(full, "re") : NULL;
}

static uint64_t machine_available(const char *root)
{
    char line[LINE_BYTES];
    uint64_t kib = UINT64_MAX >> 10;
    FILE *file = open_under(root, "/proc/meminfo", "", "");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1)
            break;
    if (file)
        fclose(file);
    return kib << 10;
}

/* Of the group and all above it; "max" and files that are not there do not limit. A container may
 * see its own group as the root, under a path that only the host has. */
static uint64_t group_limit(const char *root, const char *mount, char *path, const char *name)
{
    uint64_t least = UINT64_MAX, limit;
    for (;;) {
        FILE *file = open_under(root, mount, path, name);
        if (file && fscanf(file, "%" SCNu64, &limit) == 1 && limit < least)
            least = limit;
        if (file)
            fclose(file);
        char *slash = strrchr(path, '/');
        if (!slash)
            return least;
        *slash = '\0';
    }
}

/* Lines of /proc/self/cgroup are "ID:CONTROLLERS:PATH"; version 2 is ID 0 without controllers. */
static uint64_t groups_limit(const char *root)
{
    char line[LINE_BYTES];
    uint64_t least = UINT64_MAX;
    FILE *file = open_under(root, "/proc/self/cgroup", "", "");
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':'), *path;
        if (!controllers || !(path = strchr(++controllers, ':')))
            continue;
        *path++ = '\0';
        uint64_t limit = UINT64_MAX;
        if (!*controllers)
            limit = group_limit(root, "/sys/fs/cgroup", path, "/memory.max");
        else if (strcmp(controllers, "memory") == 0)
            limit = group_limit(root, "/sys/fs/cgroup/memory", path, "/memory.limit_in_bytes");
        least = limit < least ? limit : least;
    }
    if (file)
        fclose(file);
    return least;
}

uint64_t memory_available(const char *root)
{
    uint64_t machine = machine_available(root), groups = groups_limit(root);
    return groups < machine ? groups : machine;
}
