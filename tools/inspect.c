/* SPDX-License-Identifier: Apache-2.0 */
/* satchel-inspect: what a store holds, whether it is sound, and single images out of it. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/err.h"
#include "common/file.h"
#include "common/log.h"
#include "common/opt.h"
#include "common/stop.h"
#include "datasets/check.h"
#include "datasets/fault.h"
#include "datasets/store.h"
#include "loader/isolate.h"
#include "loader/jpeg/jpeg_header.h"
#include "proto/recipe.h"
#include "tools/image_decoder.h"
#include "tools/replay.h"

enum {
    SAMPLE_RECORDS = 2000, /* looked at for the sizes: a large store is not read as a whole */
    CLASS_LINES = 10,
    DAMAGE_LINES = 20,
    TEXT_BYTES = 1024, /* shown of a name */
};

struct values {
    bool check, isolate;
    int64_t extract, jobs;
    const char *out, *replay, *split;
};

static const struct opt options[] = {
    {"check", OPT_FLAG, offsetof(struct values, check),
     .help = "read and decode every record; status 1 when any is damaged"},
    {"extract", OPT_INT, offsetof(struct values, extract), .fallback = "-1", .min = -1,
     .max = UINT32_MAX - 1.0, .value_name = "ID",
     .help = "write the image's bytes, as they were packed, to standard output"},
    {"out", OPT_STRING, offsetof(struct values, out), .value_name = "FILE",
     .help = "where --extract writes instead"},
    {"jobs", OPT_INT, offsetof(struct values, jobs), .fallback = "0", .min = 0, .max = 1024,
     .value_name = "N", .help = "threads for --check and --replay; 0: one per core"},
    {"replay", OPT_STRING, offsetof(struct values, replay), .value_name = "EPOCH[:CHUNK]",
     .help = "make an epoch's chunks, or one, as --recipe says, and print the receipt that a run "
             "has to have; both count from 0"},
    {"split", OPT_CHOICE, offsetof(struct values, split), .fallback = "train",
     .choices = "train|val", .help = "--replay: the training stream or the evaluation's"},
    {"isolate", OPT_FLAG, offsetof(struct values, isolate),
     .help = "--replay: decode each sample in a process of its own, as a trainer asks for where a "
             "record ends the loaders"},
};

static int stdout_error(void)
{
    return err_set(ERR_IO, "standard output: %s", strerror(errno));
}

static int extract(const struct store *store, const struct values *values)
{
    struct store_record record;
    int code = file_check_output(values->out, store_path(store), "the store");
    if (!code)
        code = store_read(&record, store, (uint32_t)values->extract);
    if (code)
        return code;
    if (values->out)
        return file_write_atomic(values->out, record.image, record.image_bytes);
    if (fwrite(record.image, 1, record.image_bytes, stdout) != record.image_bytes ||
        fflush(stdout) != 0)
        return stdout_error();
    return 0;
}

/* Sizes of some records, evenly spread over the ids. */
struct sizes {
    uint32_t count;
    uint64_t *image_bytes;             /* [count], sorted */
    uint32_t *width_px;                /* [count], sorted */
    uint32_t *height_px;               /* [count], sorted */
    uint32_t unindexed[JPEG_REFUSALS]; /* by the reason why they go without a side index */
};

static int compare64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static int compare32(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void sizes_release(struct sizes *sizes)
{
    free(sizes->image_bytes);
    free(sizes->width_px);
    free(sizes->height_px);
}

/* JPEG_TAKEN: nothing in its header. */
static enum jpeg_refusal why_unindexed(const struct store_record *record)
{
    struct jpeg_header header;
    return jpeg_header_parse(&header, record->image, record->image_bytes);
}

/* Damaged records are left out: --check is there to name them. */
static int sizes_of(struct sizes *sizes, const struct store *store)
{
    uint32_t total = store_meta(store)->sample_count;
    uint32_t wanted = total < SAMPLE_RECORDS ? total : SAMPLE_RECORDS;
    *sizes = (struct sizes){.image_bytes = calloc(wanted, sizeof(uint64_t)),
                            .width_px = calloc(wanted, sizeof(uint32_t)),
                            .height_px = calloc(wanted, sizeof(uint32_t))};
    if (!sizes->image_bytes || !sizes->width_px || !sizes->height_px)
        return err_set(ERR_NOMEM, "out of memory");
    for (uint32_t i = 0; i < wanted; i++) {
        struct store_record record;
        if (store_read(&record, store, (uint32_t)((uint64_t)i * total / wanted)) != 0)
            continue;
        if (record.encoding == STORE_JPEG && !record.index)
            sizes->unindexed[why_unindexed(&record)]++;
        sizes->image_bytes[sizes->count] = record.image_bytes;
        sizes->width_px[sizes->count] = record.width;
        sizes->height_px[sizes->count++] = record.height;
    }
    qsort(sizes->image_bytes, sizes->count, sizeof(uint64_t), compare64);
    qsort(sizes->width_px, sizes->count, sizeof(uint32_t), compare32);
    qsort(sizes->height_px, sizes->count, sizeof(uint32_t), compare32);
    return 0;
}

/* Fewest and most samples that a class has. */
static void class_range(const struct store_meta *meta, uint32_t *least, uint32_t *most)
{
    *least = *most = meta->class_samples[0];
    for (uint32_t i = 1; i < meta->class_count; i++) {
        if (meta->class_samples[i] < *least)
            *least = meta->class_samples[i];
        if (meta->class_samples[i] > *most)
            *most = meta->class_samples[i];
    }
}

static uint64_t file_bytes(const struct store *store)
{
    struct stat status;
    return stat(store_path(store), &status) == 0 ? (uint64_t)status.st_size : 0;
}

static const char *encoding_name(const struct store_meta *meta)
{
    return meta->encoding == STORE_RAW ? "raw" : "jpeg";
}

static void print_sizes(const struct sizes *sizes, const struct store_meta *meta)
{
    if (sizes->count == 0)
        return;
    uint32_t last = sizes->count - 1, middle = last / 2;
    printf("image bytes  %" PRIu64 " to %" PRIu64 ", median %" PRIu64, sizes->image_bytes[0],
           sizes->image_bytes[last], sizes->image_bytes[middle]);
    if (sizes->count < meta->sample_count)
        printf(" (of %" PRIu32 " looked at)", sizes->count);
    printf("\nwidth px     %" PRIu32 " to %" PRIu32 ", median %" PRIu32 "\n", sizes->width_px[0],
           sizes->width_px[last], sizes->width_px[middle]);
    printf("height px    %" PRIu32 " to %" PRIu32 ", median %" PRIu32 "\n", sizes->height_px[0],
           sizes->height_px[last], sizes->height_px[middle]);
}

/* How many records have an index, and why the others have none. */
static void print_indexes(const struct sizes *sizes, const struct store_meta *meta)
{
    printf("side indexes %" PRIu64 "\n", meta->indexed);
    if (meta->indexed == 0)
        return;
    for (int reason = 0; reason < JPEG_REFUSALS; reason++) {
        if (sizes->unindexed[reason] > 0)
            printf("  without one: %" PRIu32 " of %" PRIu32 " looked at (%s)\n",
                   sizes->unindexed[reason], sizes->count,
                   reason == JPEG_TAKEN ? "irregular entropy-coded data"
                                        : jpeg_refusal_text((enum jpeg_refusal)reason));
    }
}

/* A terminal must not act on what a store says. */
static const char *clean(char dst[TEXT_BYTES], const char *text)
{
    log_escape(dst, TEXT_BYTES, text);
    return dst;
}

static void print_classes(const struct store_meta *meta)
{
    uint32_t least, most;
    char id[TEXT_BYTES], name[TEXT_BYTES];
    class_range(meta, &least, &most);
    printf("classes      %" PRIu32 ", %" PRIu32 " to %" PRIu32 " samples each\n", meta->class_count,
           least, most);
    uint32_t lines = meta->class_count <= CLASS_LINES ? meta->class_count : CLASS_LINES;
    for (uint32_t i = 0; i < lines; i++)
        printf("  %-5" PRIu32 " %s%s%s  %" PRIu32 "\n", i, clean(id, meta->class_ids[i]),
               *meta->class_names[i] ? " " : "", clean(name, meta->class_names[i]),
               meta->class_samples[i]);
    if (lines < meta->class_count)
        printf("  ... and %" PRIu32 " more\n", meta->class_count - lines);
}

static int print_text(const struct store *store, const struct sizes *sizes,
                      const struct check_result *checked, bool check)
{
    const struct store_meta *meta = store_meta(store);
    char fingerprint[33], text[TEXT_BYTES];
    hash128_to_text(fingerprint, meta->fingerprint);
    printf("%s\n", store_path(store));
    printf("samples      %" PRIu32 "\n", meta->sample_count);
    printf("encoding     %s, %" PRIu32 " channels\n", encoding_name(meta), meta->channels);
    printf("split        %s\n", *meta->split ? clean(text, meta->split) : "(not named)");
    printf("fingerprint  %s\n", fingerprint);
    printf("file bytes   %" PRIu64 "\n", file_bytes(store));
    print_indexes(sizes, meta);
    printf("packed by    %s\n", *meta->packed_by ? clean(text, meta->packed_by) : "(not recorded)");
    print_sizes(sizes, meta);
    print_classes(meta);
    for (size_t i = 0; i < checked->damaged_count && i < DAMAGE_LINES; i++)
        printf("damaged: %" PRIu32 ": %s\n", checked->damaged[i].id,
               clean(text, checked->damaged[i].reason));
    if (checked->damaged_count > DAMAGE_LINES)
        printf("... and %zu more damaged records\n", checked->damaged_count - DAMAGE_LINES);
    if (check && checked->damaged_count == 0)
        printf("checked      all %" PRIu32 " records are sound\n", meta->sample_count);
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : stdout_error();
}

static void add_range(cJSON *root, const char *name, double least, double median, double most)
{
    cJSON *range = cJSON_AddObjectToObject(root, name);
    cJSON_AddNumberToObject(range, "min", least);
    cJSON_AddNumberToObject(range, "median", median);
    cJSON_AddNumberToObject(range, "max", most);
}

static void add_sizes(cJSON *root, const struct sizes *sizes)
{
    if (sizes->count == 0)
        return;
    uint32_t last = sizes->count - 1, middle = last / 2;
    add_range(root, "image_bytes", (double)sizes->image_bytes[0],
              (double)sizes->image_bytes[middle], (double)sizes->image_bytes[last]);
    add_range(root, "width_px", sizes->width_px[0], sizes->width_px[middle], sizes->width_px[last]);
    add_range(root, "height_px", sizes->height_px[0], sizes->height_px[middle],
              sizes->height_px[last]);
}

static int print_json(const struct store *store, const struct sizes *sizes,
                      const struct check_result *checked, bool check)
{
    const struct store_meta *meta = store_meta(store);
    uint32_t least, most;
    char fingerprint[33];
    cJSON *root = cJSON_CreateObject();
    class_range(meta, &least, &most);
    hash128_to_text(fingerprint, meta->fingerprint);
    cJSON_AddNumberToObject(root, "samples", meta->sample_count);
    cJSON_AddNumberToObject(root, "classes", meta->class_count);
    cJSON_AddStringToObject(root, "fingerprint", fingerprint);
    cJSON_AddNumberToObject(root, "bytes", (double)file_bytes(store));
    cJSON_AddNumberToObject(root, "indexed", (double)meta->indexed);
    cJSON_AddArrayToObject(root, "bad");
    cJSON_AddStringToObject(root, "split", meta->split);
    cJSON_AddStringToObject(root, "encoding", encoding_name(meta));
    cJSON_AddNumberToObject(root, "channels", meta->channels);
    cJSON_AddStringToObject(root, "packed_by", meta->packed_by);
    cJSON_AddNumberToObject(root, "class_samples_min", least);
    cJSON_AddNumberToObject(root, "class_samples_max", most);
    add_sizes(root, sizes);
    cJSON *ids = cJSON_AddArrayToObject(root, "class_ids");
    cJSON *names = cJSON_AddArrayToObject(root, "class_names");
    for (uint32_t i = 0; i < meta->class_count; i++) {
        cJSON_AddItemToArray(ids, cJSON_CreateString(meta->class_ids[i]));
        cJSON_AddItemToArray(names, cJSON_CreateString(meta->class_names[i]));
    }
    if (check) {
        cJSON *damaged = cJSON_AddArrayToObject(root, "damaged");
        for (size_t i = 0; i < checked->damaged_count; i++)
            cJSON_AddItemToArray(damaged, cJSON_CreateNumber(checked->damaged[i].id));
    }
    char *text = cJSON_PrintUnformatted(root);
    cJSON_Delete(root);
    if (!text)
        return err_set(ERR_NOMEM, "out of memory");
    bool printed = puts(text) >= 0 && fflush(stdout) == 0;
    free(text);
    return printed ? 0 : stdout_error();
}

static int report(const struct store *store, const struct values *values, bool json)
{
    struct sizes sizes = {0};
    struct check_result checked = {0};
    int code = sizes_of(&sizes, store);
    if (!code && values->check)
        code = check_run(&checked, store, &image_decoder,
                         values->jobs ? (int)values->jobs : image_decoder_jobs());
    if (!code)
        code = print_text(store, &sizes, &checked, values->check);
    if (!code && json)
        code = print_json(store, &sizes, &checked, values->check);
    if (!code && checked.damaged_count)
        code = err_set(ERR_DATA, "%s: %zu of %" PRIu32 " records are damaged; pack it again",
                       store_path(store), checked.damaged_count, store_meta(store)->sample_count);
    sizes_release(&sizes);
    check_result_release(&checked);
    return code;
}

static int check_arguments(const struct values *values, bool json)
{
    if (values->out && values->extract < 0)
        return err_set(ERR_ARG, "--out belongs to --extract ID (see --help)");
    if (values->check && values->extract >= 0)
        return err_set(ERR_ARG, "--check and --extract do not go together (see --help)");
    if (values->replay && (values->check || values->extract >= 0))
        return err_set(ERR_ARG, "--replay goes with neither --check nor --extract (see --help)");
    if (values->isolate && !values->replay)
        return err_set(ERR_ARG, "--isolate belongs to --replay EPOCH[:CHUNK] (see --help)");
    if (json && values->extract >= 0)
        return err_set(ERR_ARG, "--extract has no result to tell by --json (see --help)");
    return 0;
}

static int replay(const struct store *store, const struct values *values,
                  const struct recipe *recipe, bool json)
{
    struct replay replay = {.what = values->replay,
                            .val = strcmp(values->split, "val") == 0,
                            .isolate = values->isolate,
                            .jobs = (int)values->jobs};
    int code = replay_run(&replay, store, recipe);
    if (code)
        return code;
    char receipt[33], spec[33], which[48] = "";
    hash128_to_text(receipt, replay.receipt);
    hash128_to_text(spec, spec_hash(&replay.spec));
    bool one = strchr(replay.what, ':') != NULL;
    if (one)
        snprintf(which, sizeof(which), ", chunk %" PRIu64, replay.first);
    printf("epoch %" PRIu32 "%s: receipt %s, spec %s, %" PRIu64 " chunks, %" PRIu64
           " samples substituted, %" PRIu64 " masked\n",
           replay.epoch, which, receipt, spec, replay.count, replay.substituted, replay.masked);
    if (json)
        printf("{\"epoch\": %" PRIu32 ", \"first_chunk\": %" PRIu64 ", \"chunks\": %" PRIu64
               ", \"receipt\": \"%s\", \"spec\": \"%s\", \"substituted\": %" PRIu64
               ", \"masked\": %" PRIu64 "}\n",
               replay.epoch, replay.first, replay.count, receipt, spec, replay.substituted,
               replay.masked);
    return fflush(stdout) == 0 ? 0 : stdout_error();
}

int main(int argc, char **argv)
{
    struct values values = {0};
    struct recipe recipe;
    struct opt_section sections[] = {{"Inspecting", options, ARRAY_COUNT(options), &values, false},
                                     recipe_section(&recipe)};
    struct opt_program program = {
        .name = "satchel-inspect",
        .usage = "FILE.lmdb [OPTIONS]",
        .summary = "Tells what a store holds and whether it is sound; recomputes what was trained "
                   "on (--replay, with the recipe.ini of the run).",
        .sections = sections,
        .section_count = ARRAY_COUNT(sections),
        .min_positional = 1,
        .max_positional = 1,
        .find_recipe = recipe_find,
        .foreign_keys = recipe_foreign_keys(),
        .json = true,
    };
    struct store *store = NULL;
    log_open(program.name);
    if (isolate_is_helper(argc, argv))
        return isolate_help(argv[2]);
    stop_install(false);
    fault_install();
    int code = opt_parse(&program, argc, argv);
    if (!code && !program.finished) {
        code = check_arguments(&values, program.json_wanted);
        if (!code)
            code = store_open(&store, program.positional[0]);
        if (!code)
            code = values.extract >= 0 ? extract(store, &values)
                   : values.replay     ? replay(store, &values, &recipe, program.json_wanted)
                                       : report(store, &values, program.json_wanted);
    }
    int status = opt_end(&program, code); /* first: closing may fail as well */
    store_close(store);
    return status;
}
