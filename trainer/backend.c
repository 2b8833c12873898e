/* SPDX-License-Identifier: Apache-2.0 */
/* Which backends this build has, and opening one of them. */
#include "trainer/backend.h"

#include <stdio.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"

/* In the order of "auto". */
static const struct {
    const char *name, *device;
    const struct backend_ops *ops; /* NULL: not in this build */
} known[] = {
    {"cuda", "cuda", NULL},
#ifdef SATCHEL_DNNL
    {"dnnl", "cpu", &backend_dnnl},
#else
    {"dnnl", "cpu", NULL},
#endif
    {"ref", "cpu", &backend_ref},
};

static bool allows(const char *wish, const char *have)
{
    return strcmp(wish, "auto") == 0 || strcmp(wish, have) == 0;
}

int backend_open(struct backend **out, const struct backend_ops **ops, const char *device,
                 const char *backend, const struct backend_config *config)
{
    *out = NULL;
    *ops = NULL;
    /* When none can, the reason of the preferred one is told. */
    int code = 0;
    char reason[1024] = "";
    bool named = strcmp(backend, "auto") != 0;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (!allows(device, known[i].device) || !allows(backend, known[i].name))
            continue;
        if (!known[i].ops) {
            if (named || strcmp(device, "cuda") == 0)
                return err_set(ERR_UNSUPPORTED, "this build has no %s backend", known[i].name);
            continue;
        }
        int failure = known[i].ops->open(out, config);
        if (!failure) {
            *ops = known[i].ops;
            return 0;
        }
        log_verbose("backend %s: %s", known[i].name, err_message());
        if (failure != ERR_UNSUPPORTED)
            return failure;
        if (!code)
            snprintf(reason, sizeof reason, "%s", err_message());
        code = failure;
    }
    if (code)
        return err_set(code, "%s", reason);
    return err_set(ERR_ARG, "there is no backend '%s' for device '%s'", backend, device);
}
