/* SPDX-License-Identifier: Apache-2.0 */
/* satchel-loader: serves the chunks of its stores to trainers. */
#include <stddef.h>
#include <sys/resource.h>

#include "common/err.h"
#include "common/log.h"
#include "common/opt.h"
#include "common/stop.h"
#include "datasets/fault.h"
#include "loader/isolate.h"
#include "loader/server.h"

enum { DESCRIPTORS_WANTED = 16384 };

struct values {
    struct opt_list data;
    const char *bind;
    int64_t workers, io_threads, credits, buffer_mib, page_cache_mib;
    const char *secret_key, *allow;
    bool insecure, strict, read_ahead, shared_memory;
    const char *metrics_file, *ready_file, *decoder;
};

static const struct opt OPTIONS[] = {
    {"data", OPT_LIST, offsetof(struct values, data), .value_name = "NAME=FILE.lmdb",
     .help = "stores to serve, by the names that trainers ask for (train, val)"},
    {"bind", OPT_STRING, offsetof(struct values, bind), .value_name = "ENDPOINT",
     .help = "where to listen: tcp://HOST:PORT (PORT * for any free one) or ipc://PATH"},
    {"workers", OPT_INT, offsetof(struct values, workers), .fallback = "0", .min = 0, .max = 4096,
     .value_name = "N", .help = "threads that decode; 0: one per core"},
    {"io-threads", OPT_INT, offsetof(struct values, io_threads), .fallback = "1", .min = 1,
     .max = 64, .value_name = "N", .help = "threads that send"},
    {"credits", OPT_INT, offsetof(struct values, credits), .fallback = "0", .min = 0, .max = 1024,
     .value_name = "N",
     .help = "chunks that a trainer may have outstanding; 0: two per worker and eight more"},
    {"buffer-mib", OPT_INT, offsetof(struct values, buffer_mib), .fallback = "1024", .min = 40,
     .max = 1 << 20, .value_name = "MIB",
     .help = "memory for chunks being made or sent, over all trainers"},
    {"secret-key", OPT_STRING, offsetof(struct values, secret_key), .value_name = "FILE",
     .help = "this loader's key (satchel-keygen); goes with --allow"},
    {"allow", OPT_STRING, offsetof(struct values, allow), .value_name = "DIR",
     .help = "public keys (*.pub) of the trainers that may connect; SIGHUP reads them again"},
    {"insecure", OPT_FLAG, offsetof(struct values, insecure),
     .help = "listen in plain text where other machines can connect"},
    {"metrics-file", OPT_STRING, offsetof(struct values, metrics_file), .value_name = "FILE",
     .help = "Prometheus text file, replaced every few seconds"},
    {"ready-file", OPT_STRING, offsetof(struct values, ready_file), .value_name = "FILE",
     .help = "written with the endpoint once it is listening"},
    {"decoder", OPT_CHOICE, offsetof(struct values, decoder), .fallback = "auto",
     .choices = "auto|reference|indexed", .help = "which JPEG decoder; the pixels are the same"},
    {"strict", OPT_FLAG, offsetof(struct values, strict),
     .help = "refuse a chunk with a damaged record instead of substituting it"},
    {"read-ahead", OPT_FLAG, offsetof(struct values, read_ahead), .fallback = "true",
     .help = "begin to read the records of each request when it comes in, while other chunks are "
             "made; on unless =false"},
    {"page-cache-mib", OPT_INT, offsetof(struct values, page_cache_mib), .fallback = "-1",
     .min = -1, .max = 1 << 30, .value_name = "MIB",
     .help = "of stores larger than this, what is beyond it is read past the page cache; -1: no "
             "limit when they fit into the memory there is, otherwise half of it"},
    {"shared-memory", OPT_FLAG, offsetof(struct values, shared_memory), .fallback = "true",
     .help = "on ipc://, trainers of the same user take pixels from this program's memory instead "
             "of the socket; on unless =false"},
};

static int check(const struct values *values)
{
    if (values->data.count == 0)
        return err_set(ERR_ARG, "--data NAME=FILE.lmdb is missing (see --help)");
    if (!values->bind)
        return err_set(ERR_ARG, "--bind ENDPOINT is missing (see --help)");
    return ERR_OK;
}

/* Every connection takes a descriptor, a stranger's too. At the limit ZeroMQ cannot accept, and its
 * I/O thread does nothing but try. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_max < DESCRIPTORS_WANTED)
        log_warn("at most %llu connections are possible: strangers could use them up; raise the "
                 "hard limit of open files (ulimit -Hn, LimitNOFILE=)",
                 (unsigned long long)limit.rlim_max);
}

/* *server: to be closed, whatever came of it; NULL when it was not opened. */
static int run(struct server **server, const struct values *values)
{
    const struct server_config config = {
        .data = values->data.items,
        .data_count = values->data.count,
        .bind = values->bind,
        .workers = (int)values->workers,
        .io_threads = (int)values->io_threads,
        .credits = (int)values->credits,
        .buffer_bytes = (size_t)values->buffer_mib << 20,
        .metrics_file = values->metrics_file,
        .ready_file = values->ready_file,
        .secret_key = values->secret_key,
        .allow = values->allow,
        .strict = values->strict,
        .read_ahead = values->read_ahead,
        .page_cache_mib = values->page_cache_mib,
        .insecure = values->insecure,
        .shared_memory = values->shared_memory,
        .decoder = builder_decoder_of(values->decoder),
    };
    int code = server_open(server, &config);
    if (!code)
        code = server_run(*server);
    stop_request(); /* after an error too: no worker goes on looking for a good record */
    return code;
}

int main(int argc, char **argv)
{
    struct values values;
    struct opt_section sections[] = {{"Loader", OPTIONS, ARRAY_COUNT(OPTIONS), &values, false}};
    struct opt_program program = {
        .name = "satchel-loader",
        .usage = "--data NAME=FILE.lmdb... --bind ENDPOINT [OPTIONS]",
        .summary = "Serves augmented training batches from record stores to satchel-trainer.",
        .sections = sections,
        .section_count = ARRAY_COUNT(sections),
    };
    struct server *server = NULL;
    log_open(program.name);
    if (isolate_is_helper(argc, argv))
        return isolate_help(argv[2]);
    int code = opt_parse(&program, argc, argv);
    if (!code && !program.finished && !(code = check(&values))) {
        stop_install(false);
        fault_install();
        raise_descriptor_limit();
        code = run(&server, &values);
    }
    int status = opt_end(&program, code); /* first: closing may fail as well */
    server_close(server);
    return status;
}
