/* SPDX-License-Identifier: Apache-2.0 */
/* Tries checkpoints, newest first. */
#include "trainer/resume.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"

/* Takes path over. */
static int try_file(struct resume *resume, char *path)
{
    if (!path)
        return ERR_NOMEM;
    *resume = (struct resume){.path = path};
    int code = safetensors_open(&resume->file, path);
    if (!code)
        code = checkpoint_read(&resume->at, resume->file, path);
    if (!code)
        code = safetensors_verify(resume->file);
    if (code)
        resume_close(resume);
    return code;
}

static bool may_try_another(int code)
{
    return code == ERR_DATA || code == ERR_IO;
}

/* The error of the newest one is the one that is reported when none is good. */
static int try_kept(struct resume *resume, const struct rundir *dir, int code)
{
    uint64_t *steps;
    size_t count;
    if (!may_try_another(code))
        return code;
    int listed = rundir_kept(&steps, &count, dir);
    if (listed)
        return listed;
    for (size_t i = 0; i < count && may_try_another(code); i++) {
        log_warn("%s", err_message());
        code = try_file(resume, rundir_step_path(dir, steps[i]));
        if (!code)
            log_warn("going on from the checkpoint before it, '%s': steps from %" PRIu64
                     " on are made again",
                     resume->path, resume->at.step);
    }
    free(steps);
    return code;
}

int resume_open(struct resume *resume, const struct rundir *dir)
{
    int code = try_file(resume, strdup(dir->last));
    resume->is_last = !code;
    return code ? try_kept(resume, dir, code) : 0;
}

void resume_close(struct resume *resume)
{
    safetensors_close(resume->file);
    free(resume->path);
    *resume = (struct resume){.file = NULL};
}
