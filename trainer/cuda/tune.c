/* SPDX-License-Identifier: Apache-2.0 */
/* Choosing engines by timing them on the device (--autotune): for every graph the first few
 * configurations that may be taken, on zeros, and the fastest stays. What was found is kept in a
 * file, one line a graph, and good for the same device, driver and cuDNN. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/file.h"
#include "common/hash.h"
#include "common/log.h"
#include "common/progress.h"
#include "common/stop.h"
#include "trainer/cuda/cuda.h"
#include "trainer/cuda/plan_build.h"

enum { CANDIDATES = 8, ROUNDS = 3, REPEATS = 5, HEADER_BYTES = 400, FILE_BYTES_MAX = 1 << 22 };

static struct hash128 graph_hash(const struct plan *plan)
{
    return hash128_of(&plan->spec, sizeof plan->spec);
}

static int header_of(char header[HEADER_BYTES], const struct backend *backend)
{
    struct cudaDeviceProp properties;
    int driver = 0;
    cudaError_t error = cudaGetDeviceProperties(&properties, backend->device);
    if (!error)
        error = cudaDriverGetVersion(&driver);
    snprintf(header, HEADER_BYTES, "# cuDNN engines, timed on %s, driver %d, cuDNN %zu",
             error ? "" : properties.name, driver, cudnnGetVersion());
    return cuda_check(error, "asking for the GPU's properties");
}

/* The configuration that was found before, and its time; false: the file has none for this graph.
 */
static bool recall(int *pick, double *seconds, const char *text, const struct plan *plan)
{
    char name[33], found[33];
    double microseconds;
    hash128_to_text(name, graph_hash(plan));
    for (const char *line = strchr(text, '\n'); line; line = strchr(line + 1, '\n'))
        if (sscanf(line + 1, "%32s %d %lf", found, pick, &microseconds) == 3 &&
            strcmp(found, name) == 0) {
            *seconds = microseconds * 1e-6;
            return *pick >= 0 && *pick < CANDIDATES;
        }
    return false;
}

static size_t rounded(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

static int run(const struct plan *plan, cudnnBackendDescriptor_t pack, struct backend *backend)
{
    return cuda_check_dnn(cudnnBackendExecute(backend->dnn, plan->executable, pack),
                          "timing an engine");
}

/* Some runs as one CUDA graph. */
struct runs {
    struct backend *backend;
    cudaGraphExec_t exec;
};

static int capture(struct runs *runs, const struct plan *plan, cudnnBackendDescriptor_t pack)
{
    struct backend *backend = runs->backend;
    cudaGraph_t graph = NULL;
    int code =
        cuda_check(cudaStreamBeginCapture(backend->compute, cudaStreamCaptureModeThreadLocal),
                   "timing an engine");
    if (code)
        return code;
    for (int i = 0; i < REPEATS && !code; i++)
        code = run(plan, pack, backend);
    cudaError_t error = cudaStreamEndCapture(backend->compute, &graph); /* also behind a failure */
    if (!code && !error)
        error = cudaGraphInstantiate(&runs->exec, graph, 0);
    if (graph)
        cudaGraphDestroy(graph);
    return code ? code : cuda_check(error, "timing an engine");
}

static int launch(void *user)
{
    const struct runs *runs = user;
    return cuda_check(cudaGraphLaunch(runs->exec, runs->backend->compute), "timing an engine");
}

/* The least time of a run among some rounds, as the device has it. They run as steps do, in a
 * graph: small ones would wait for the host to launch them. */
static int time_pack(double *seconds, const struct plan *plan, cudnnBackendDescriptor_t pack,
                     struct backend *backend)
{
    struct runs runs = {.backend = backend};
    int code = run(plan, pack, backend); /* what it loads late is there then */
    if (!code)
        code = capture(&runs, plan, pack);
    if (!code)
        code = profile_cuda_best(seconds, backend, ROUNDS, launch, &runs);
    *seconds = code ? INFINITY : *seconds / REPEATS;
    if (runs.exec)
        cudaGraphExecDestroy(runs.exec);
    return code;
}

/* INFINITY on failure; ERR_NOMEM: the graph's tensors do not fit. */
static int time_plan(double *seconds, const struct plan *plan, struct backend *backend)
{
    static float number = 1;
    static int64_t count = 1;
    const struct graph *graph = plan->graph;
    void *pointers[GRAPH_ROLES];
    uint8_t *memory = NULL;
    cudnnBackendDescriptor_t pack = NULL;
    size_t total = 0;
    for (int i = 0; i < graph->role_count; i++)
        total += rounded(graph->role_bytes[i]);
    *seconds = INFINITY;
    int code = cuda_alloc(&memory, backend, total + plan->workspace_bytes, "timing an engine");
    if (code)
        return code;
    size_t at = 0;
    for (int i = 0; i < graph->role_count; i++) {
        bool by_value = graph->role_bytes[i] == 0;
        pointers[i] = !by_value                        ? memory + at
                      : graph->roles[i] == GRAPH_COUNT ? (void *)&count
                                                       : &number;
        at += rounded(graph->role_bytes[i]);
    }
    code = plan_pack(&pack, plan, pointers, memory + total);
    if (!code)
        code = time_pack(seconds, plan, pack, backend);
    cudaStreamSynchronize(backend->compute);
    if (pack)
        cudnnBackendDestroyDescriptor(pack);
    cudaFree(memory);
    if (code)
        cudaGetLastError(); /* the next kernel's launch would be told of it */
    return code;
}

static int build_pick(struct plan *dst, const struct plan *plan, int pick, struct backend *backend)
{
    const struct plan_context context = {.handle = backend->dnn,
                                         .workspace_limit = PLAN_WORKSPACE_LIMIT};
    *dst = (struct plan){.spec = plan->spec, .pick = pick};
    return plan_build(dst, &context);
}

/* plan becomes the other one. */
static void replace(struct plan *plan, struct plan *by)
{
    plan_release(plan);
    *plan = *by;
}

static void tune(struct plan *plan, struct backend *backend)
{
    int code = time_plan(&plan->measured_s, plan, backend);
    for (int pick = 1; pick < CANDIDATES && !code; pick++) {
        struct plan other;
        double seconds;
        if (build_pick(&other, plan, pick, backend))
            break;                                /* no more */
        if (time_plan(&seconds, &other, backend)) /* there are others */
            log_verbose("an engine is passed over: %s", err_message());
        other.measured_s = seconds;
        if (seconds < plan->measured_s)
            replace(plan, &other);
        else
            plan_release(&other);
    }
    if (code) /* as the heuristics have it; a step tells what is wrong with it */
        log_verbose("not timed: %s", err_message());
}

static void settle(struct plan *plan, const char *known, struct backend *backend, bool *timed)
{
    int pick;
    struct plan other;
    double seconds;
    if (!known || !recall(&pick, &seconds, known, plan)) {
        *timed = true;
        tune(plan, backend);
        return;
    }
    if (pick != plan->pick && !build_pick(&other, plan, pick, backend))
        replace(plan, &other);
    plan->measured_s = seconds;
}

static void save_plan(FILE *stream, const struct plan *plan)
{
    char name[160], hash[33];
    graph_name(name, sizeof name, &plan->spec);
    hash128_to_text(hash, graph_hash(plan));
    fprintf(stream, "%s %d %.1f us, %s\n", hash, plan->pick, plan->measured_s * 1e6, name);
}

static bool has_plan(const struct plans *plans, const char *line)
{
    char hash[33];
    for (int i = 0; i < plans_count(plans); i++) {
        hash128_to_text(hash, graph_hash(plans_get(plans, i)));
        if (strncmp(line, hash, 32) == 0)
            return true;
    }
    return false;
}

/* Lines of graphs that this process does not have stay. */
static int save(const struct backend *backend, const char *header, const char *known)
{
    struct file_atomic *file;
    int code = file_atomic_open(&file, backend->tune_path);
    if (code)
        return code;
    FILE *stream = file_atomic_stream(file);
    fprintf(stream, "%s\n", header);
    for (int i = 0; i < plans_count(backend->plans); i++)
        if (!plans_get(backend->plans, i)->refused)
            save_plan(stream, plans_get(backend->plans, i));
    for (const char *at = known ? strchr(known, '\n') : NULL; at && at[1];
         at = strchr(at + 1, '\n'))
        if (!has_plan(backend->plans, at + 1))
            fprintf(stream, "%.*s\n", (int)strcspn(at + 1, "\n"), at + 1);
    return file_atomic_commit(file);
}

/* The file's text; NULL when there is none, or it is of something else. */
static char *load(const struct backend *backend, const char *header)
{
    uint8_t *text = NULL;
    size_t bytes, length = strlen(header);
    if (file_read(&text, &bytes, backend->tune_path, FILE_BYTES_MAX))
        return NULL;
    if (strncmp((const char *)text, header, length) == 0 && text[length] == '\n')
        return (char *)text;
    log_info("engines are timed anew: '%s' is of another device, driver or cuDNN",
             backend->tune_path);
    free(text);
    return NULL;
}

int tune_cuda_plans(struct backend *backend)
{
    char header[HEADER_BYTES];
    bool timed = false;
    int total = plans_count(backend->plans);
    int code = backend->tune_path ? header_of(header, backend) : 0;
    if (code || !backend->tune_path)
        return code;
    char *known = load(backend, header);
    struct progress *progress = progress_open("timing cuDNN engines", (uint64_t)total, "graphs");
    for (int i = 0; i < total && !code; i++) {
        struct plan *plan = plans_plan(backend->plans, i);
        if (!plan->refused && !plan->settled)
            settle(plan, known, backend, &timed);
        plan->settled = true;
        if (stop_requested())
            code = err_set(ERR_STOPPED, "stopped while cuDNN's engines were timed");
        progress_update(progress, (uint64_t)i + 1, NULL);
    }
    progress_close(progress);
    if (!code && timed)
        code = save(backend, header, known);
    free(known);
    return code;
}
