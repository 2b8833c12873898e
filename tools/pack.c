/* SPDX-License-Identifier: Apache-2.0 */
/* satchel-pack: makes a store from a dataset as users have it. */
#include <cjson/cJSON.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"
#include "common/opt.h"
#include "common/stop.h"
#include "datasets/check.h"
#include "datasets/fault.h"
#include "datasets/file_system.h"
#include "datasets/meta.h"
#include "datasets/pack.h"
#include "datasets/partial.h"
#include "loader/jpeg/jpeg_index.h"
#include "tools/image_decoder.h"

enum {
    BAD_LINES = 20, /* bad files listed on the terminal; --json lists all */
    DEFAULT_QUALITY = 90,
    FILE_TEXT_BYTES = 2048,
};

struct values {
    const char *source, *out, *split, *labels, *class_names, *classes_of, *encoding;
    int64_t index, resize_short, resize_long, quality, jobs;
    bool resume, verify, skip_bad;
};

static const struct opt options[] = {
    {"source", OPT_CHOICE, offsetof(struct values, source),
     .choices = "imagenet-tar|tar|folder|list|idx|cifar|rec|webdataset", .value_name = "LAYOUT",
     .help = "how the input is laid out"},
    {"out", OPT_STRING, offsetof(struct values, out), .value_name = "FILE.lmdb",
     .help = "the store to make; must not exist"},
    {"split", OPT_STRING, offsetof(struct values, split), .value_name = "NAME",
     .help = "recorded in the store; with a folder of IDX or CIFAR files it chooses among them"},
    {"labels", OPT_STRING, offsetof(struct values, labels), .value_name = "FILE",
     .help = "classes of the files of a tar or folder: LOC_val_solution.csv, lines \"FILE CLASS\", "
             "im2rec's .lst; without it their folders are the classes"},
    {"class-names", OPT_STRING, offsetof(struct values, class_names), .value_name = "FILE",
     .help = "lines \"ID NAME\" (a synset file), or one name per line in the order of the classes; "
             "labels that are numbers count the lines of a synset file from 0"},
    {"classes-of", OPT_STRING, offsetof(struct values, classes_of), .value_name = "STORE.lmdb",
     .help =
         "the classes must be those of this store (train's, for val) and take its names; labels "
         "that are numbers are its labels"},
    {"encoding", OPT_CHOICE, offsetof(struct values, encoding), .choices = "jpeg|raw",
     .value_name = "NAME",
     .help = "jpeg keeps the files' bytes, raw stores pixels; default raw for idx and cifar, else "
             "jpeg"},
    {"index", OPT_INT, offsetof(struct values, index), .fallback = "8", .min = -1,
     .max = JPEG_INDEX_MAX_MCUS, .value_name = "MCUS",
     .help = "side index of each JPEG, with an entry every so many MCUs, so that loaders decode "
             "crops alone; 0: one entry a row of MCUs; -1: none"},
    {"resize-short", OPT_INT, offsetof(struct values, resize_short), .fallback = "0", .min = 0,
     .max = 65535, .value_name = "PX",
     .help = "encode every image anew, its shorter side shrunk to PX where it is longer"},
    {"resize-long", OPT_INT, offsetof(struct values, resize_long), .fallback = "0", .min = 0,
     .max = 65535, .value_name = "PX", .help = "the same with the longer side"},
    {"quality", OPT_INT, offsetof(struct values, quality), .fallback = "0", .min = 0, .max = 100,
     .value_name = "Q",
     .help =
         "JPEG quality of images encoded anew, 1 to 100; 0: 90 with --resize-*, otherwise files "
         "keep their bytes"},
    {"jobs", OPT_INT, offsetof(struct values, jobs), .fallback = "0", .min = 0, .max = 1024,
     .value_name = "N", .help = "threads that read and check images; 0: one per core"},
    {"resume", OPT_FLAG, offsetof(struct values, resume),
     .help = "go on where a killed or stopped run came to; without one, begin"},
    {"verify", OPT_FLAG, offsetof(struct values, verify),
     .help =
         "read the finished store once more; always done where it lies on a network file system"},
    {"skip-bad", OPT_FLAG, offsetof(struct values, skip_bad),
     .help = "leave out undecodable files and allow empty classes, instead of making nothing"},
};

/* Sources that hold pixels instead of files. */
static bool holds_pixels(const struct values *values)
{
    return strcmp(values->source, "idx") == 0 || strcmp(values->source, "cifar") == 0;
}

static int check_recode(const struct values *values)
{
    if (values->resize_short && values->resize_long)
        return err_set(ERR_ARG, "--resize-short and --resize-long exclude each other");
    if (!values->resize_short && !values->resize_long && !values->quality)
        return 0;
    if (holds_pixels(values) || (values->encoding && strcmp(values->encoding, "raw") == 0))
        return err_set(ERR_ARG, "--resize-short, --resize-long and --quality make JPEGs; raw "
                                "pixels are stored as they are");
    return 0;
}

static int check_arguments(const struct values *values)
{
    struct stat status;
    if (!values->source)
        return err_set(ERR_ARG, "--source LAYOUT is missing (see --help)");
    if (!values->out)
        return err_set(ERR_ARG, "--out FILE.lmdb is missing (see --help)");
    if (partial_is_name(values->out))
        return err_set(ERR_ARG, "%s: unfinished stores are called so: say what it will be called",
                       values->out);
    if (holds_pixels(values) && values->encoding && strcmp(values->encoding, "raw") != 0)
        return err_set(ERR_ARG, "--encoding jpeg: --source %s holds pixels, which are stored raw",
                       values->source);
    if (values->labels && strcmp(values->source, "tar") != 0 &&
        strcmp(values->source, "folder") != 0)
        return err_set(ERR_ARG, "--labels goes with --source tar and folder; %s has its own",
                       values->source);
    if (!values->resume && lstat(values->out, &status) == 0)
        return err_set(ERR_ARG, "%s: exists already; remove it or choose another name",
                       values->out);
    return check_recode(values);
}

/* What --classes-of and --class-names say about the classes. */
struct class_list {
    struct store *store; /* owns the ids when there is one */
    char **wnids;
    size_t wnid_count;
};

static void class_list_release(struct class_list *list)
{
    store_close(list->store);
    class_names_free(list->wnids, list->wnid_count);
}

static int find_classes(struct class_list *list, struct source_request *request,
                        const struct values *values)
{
    int code = 0;
    if (values->class_names)
        code = class_names_count_lines(&request->least_classes, values->class_names);
    if (!code && values->classes_of) {
        code = store_open(&list->store, values->classes_of);
        request->class_ids = code ? NULL : store_meta(list->store)->class_ids;
        request->class_count = code ? 0 : store_meta(list->store)->class_count;
        request->only_these = true;
    } else if (!code && values->class_names) {
        code = class_names_wnids(&list->wnids, &list->wnid_count, values->class_names);
        request->class_ids = (const char *const *)list->wnids;
        request->class_count = list->wnid_count;
    }
    return code;
}

static bool are_numbers(const struct source_list *list)
{
    bool numbers = true;
    for (size_t i = 0; numbers && i < list->class_count; i++)
        numbers = list->class_ids[i][strspn(list->class_ids[i], "0123456789")] == '\0';
    return numbers;
}

static int open_source(struct source **source, const struct values *values,
                       const struct opt_program *program)
{
    struct source_request request = {
        .inputs = program->positional,
        .input_count = (size_t)program->positional_count,
        .split = values->split,
        .labels = values->labels,
        .out = values->out,
        .allow_empty = values->skip_bad || holds_pixels(values),
    };
    struct class_list classes = {0};
    int code = find_classes(&classes, &request, values);
    if (!code)
        code = source_open(source, values->source, &request);
    if (!code && !holds_pixels(values) && are_numbers(&(*source)->list))
        log_warn("labels are numbers, so class ids are; a store made by ids (n01440764) will not "
                 "match this one: say --class-names SYNSETS or --classes-of STORE");
    class_list_release(&classes);
    return code;
}

/* Drops the store's pages from the cache, so that reading it again reads the disk. */
static void forget_pages(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
}

static int verify(const char *path, int jobs)
{
    struct store *store = NULL;
    struct check_result checked = {0};
    forget_pages(path);
    int code = store_open(&store, path);
    if (!code)
        code = check_run(&checked, store, NULL, jobs);
    if (!code && checked.damaged_count)
        code = err_set(ERR_DATA, "%zu records read back damaged, the first: %s",
                       checked.damaged_count, checked.damaged[0].reason);
    check_result_release(&checked);
    store_close(store);
    return code;
}

static bool must_verify(const struct values *values)
{
    const char *network = file_system_network(values->out);
    if (network && !values->verify)
        log_info("%s lies on %s: the store is read back from there", values->out, network);
    return network || values->verify;
}

static void report_bad(const struct pack_result *result)
{
    for (size_t i = 0; i < result->bad_count && i < BAD_LINES; i++)
        log_warn("%s: %s", result->bad[i].file, result->bad[i].reason);
    if (result->bad_count > BAD_LINES)
        log_warn("... and %zu more bad files (--json lists all)", result->bad_count - BAD_LINES);
}

/* JSON is UTF-8; names of files may be anything. Each byte of one that is not becomes '?'. */
static void to_utf8(char *dst, size_t bytes, const char *name)
{
    bool clean = meta_text_is_clean(name);
    size_t used = 0;
    for (; *name && used + 1 < bytes; name++)
        dst[used++] = clean || (*name > 0x1f && *name < 0x7f) ? *name : '?';
    dst[used] = '\0';
}

static int print_json(const struct pack_result *result, bool published)
{
    char fingerprint[33];
    cJSON *root = cJSON_CreateObject();
    hash128_to_text(fingerprint, result->fingerprint);
    cJSON_AddNumberToObject(root, "samples", published ? result->samples : 0);
    cJSON_AddNumberToObject(root, "classes", result->classes);
    if (published)
        cJSON_AddStringToObject(root, "fingerprint", fingerprint);
    else
        cJSON_AddNullToObject(root, "fingerprint");
    cJSON_AddNumberToObject(root, "bytes", (double)result->bytes);
    cJSON_AddNumberToObject(root, "indexed", (double)result->indexed);
    cJSON *list = cJSON_AddArrayToObject(root, "bad");
    for (size_t i = 0; i < result->bad_count; i++) {
        cJSON *bad = cJSON_CreateObject();
        char file[FILE_TEXT_BYTES];
        to_utf8(file, sizeof file, result->bad[i].file);
        cJSON_AddStringToObject(bad, "file", file);
        cJSON_AddStringToObject(bad, "reason", result->bad[i].reason);
        cJSON_AddItemToArray(list, bad);
    }
    char *text = cJSON_PrintUnformatted(root);
    cJSON_Delete(root);
    if (!text)
        return err_set(ERR_NOMEM, "out of memory");
    puts(text);
    free(text);
    return 0;
}

static void print_text(const char *out, const struct pack_result *result)
{
    char fingerprint[33];
    hash128_to_text(fingerprint, result->fingerprint);
    printf("%s: %" PRIu32 " samples of %" PRIu32 " classes, %.1f MB (images %.1f MB)\n", out,
           result->samples, result->classes, (double)result->bytes / 1e6,
           (double)result->image_bytes / 1e6);
    if (result->indexed)
        printf("%" PRIu64 " with a side index\n", result->indexed);
    printf("fingerprint %s\n", fingerprint);
    if (result->bad_count)
        printf("%zu bad files left out\n", result->bad_count);
}

/* The options as one line, for people who ask a store where it comes from. */
static void describe(char *dst, size_t bytes, const struct values *values, const char *encoding,
                     const struct pack_recode *recode)
{
    char resized[64] = "", quality[32] = "";
    if (recode->short_px || recode->long_px)
        snprintf(resized, sizeof resized, " --resize-%s %u", recode->long_px ? "long" : "short",
                 recode->long_px ? recode->long_px : recode->short_px);
    if (recode->quality)
        snprintf(quality, sizeof quality, " --quality %d", recode->quality);
    snprintf(dst, bytes, "satchel-pack %s --source %s --encoding %s --index %lld%s%s%s",
             SATCHEL_VERSION, values->source, encoding, (long long)values->index, resized, quality,
             values->skip_bad ? " --skip-bad" : "");
}

/* One line, also where a single file is to blame. */
static int blame(const struct pack_result *result, int code)
{
    if (code == ERR_DATA && result->bad_count == 1)
        return err_set(code, "%s: %s; nothing is published; --skip-bad leaves such files out",
                       result->bad[0].file, result->bad[0].reason);
    if (result->bad_count)
        report_bad(result);
    return code;
}

/* Names of the classes from the store of --classes-of, whose classes the source has. [classes] */
static int copy_names(char **names, const char *path, const struct source_list *list)
{
    struct store *store;
    int code = store_open(&store, path);
    if (code)
        return code;
    const struct store_meta *meta = store_meta(store);
    for (size_t i = 0; i < list->class_count && !code; i++) {
        bool same = i < meta->class_count && strcmp(list->class_ids[i], meta->class_ids[i]) == 0;
        names[i] = strdup(same ? meta->class_names[i] : "");
        code = names[i] ? 0 : err_set(ERR_NOMEM, "out of memory for class names");
    }
    store_close(store);
    return code;
}

/* NULL: nobody knows them. Freed by class_names_free. */
static int find_names(char ***names, const struct values *values, const struct source_list *list)
{
    *names = NULL;
    if (values->class_names)
        return class_names_read(names, values->class_names, list->class_ids, list->class_count);
    if (!values->classes_of)
        return 0;
    *names = calloc(list->class_count, sizeof **names);
    int code = *names ? copy_names(*names, values->classes_of, list)
                      : err_set(ERR_NOMEM, "out of memory for class names");
    if (code) {
        class_names_free(*names, list->class_count);
        *names = NULL;
    }
    return code;
}

static int pack(const struct values *values, const struct source *source, bool json)
{
    struct pack_result result;
    char **names = NULL, packed_by[256];
    const char *encoding = values->encoding ? values->encoding : source->channels ? "raw" : "jpeg";
    struct pack_recode recode = {(uint32_t)values->resize_short, (uint32_t)values->resize_long,
                                 (int)values->quality};
    if ((recode.short_px || recode.long_px) && !recode.quality)
        recode.quality = DEFAULT_QUALITY;
    describe(packed_by, sizeof packed_by, values, encoding, &recode);
    size_t classes = source->list.class_count;
    int code = find_names(&names, values, &source->list);
    if (code)
        return code;
    const struct pack_options pack_options = {
        .out = values->out,
        .split = values->split,
        .class_names = (const char *const *)names,
        .packed_by = packed_by,
        .encoding = encoding[0] == 'r' ? STORE_RAW : STORE_JPEG,
        .jobs = values->jobs ? (int)values->jobs : image_decoder_jobs(),
        .skip_bad = values->skip_bad,
        .resume = values->resume,
        .index_mcus = values->index,
        .recode = recode,
        .decoder = &image_decoder,
    };
    code = pack_run(&result, source, &pack_options);
    bool published = code == 0;
    if (published)
        report_bad(&result);
    else
        code = blame(&result, code);
    if (published && must_verify(values))
        code = verify(values->out, pack_options.jobs);
    if (published)
        print_text(values->out, &result);
    if (json && (published || result.bad_count)) {
        int printed = print_json(&result, published);
        code = code ? code : printed;
    }
    pack_result_release(&result);
    class_names_free(names, classes);
    return code;
}

int main(int argc, char **argv)
{
    struct values values = {0};
    struct opt_section sections[] = {{"Packing", options, ARRAY_COUNT(options), &values, false}};
    struct opt_program program = {
        .name = "satchel-pack",
        .usage = "--source LAYOUT INPUT... --out FILE.lmdb [OPTIONS]",
        .summary =
            "Packs a dataset into a store, one file that loaders read. INPUT is a folder of "
            "class folders (folder), ImageNet's tar of tars (imagenet-tar), tars of images "
            "(tar), a file that lists images and classes, and where they are (list), MNIST's "
            "or CIFAR's files or the folder they are in (idx, cifar), im2rec's .rec (rec) or "
            "shards (webdataset). docs/packing.md has examples.",
        .sections = sections,
        .section_count = ARRAY_COUNT(sections),
        .min_positional = 1,
        .max_positional = -1,
        .json = true,
    };
    struct source *source = NULL;
    log_open(program.name);
    stop_install(false);
    fault_install();
    int code = opt_parse(&program, argc, argv);
    if (!code && !program.finished) {
        code = check_arguments(&values);
        if (!code)
            code = open_source(&source, &values, &program);
        if (!code)
            code = pack(&values, source, program.json_wanted);
    }
    int status = opt_end(&program, code); /* first: closing may fail as well */
    source_close(source);
    return status;
}
