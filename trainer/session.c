/* SPDX-License-Identifier: Apache-2.0 */
/* What a run works with, put together once. */
#include "trainer/session.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "trainer/accumulate.h"
#include "trainer/unpack.h"

static void *batch_alloc(void *user, size_t bytes)
{
    struct session *session = user;
    return session->ops->host_alloc(session->backend, bytes);
}

static void batch_free(void *user, void *memory)
{
    struct session *session = user;
    session->ops->host_free(session->backend, memory);
}

/* Ranks on one host that are not bound to cores of their own share them. */
static int share_of_threads(const struct options *options, const struct comm *comm)
{
    cpu_set_t usable;
    if (options->run.threads > 0 || comm->local_size == 1 ||
        sched_getaffinity(0, sizeof usable, &usable) != 0)
        return (int)options->run.threads;
    long cores = sysconf(_SC_NPROCESSORS_ONLN), mine = CPU_COUNT(&usable);
    long share = cores / comm->local_size;
    share = share < mine ? share : mine;
    return share > 0 ? (int)share : 1;
}

static int open_backend(struct session *session)
{
    const struct options *options = session->options;
    char path[4096];
    snprintf(path, sizeof path, "%s/engines-%d.txt", options->run.out, session->comm->local_rank);
    struct backend_config config = {
        .threads = share_of_threads(options, session->comm),
        .device = session->comm->local_rank,
        .precision = options->precision,
        .tune_path = options->run.autotune ? path : NULL,
        .fusion = options->fusion,
        .uncaptured = strcmp(options->run.cuda_graph, "no") == 0,
    };
    int code = backend_open(&session->backend, &session->ops, options->run.device,
                            options->run.backend, &config);
    code = comm_agree(session->comm, code);
    if (code)
        return code;
    log_info("backend: %s", session->ops->describe(session->backend));
    return comm_attach(session->comm, session->ops, session->backend);
}

static int open_feed(struct session *session)
{
    const struct run_options *run = &session->options->run;
    struct feed_config config = {
        .loaders = run->loaders,
        .run = run->out,
        .stall_limit_seconds = run->stall_limit,
        .audit_share = run->audit,
        .inline_pixels = !run->shared_memory,
        .poisonous = session->poisonous,
        .secret_key = run->secret_key,
        .server_keys = run->server_keys,
        .alloc = batch_alloc,
        .free = batch_free,
        .user = session,
    };
    double start_s = clock_seconds();
    int code = feed_open(&session->feed, &config);
    session->stalled =
        code == ERR_PEER && run->stall_limit > 0 && clock_seconds() - start_s >= run->stall_limit;
    return code;
}

/* One network is trained on one store and judged on another. */
static int check_stores(const struct feed_store *train, const struct feed_store *val)
{
    if (val->channels != train->channels)
        return err_set(ERR_PEER, "the store 'train' has images of %u channels, 'val' of %u",
                       train->channels, val->channels);
    if (val->class_count != train->class_count || !hash128_equal(val->classes, train->classes))
        return err_set(ERR_PEER,
                       "the stores 'train' (%u classes) and 'val' (%u) have different class "
                       "ids: pack both with the same classes",
                       train->class_count, val->class_count);
    return 0;
}

static int find_stores(struct session *session)
{
    bool eval_only = session->options->run.eval_only;
    session->val = feed_store(session->feed, "val");
    if (eval_only)
        return session->val
                   ? 0
                   : err_set(ERR_PEER, "no loader has a store 'val' to evaluate: start them "
                                       "with --data val=FILE.lmdb");
    session->train = feed_store(session->feed, "train");
    if (!session->train)
        return err_set(ERR_PEER, "no loader has a store 'train': start them with --data "
                                 "train=FILE.lmdb");
    if (strcmp(session->options->run.loaders, "synthetic") == 0) {
        session->val = NULL; /* its labels mean nothing, and it has a million samples */
        log_info("synthetic data: nothing will be evaluated");
    } else if (!session->val) {
        log_warn("no loader has a store 'val': nothing will be evaluated");
    }
    return session->val ? check_stores(session->train, session->val) : 0;
}

static int make_specs(struct session *session)
{
    struct recipe *recipe = &session->options->recipe;
    int code = 0;
    if (session->train) {
        code = recipe_train_spec(&session->train_spec, recipe, session->train->channels);
        recipe->chunk_size = session->train_spec.chunk_size;
        session->steps_per_epoch =
            chunk_steps(session->train->sample_count, (uint64_t)recipe->total_batch);
        if (!code && session->steps_per_epoch == 0)
            code = err_set(ERR_ARG,
                           "the store 'train' has %u samples, less than one --total-batch of "
                           "%lld",
                           session->train->sample_count, (long long)recipe->total_batch);
    }
    if (!code && session->val)
        code = recipe_eval_spec(&session->eval_spec, recipe, session->val->channels);
    return code;
}

static int open_nets(struct session *session)
{
    const struct recipe *recipe = &session->options->recipe;
    const struct feed_store *store = session->train ? session->train : session->val;
    int size_px = session->train ? session->train_spec.size_px : session->eval_spec.size_px;
    int code = net_open(&session->net, recipe->model, size_px, (int)store->channels,
                        (int)store->class_count);
    int frozen = -1;
    if (!code)
        code = recipe_freeze(&frozen, recipe);
    if (!code && frozen >= 0)
        net_freeze(session->net, frozen);
    if (code || !session->val)
        return code;
    code = net_copy(&session->eval_net, session->net);
    if (!code && session->eval_spec.size_px != size_px)
        code = net_reshape(session->eval_net, session->eval_spec.size_px);
    return code;
}

static int open_state(struct session *session)
{
    const struct recipe *recipe = &session->options->recipe;
    session->micro_batches =
        (int)(recipe->total_batch / (recipe->micro_batch * session->comm->size));
    int slots = session->train ? accumulate_slots(session->micro_batches) : 1;
    int code = session->ops->state_open(&session->state, session->backend, session->net, slots);
    if (code || !session->eval_net)
        return code;
    if (session->eval_net->size_px == session->net->size_px) {
        session->eval_state = session->state;
        return 0;
    }
    return session->ops->state_open(&session->eval_state, session->backend, session->eval_net, 1);
}

static int open_programs(struct session *session)
{
    const struct recipe *recipe = &session->options->recipe;
    struct program_config config = {
        .mode = PROGRAM_TRAIN,
        .batch = (int)recipe->micro_batch,
        .micro_batches = session->micro_batches,
        .input = unpack_format(&session->train_spec),
        .loss =
            {
                .label_smoothing = recipe->label_smoothing,
                .smoothing_over_k = strcmp(recipe->smoothing_off_value, "k") == 0,
            },
    };
    int code = 0;
    if (session->train)
        code = teacher_open(&session->teacher, &config, recipe, session->net, session->ops,
                            session->backend);
    if (!code && session->train)
        code = session->ops->program_open(&session->train_program, session->state, &config);
    config.teacher = NULL;
    config.micro_batches = 1;
    config.mode = PROGRAM_INFER;
    config.input = unpack_format(&session->eval_spec);
    if (!code && session->val)
        code = session->ops->program_open(&session->eval_program, session->eval_state, &config);
    if (!code && session->train)
        code = average_open(&session->average, recipe->ema_decay,
                            session->val ? session->eval_net : session->net, session->ops,
                            session->backend, session->val ? &config : NULL);
    return code;
}

static void describe_frozen(const struct net *net)
{
    double frozen = 0;
    for (int i = 0; i < net->tensor_count; i++)
        if (!net->tensors[i].trained && net->tensors[i].kind != TENSOR_RUNNING_MEAN &&
            net->tensors[i].kind != TENSOR_RUNNING_VAR)
            frozen += (double)net->tensors[i].count;
    if (frozen > 0)
        log_info("frozen: %.3f M parameters", frozen / 1e6);
}

static void describe(const struct session *session)
{
    const struct net *net = session->net;
    const struct recipe *recipe = &session->options->recipe;
    log_info("network: %s, %d px, %d channel%s, %d classes, %.3f M parameters, %.3f G "
             "multiply-adds an image",
             net->model, net->size_px, net->channels, log_plural((uint64_t)net->channels),
             net->classes, (double)net_parameters(net) / 1e6, (double)net_macs(net) / 1e9);
    describe_frozen(net);
    if (session->train)
        log_info(
            "training: %u samples, %llu steps an epoch of %lld images, %d micro-batch%s of %lld",
            session->train->sample_count, (unsigned long long)session->steps_per_epoch,
            (long long)recipe->total_batch, session->micro_batches,
            session->micro_batches == 1 ? "" : "es", (long long)recipe->micro_batch);
    if (session->val)
        log_info("validation: %u samples", session->val->sample_count);
}

/* What can be known to be wrong before loaders are waited for. */
static int check_early(struct session *session)
{
    const struct recipe *recipe = &session->options->recipe;
    const char *const files[][2] = {{"init", recipe->init}, {"teacher", recipe->teacher}};
    struct net *net = NULL;
    int code = net_open(&net, recipe->model, 224, 3, 1000);
    net_close(net);
    for (size_t i = 0; i < sizeof files / sizeof files[0] && !code; i++)
        if (files[i][1] && access(files[i][1], R_OK) != 0)
            code = err_set(ERR_IO, "--%s: cannot open '%s': %s", files[i][0], files[i][1],
                           strerror(errno));
    return code;
}

int session_open(struct session *session, struct options *options, struct comm *comm,
                 const char *poisonous)
{
    int (*const steps[])(struct session *) = {check_early, open_backend, open_feed,  find_stores,
                                              make_specs,  open_nets,    open_state, open_programs};
    *session = (struct session){.options = options, .comm = comm, .poisonous = poisonous};
    int code = recipe_check(&options->recipe, comm->size);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0] && !code; i++)
        code = steps[i](session);
    if (!code) {
        describe(session);
        return 0;
    }
    bool stalled = session->stalled;
    session_close(session);
    session->stalled = stalled;
    return code;
}

void session_close(struct session *session)
{
    const struct backend_ops *ops = session->ops;
    if (session->eval_program)
        ops->program_close(session->eval_program);
    if (session->train_program)
        ops->program_close(session->train_program);
    teacher_close(&session->teacher);
    average_close(&session->average);
    if (session->eval_state && session->eval_state != session->state)
        ops->state_close(session->eval_state);
    if (session->state)
        ops->state_close(session->state);
    net_close(session->eval_net);
    net_close(session->net);
    if (session->comm)
        comm_detach(session->comm);
    feed_close(session->feed); /* gives its memory back to the backend */
    if (session->backend)
        ops->close(session->backend);
    *session = (struct session){0};
}

struct weights session_weights(const struct session *session)
{
    return (struct weights){session->ops, session->state, session->net};
}

int session_parts(struct checkpoint_part dst[CHECKPOINT_PARTS_MAX], const struct session *session)
{
    struct weights weights = session_weights(session);
    int count = checkpoint_parts(dst, &weights);
    if (session->average.weights.state)
        dst[count++] = (struct checkpoint_part){"ema.", STATE_WEIGHT, session->average.weights};
    return count;
}
