/* SPDX-License-Identifier: Apache-2.0 */
/* satchel-bench-feed: pulls the training stream as a trainer of one rank would, and prints its rate
 * and the receipt of each epoch. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "common/opt.h"
#include "common/progress.h"
#include "common/stop.h"
#include "proto/recipe.h"
#include "trainer/feed.h"

enum { EPOCHS_MAX = 1 << 20 }; /* when --seconds alone ends it */

struct values {
    const char *loaders, *secret_key, *server_keys;
    double stall_limit, audit, seconds;
    int64_t prefetch_mib;
    bool shared_memory;
};

static const struct opt OPTIONS[] = {
    {"loaders", OPT_STRING, offsetof(struct values, loaders),
     .value_name = "ENDPOINT,ENDPOINT...|@FILE|synthetic",
     .help = "where the loaders are; @FILE has one endpoint a line and is watched; synthetic makes "
             "batches without meaning here"},
    {"stall-limit", OPT_REAL, offsetof(struct values, stall_limit), .fallback = "0", .min = 0,
     .max = 1e9, .value_name = "SECONDS",
     .help = "give up when no chunk came for so long; 0: wait for ever"},
    {"audit", OPT_REAL, offsetof(struct values, audit), .fallback = "0", .max = 1,
     .value_name = "SHARE",
     .help = "share of chunks that are fetched from two loaders and compared"},
    {"seconds", OPT_REAL, offsetof(struct values, seconds), .fallback = "0", .max = 1e9,
     .value_name = "S", .help = "no epoch is begun after so long; 0: --epochs alone decides"},
    {"prefetch-mib", OPT_INT, offsetof(struct values, prefetch_mib), .fallback = "256", .min = 1,
     .max = 1 << 20, .value_name = "MIB", .help = "memory for micro-batches fetched ahead"},
    {"shared-memory", OPT_FLAG, offsetof(struct values, shared_memory), .fallback = "true",
     .help = "take pixels from the memory of ipc:// loaders that offer it; on unless =false"},
    {"secret-key", OPT_STRING, offsetof(struct values, secret_key), .value_name = "FILE",
     .help = "this trainer's key (satchel-keygen); goes with --server-keys"},
    {"server-keys", OPT_STRING, offsetof(struct values, server_keys), .value_name = "DIR",
     .help = "public keys of the loaders that are trusted"},
};

struct pull {
    struct feed *feed;
    struct feed_range range; /* of an epoch; epoch is set as it is pushed */
    uint64_t batches;        /* of an epoch */
    int64_t epochs, done;
    double until_s; /* no epoch is begun later; 0: none is too late */
    uint64_t samples;
    double seconds, longest_wait_s;
    struct hash128 *receipts; /* [epochs] */
    struct feed_counts counts;
};

static int make_range(struct pull *pull, const struct recipe *recipe)
{
    const struct feed_store *store = feed_store(pull->feed, "train");
    if (!store)
        return err_set(ERR_PEER, "no loader has a store train");
    struct feed_range *range = &pull->range;
    int code = recipe_train_spec(&range->spec, recipe, store->channels);
    if (code)
        return code;
    uint64_t steps = chunk_steps(store->sample_count, (uint64_t)recipe->total_batch);
    if (steps == 0)
        return err_set(ERR_ARG, "an epoch of %u samples has no step of --total-batch %" PRId64,
                       store->sample_count, recipe->total_batch);
    range->step_count = steps;
    range->chunks_per_step = (uint32_t)recipe->total_batch / range->spec.chunk_size;
    range->rank_chunks = range->chunks_per_step;
    range->micro_batch = (uint32_t)recipe->micro_batch;
    pull->batches = feed_range_batches(pull->feed, range);
    return ERR_OK;
}

static int push(struct pull *pull, int64_t epoch)
{
    if (epoch >= pull->epochs)
        return ERR_OK;
    if (pull->until_s > 0 && clock_seconds() >= pull->until_s) {
        pull->epochs = epoch;
        return ERR_OK;
    }
    pull->range.epoch = (uint32_t)epoch;
    return feed_push(pull->feed, &pull->range);
}

static int pull_epoch(struct pull *pull, int64_t epoch, struct progress *progress)
{
    struct hash128 receipt = {0, 0};
    double start = clock_seconds();
    uint64_t samples = 0;
    int code = push(pull, epoch + 1); /* fetched ahead while this one ends */
    for (uint64_t i = 0; i < pull->batches && !code; i++) {
        struct feed_batch batch;
        if ((code = feed_pop(&batch, pull->feed)))
            break;
        receipt = hash128_add(receipt, batch.receipt);
        samples += batch.samples;
        if (batch.wait_seconds > pull->longest_wait_s)
            pull->longest_wait_s = batch.wait_seconds;
        feed_release(pull->feed, &batch);
        feed_counts(&pull->counts, pull->feed);
        char detail[96];
        snprintf(detail, sizeof(detail), "%" PRIu64 " asked again, %" PRIu64 " connections lost",
                 pull->counts.reasked, pull->counts.lost);
        progress_update(progress, pull->samples + samples, detail);
    }
    if (code)
        return code;
    double seconds = clock_seconds() - start;
    char text[33];
    hash128_to_text(text, receipt);
    feed_counts(&pull->counts, pull->feed);
    printf("epoch %" PRId64 ": receipt %s, %" PRIu64 " images, %.0f images/s, %" PRIu64
           " asked again\n",
           epoch, text, samples, (double)samples / seconds, pull->counts.reasked);
    fflush(stdout);
    pull->receipts[epoch] = receipt;
    pull->done = epoch + 1;
    pull->samples += samples;
    pull->seconds += seconds;
    return ERR_OK;
}

static int pull_all(struct pull *pull)
{
    pull->receipts = calloc((size_t)pull->epochs, sizeof(*pull->receipts));
    if (!pull->receipts)
        return err_set(ERR_NOMEM, "receipts: out of memory");
    uint64_t total = pull->range.step_count * pull->range.chunks_per_step *
                     pull->range.spec.chunk_size * (uint64_t)pull->epochs;
    struct progress *progress = progress_open("pulling", total, "images");
    int code = push(pull, 0);
    for (int64_t epoch = 0; epoch < pull->epochs && !code; epoch++)
        code = pull_epoch(pull, epoch, progress);
    progress_close(progress);
    return code;
}

/* Of this process. */
static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

static void print_result(const struct pull *pull, bool json)
{
    double rate = (double)pull->samples / pull->seconds;
    const struct feed_counts *counts = &pull->counts;
    printf("%.0f images/s, %.1f MB/s, %.1f us of CPU an image, longest wait %.2f s\n", rate,
           (double)counts->bytes / pull->seconds / 1e6, cpu_seconds() / (double)pull->samples * 1e6,
           pull->longest_wait_s);
    printf("%" PRIu64 " duplicates, %" PRIu64 " asked again, %" PRIu64 " connections lost, %" PRIu64
           " audited, %" PRIu64 " substituted\n",
           counts->duplicates, counts->reasked, counts->lost, counts->audited, counts->substituted);
    if (!json)
        return;
    printf("{\"images_per_second\": %.1f, \"receipts\": [", rate);
    for (int64_t i = 0; i < pull->done; i++) {
        char text[33];
        hash128_to_text(text, pull->receipts[i]);
        printf("%s\"%s\"", i ? ", " : "", text);
    }
    printf("], \"duplicates\": %" PRIu64 ", \"reasked\": %" PRIu64 ", \"lost\": %" PRIu64
           ", \"audited\": %" PRIu64 ", \"longest_wait_seconds\": %.3f, \"cpu_us_per_image\": "
           "%.2f}\n",
           counts->duplicates, counts->reasked, counts->lost, counts->audited, pull->longest_wait_s,
           cpu_seconds() / (double)pull->samples * 1e6);
}

static int run(const struct opt_program *program, const struct values *values,
               const struct recipe *recipe)
{
    struct pull pull = {.epochs = opt_was_given(program, "epochs") ? recipe->epochs
                                  : values->seconds > 0            ? EPOCHS_MAX
                                                                   : 1};
    if (values->seconds > 0)
        pull.until_s = clock_seconds() + values->seconds;
    const struct feed_config config = {
        .loaders = values->loaders,
        .run = "bench-feed",
        .stall_limit_seconds = values->stall_limit,
        .audit_share = values->audit,
        .prefetch_bytes = (size_t)values->prefetch_mib << 20,
        .inline_pixels = !values->shared_memory,
        .secret_key = values->secret_key,
        .server_keys = values->server_keys,
    };
    int code = recipe_check(recipe, 1);
    if (!code && !values->loaders)
        code = err_set(ERR_ARG, "--loaders is missing (see --help)");
    if (!code)
        code = feed_open(&pull.feed, &config);
    if (!code)
        code = make_range(&pull, recipe);
    if (!code)
        code = pull_all(&pull);
    if (!code || (code == ERR_STOPPED && pull.done > 0))
        print_result(&pull, program->json_wanted);
    feed_close(pull.feed);
    free(pull.receipts);
    return code == ERR_STOPPED ? err_wrap(ERR_PEER, "not finished") : code;
}

int main(int argc, char **argv)
{
    struct values values;
    struct recipe recipe;
    struct opt_section sections[] = {{"Feed", OPTIONS, ARRAY_COUNT(OPTIONS), &values, true},
                                     recipe_section(&recipe)};
    struct opt_program program = {
        .name = "satchel-bench-feed",
        .usage = "--loaders ENDPOINT,...|@FILE|synthetic [--epochs N] [--recipe FILE.ini]",
        .summary = "Pulls the training stream as a trainer of one rank would; prints its rate and "
                   "the receipt of each epoch (one epoch unless --epochs or a recipe says more).",
        .sections = sections,
        .section_count = ARRAY_COUNT(sections),
        .find_recipe = recipe_find,
        .foreign_keys = recipe_foreign_keys(),
        .json = true,
    };
    log_open(program.name);
    int code = opt_parse(&program, argc, argv);
    if (!code && !program.finished) {
        stop_install(false);
        code = run(&program, &values, &recipe);
    }
    return opt_end(&program, code);
}
