/* SPDX-License-Identifier: Apache-2.0 */
/* Which backends this build has, and opening one of them. */
#include "trainer/backend.h"

#include <stdio.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"
#include "trainer/module.h"

/* In the order of "auto". */
static const struct known {
    const char *name, *device;
    const struct backend_ops *ops; /* NULL: in a module, or not in this build */
    const char *symbol;            /* in the module satchel-NAME.so */
} known[] = {
    {"cuda", "cuda", NULL, "backend_cuda"},
#ifdef SATCHEL_DNNL
    {"dnnl", "cpu", &backend_dnnl, NULL},
#else
    {"dnnl", "cpu", NULL, NULL},
#endif
    {"ref", "cpu", &backend_ref, NULL},
};

static int find(const struct backend_ops **ops, const struct known *what)
{
    void *symbol = NULL;
    *ops = what->ops;
    if (*ops)
        return 0;
    if (!what->symbol)
        return err_set(ERR_UNSUPPORTED, "this build has no %s backend", what->name);
    int code = module_open(&symbol, what->name, what->symbol);
    *ops = symbol;
    return code ? err_wrap(code, "the %s backend", what->name) : 0;
}

static int open_known(struct backend **out, const struct backend_ops **ops,
                      const struct known *what, const struct backend_config *config)
{
    int code = find(ops, what);
    if (!code)
        code = (*ops)->open(out, config);
    if (code)
        *ops = NULL;
    return code;
}

/* What "auto" leaves out: a module with all its libraries where the precision is not its own, and
 * the reference's slow fp16 and bf16, which are for comparisons. */
static bool is_meant(const struct known *what, const char *device, bool named,
                     const struct backend_config *config)
{
    bool halves = config->precision == PRECISION_FP16;
    if (named)
        return true;
    return what->symbol ? halves || strcmp(device, what->device) == 0
                        : config->precision == PRECISION_FP32 || what->ops != &backend_ref;
}

static bool allows(const char *wish, const char *have)
{
    return strcmp(wish, "auto") == 0 || strcmp(wish, have) == 0;
}

int backend_open(struct backend **out, const struct backend_ops **ops, const char *device,
                 const char *backend, const struct backend_config *config)
{
    *out = NULL;
    *ops = NULL;
    /* When none can, each one's reason is told. */
    int code = 0;
    char reason[1024] = "";
    bool named = strcmp(backend, "auto") != 0;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (!allows(device, known[i].device) || !allows(backend, known[i].name) ||
            !is_meant(&known[i], device, named, config))
            continue;
        int failure = open_known(out, ops, &known[i], config);
        if (!failure)
            return 0;
        log_verbose("backend %s: %s", known[i].name, err_message());
        if (failure != ERR_UNSUPPORTED)
            return failure;
        size_t told = strlen(reason);
        snprintf(reason + told, sizeof reason - told, "%s%s", told ? "; " : "", err_message());
        code = failure;
    }
    if (code)
        return err_set(code, "%s", reason);
    return err_set(ERR_ARG, "there is no backend '%s' for device '%s'", backend, device);
}

void backend_list(FILE *stream)
{
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        const struct backend_config config = {.precision = known[i].symbol ? PRECISION_FP16
                                                                           : PRECISION_FP32};
        const struct backend_ops *ops;
        struct backend *backend;
        int code = open_known(&backend, &ops, &known[i], &config);
        fprintf(stream, "  %-5s %s%s\n", known[i].name, code ? "not here: " : "",
                code ? err_message() : ops->describe(backend));
        if (!code)
            ops->close(backend);
    }
}

enum fusion backend_fusion(const char *name)
{
    static const char *const names[] = {"auto", "none", "prologue", "block"};
    int at = 0;
    while (at < FUSION_BLOCK && strcmp(name, names[at]) != 0)
        at++;
    return (enum fusion)at;
}
