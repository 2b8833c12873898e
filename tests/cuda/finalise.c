/* SPDX-License-Identifier: Apache-2.0 */
/* Asks the real cuDNN whether it takes every graph of the backend on a device that is only
 * described: nothing runs, but a graph that is refused on that chip fails here.
 *   finalise DEVICE.json [--verbose] MODEL:SIZE:BATCH:train|prologue|block|infer...
 * (training without fusion, and with either; inference) prints every distinct graph with --verbose,
 * then one line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/file.h"
#include "common/log.h"
#include "trainer/cuda/plan.h"
#include "trainer/cuda/schedule.h"

enum { CLASSES = 1000 };

struct wish {
    char model[48];
    int size_px, batch, channels;
    enum program_mode mode;
    enum fusion fusion;
};

static int read_wish(struct wish *wish, const char *text)
{
    char mode[16];
    if (sscanf(text, "%47[^:]:%d:%d:%15s", wish->model, &wish->size_px, &wish->batch, mode) != 4)
        return err_set(ERR_ARG, "'%s' is not MODEL:SIZE:BATCH:train|prologue|block|infer", text);
    wish->mode = strcmp(mode, "infer") == 0 ? PROGRAM_INFER : PROGRAM_TRAIN;
    wish->fusion = strcmp(mode, "prologue") == 0 ? FUSION_PROLOGUE
                   : strcmp(mode, "block") == 0  ? FUSION_BLOCK
                                                 : FUSION_NONE;
    wish->channels = wish->size_px <= 32 ? 1 : 3;
    return 0;
}

/* All graphs of a net, with the memory that they want. */
static int want(struct plans *plans, const char *text)
{
    struct wish wish;
    struct net *net = NULL;
    struct layout *layout = NULL;
    struct schedule *schedule = NULL;
    int before = plans_count(plans);
    int code = read_wish(&wish, text);
    if (!code)
        code = net_open(&net, wish.model, wish.size_px, wish.channels, CLASSES);
    if (!code)
        code = layout_open(&layout, net);
    if (!code && wish.mode == PROGRAM_TRAIN)
        code = layout_split(layout, net, 0);
    const struct scheme scheme = {.fusion = wish.fusion};
    const struct program_config config = {.mode = wish.mode, .batch = wish.batch};
    if (!code)
        code = schedule_open(&schedule, net, layout, &config, &scheme);
    for (int i = 0; !code && i < schedule->graph_count; i++)
        if (plans_want(plans, &schedule->graphs[i]) < 0)
            code = err_set(ERR_NOMEM, "no memory for plans");
    if (!code)
        printf("%s: %d graphs, %d new ones, %.0f MiB of maps and gradients\n", text,
               schedule->graph_count, plans_count(plans) - before,
               (double)schedule_bytes(schedule) / (1 << 20));
    schedule_close(schedule);
    layout_close(layout);
    net_close(net);
    return code;
}

static void print_plans(const struct plans *plans)
{
    for (int i = 0; i < plans_count(plans); i++) {
        char name[160];
        const struct plan *plan = plans_get(plans, i);
        graph_name(name, sizeof name, &plan->spec);
        printf("%-90s %6.3f s, %d tried, workspace %7.2f MiB%s\n", name, plan->seconds, plan->tried,
               (double)plan->workspace_bytes / (1 << 20), plan->refused ? ", REFUSED" : "");
    }
}

static int count_refused(const struct plans *plans)
{
    int refused = 0;
    for (int i = 0; i < plans_count(plans); i++)
        refused += plans_get(plans, i)->refused;
    return refused;
}

static int run(const char *description, char **wishes, int count, bool verbose)
{
    const struct plan_device device = {.description = description,
                                       .workspace_limit = (size_t)1 << 30};
    struct plans *plans;
    double start_s = clock_seconds();
    int code = plans_open(&plans, &device);
    if (code)
        return code;
    for (int i = 0; i < count && !code; i++)
        code = want(plans, wishes[i]);
    if (!code)
        code = plans_build(plans, 0);
    if (!code && verbose)
        print_plans(plans);
    int refused = count_refused(plans);
    if (!code && refused)
        code =
            err_set(ERR_UNSUPPORTED, "%d of %d graphs have no engine", refused, plans_count(plans));
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    if (!code)
        printf("all %d distinct graphs finalised in %.1f s, %ld MiB of memory at most\n",
               plans_count(plans), clock_seconds() - start_s, usage.ru_maxrss >> 10);
    plans_close(plans);
    return code;
}

int main(int argc, char **argv)
{
    bool verbose = argc > 2 && strcmp(argv[2], "--verbose") == 0;
    uint8_t *description = NULL;
    size_t bytes;
    log_set_verbose(verbose);
    int skipped = 2 + verbose;
    int code = argc < 3 + verbose
                   ? err_set(ERR_ARG, "finalise DEVICE.json [--verbose] MODEL:SIZE:BATCH:HOW...")
                   : 0;
    if (!code)
        code = file_read(&description, &bytes, argv[1], 1 << 16);
    if (!code)
        code = run((const char *)description, argv + skipped, argc - skipped, verbose);
    if (code)
        fprintf(stderr, "finalise: %s\n", err_message());
    free(description);
    return err_exit_status(code);
}
