/* SPDX-License-Identifier: Apache-2.0 */
#include "datasets/file_system.h"

#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>

/* statfs(2) and the file systems' own sources. */
static const struct {
    uint32_t type;
    const char *name;
} networks[] = {
    {0x6969, "NFS"},        {0xff534d42, "CIFS"}, {0xfe534d42, "SMB2"}, {0x517b, "SMB"},
    {0x01021997, "9P"},     {0x5346414f, "AFS"},  {0x6b414653, "AFS"},  {0x00c36400, "Ceph"},
    {0x0bd00bd0, "Lustre"}, {0x47504653, "GPFS"}, {0x73757245, "Coda"}, {0x7461636f, "OCFS2"},
    {0x19830326, "BeeGFS"}, {0x01161970, "GFS2"}, {0x65735546, "FUSE"}, {0xaad7aaea, "PanFS"},
};

const char *file_system_name(uint32_t type)
{
    for (size_t i = 0; i < sizeof networks / sizeof *networks; i++) {
        if (networks[i].type == type)
            return networks[i].name;
    }
    return NULL;
}

const char *file_system_network(const char *path)
{
    struct statfs facts;
    if (statfs(path, &facts) == 0)
        return file_system_name((uint32_t)facts.f_type);
    const char *slash = strrchr(path, '/');
    char *directory = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    int failed = directory ? statfs(directory, &facts) : -1;
    free(directory);
    return failed ? NULL : file_system_name((uint32_t)facts.f_type);
}
