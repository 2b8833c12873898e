/* SPDX-License-Identifier: Apache-2.0 */
/* The packing pipeline: workers claim samples in order and put them, read and checked, into a ring;
 * the writer takes them out in order. */
#include "datasets/pack.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "common/err.h"
#include "common/log.h"
#include "common/progress.h"
#include "common/stop.h"
#include "datasets/meta.h"
#include "datasets/record.h"

enum {
    PLACES_PER_JOB = 8,
    KEEP_BYTES = 1 << 20,     /* larger buffers are freed after use */
    FLIGHT_BYTES = 512 << 20, /* of all samples in the ring, unless a single one is larger */
    WAIT_MS = 100,            /* between looks at the stop flag */
    DESCRIPTION_BYTES = 1024,
};

struct place {
    bool ready; /* lock */
    int code;   /* of read and check */
    char *reason;
    struct source_buffer buffer;
    uint8_t *made; /* malloc'ed, when files are decoded or recoded */
    size_t made_bytes;
    uint8_t *index; /* malloc'ed, NULL: none */
    size_t index_bytes;
    uint32_t width, height;
};

struct pack {
    const struct source *source;
    const struct pack_options *options;
    struct store_writer *writer; /* NULL once there is nothing to publish */
    struct place *places;        /* [place_count] */
    size_t place_count;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    size_t claimed, written; /* lock: samples taken by workers, finished by the writer */
    uint64_t flight_bytes;   /* lock */
    bool cancelled;          /* lock */
    pthread_t *threads;
    int thread_count;
};

static bool may_claim(const struct pack *pack)
{
    if (pack->claimed - pack->written == pack->place_count)
        return false;
    return pack->claimed == pack->written ||
           pack->flight_bytes + pack->source->list.entries[pack->claimed].bytes <= FLIGHT_BYTES;
}

/* False: nothing is left to do. */
static bool claim(struct pack *pack, size_t *i)
{
    size_t count = pack->source->list.count;
    pthread_mutex_lock(&pack->lock);
    while (!pack->cancelled && pack->claimed < count && !may_claim(pack))
        pthread_cond_wait(&pack->changed, &pack->lock);
    bool got = !pack->cancelled && pack->claimed < count;
    if (got) {
        *i = pack->claimed++;
        pack->flight_bytes += pack->source->list.entries[*i].bytes;
    }
    pthread_mutex_unlock(&pack->lock);
    return got;
}

/* The worker's index is overwritten by its next image: this one's own copy. */
static int keep_index(struct place *place, const uint8_t *index, size_t bytes)
{
    place->index = malloc(bytes);
    if (!place->index)
        return err_set(ERR_NOMEM, "out of memory for a side index");
    memcpy(place->index, index, bytes);
    place->index_bytes = bytes;
    return 0;
}

static int index_or_check(const struct pack *pack, struct place *place, void *decoder,
                          const uint8_t *file, size_t bytes)
{
    const struct image_decoder *ops = pack->options->decoder;
    if (pack->options->index_mcus >= 0) {
        const uint8_t *index = NULL;
        size_t index_bytes = 0;
        int code = ops->index(decoder, &index, &index_bytes, &place->width, &place->height, file,
                              bytes, (uint32_t)pack->options->index_mcus);
        if (code || index)
            return code ? code : keep_index(place, index, index_bytes);
    }
    return ops->check(decoder, &place->width, &place->height, file, bytes);
}

static int prepare(const struct pack *pack, struct place *place, size_t i, void *decoder)
{
    const struct image_decoder *ops = pack->options->decoder;
    int code = source_read(pack->source, i, &place->buffer);
    if (code)
        return code;
    if (place->buffer.bytes == 0)
        return err_set(ERR_DATA, "empty file");
    if (!meta_text_is_clean(source_name(pack->source, i)))
        return err_set(ERR_DATA, "its name is not UTF-8 or holds control characters");
    if (pack->source->channels) {
        place->width = pack->source->width;
        place->height = pack->source->height;
        return 0;
    }
    const uint8_t *file = place->buffer.data;
    size_t bytes = place->buffer.bytes;
    if (pack->options->encoding == STORE_RAW) {
        code = ops->planes(decoder, &place->made, &place->width, &place->height, file, bytes);
        place->made_bytes = 3 * (size_t)place->width * place->height;
        return code;
    }
    if (pack->options->recode.quality) {
        code = ops->recode(decoder, &place->made, &place->made_bytes, &place->width, &place->height,
                           file, bytes, &pack->options->recode);
        return code ? code : index_or_check(pack, place, decoder, place->made, place->made_bytes);
    }
    return index_or_check(pack, place, decoder, file, bytes);
}

static void finish(struct pack *pack, struct place *place, int code)
{
    pthread_mutex_lock(&pack->lock);
    place->code = code;
    place->reason = code ? strdup(err_message()) : NULL;
    place->ready = true;
    pthread_cond_broadcast(&pack->changed);
    pthread_mutex_unlock(&pack->lock);
}

static void *work(void *argument)
{
    struct pack *pack = argument;
    void *decoder = NULL;
    size_t i;
    int opened = pack->options->decoder->open(&decoder);
    while (claim(pack, &i)) {
        struct place *place = &pack->places[i % pack->place_count];
        finish(pack, place, opened ? opened : prepare(pack, place, i, decoder));
    }
    pack->options->decoder->close(decoder);
    return NULL;
}

/* NULL when a signal asks to stop. */
static struct place *wait_for(struct pack *pack, size_t i)
{
    struct place *place = &pack->places[i % pack->place_count];
    pthread_mutex_lock(&pack->lock);
    while (!place->ready && !stop_requested()) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += WAIT_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        pthread_cond_timedwait(&pack->changed, &pack->lock, &until);
    }
    bool ready = place->ready && !stop_requested();
    pthread_mutex_unlock(&pack->lock);
    return ready ? place : NULL;
}

static void free_made(struct place *place)
{
    free(place->made);
    free(place->index);
    free(place->reason);
    place->made = place->index = NULL;
    place->reason = NULL;
}

static void give_back(struct pack *pack, struct place *place, size_t i)
{
    if (place->buffer.room > KEEP_BYTES)
        source_buffer_free(&place->buffer);
    free_made(place);
    pthread_mutex_lock(&pack->lock);
    place->ready = false;
    pack->flight_bytes -= pack->source->list.entries[i].bytes;
    pack->written++;
    pthread_cond_broadcast(&pack->changed);
    pthread_mutex_unlock(&pack->lock);
}

static int list_bad(const struct pack *pack, struct pack_result *result, size_t i,
                    const char *reason)
{
    char file[DESCRIPTION_BYTES];
    source_describe(file, sizeof file, pack->source, i);
    struct pack_bad *grown = reallocarray(result->bad, result->bad_count + 1, sizeof *result->bad);
    if (!grown)
        return err_set(ERR_NOMEM, "out of memory for the list of bad files");
    result->bad = grown;
    struct pack_bad *bad = &grown[result->bad_count];
    bad->file = strdup(file);
    bad->reason = strdup(reason ? reason : "unknown reason");
    result->bad_count++;
    return bad->file && bad->reason ? 0
                                    : err_set(ERR_NOMEM, "out of memory for the list of bad files");
}

/* Without skip_bad there will be nothing to publish; the rest is looked at for the list. */
static int leave_out(struct pack *pack, struct pack_result *result, size_t i, const char *reason)
{
    int code = list_bad(pack, result, i, reason);
    if (code)
        return code;
    if (pack->options->skip_bad)
        return store_writer_note(pack->writer, (uint32_t)i, true);
    store_writer_discard(pack->writer);
    pack->writer = NULL;
    return 0;
}

static int write_place(struct pack *pack, struct pack_result *result, const struct place *place,
                       size_t i)
{
    if (!pack->writer)
        return 0;
    struct store_sample sample = {
        .label = pack->source->list.entries[i].label,
        .width = place->width,
        .height = place->height,
        .channels = pack->source->channels ? pack->source->channels : 3,
        .encoding = pack->options->encoding,
        .image = place->made ? place->made : place->buffer.data,
        .image_bytes = place->made ? place->made_bytes : place->buffer.bytes,
        .index = place->index,
        .index_bytes = place->index ? place->index_bytes : 0,
    };
    const char *reason = record_refuse(&sample);
    if (reason)
        return leave_out(pack, result, i, reason);
    int code = store_writer_add(pack->writer, &sample);
    if (!code) {
        result->samples++;
        result->image_bytes += sample.image_bytes;
        result->indexed += sample.index != NULL;
        code = store_writer_note(pack->writer, (uint32_t)i, false);
    }
    return code;
}

static int write_next(struct pack *pack, struct pack_result *result, const struct place *place,
                      size_t i)
{
    char file[DESCRIPTION_BYTES];
    if (place->code == ERR_DATA)
        return leave_out(pack, result, i, place->reason);
    if (!place->code)
        return write_place(pack, result, place, i);
    source_describe(file, sizeof file, pack->source, i);
    return err_set(place->code, "%s: %s", file, place->reason ? place->reason : "out of memory");
}

static int write_all(struct pack *pack, struct pack_result *result)
{
    size_t count = pack->source->list.count;
    struct progress *progress = progress_open("packing", count, "images");
    int code = 0;
    progress_resume(progress, pack->written);
    for (size_t i = pack->written; !code && i < count; i++) {
        struct place *place = wait_for(pack, i);
        if (!place) {
            code = err_set(ERR_STOPPED, "stopped before it was done");
            break;
        }
        code = write_next(pack, result, place, i);
        give_back(pack, place, i);
        progress_update(progress, i + 1, NULL);
    }
    progress_close(progress);
    return code;
}

/* XXH3-64 over all that is known before the first record: what the records will be of. */
static int tag_of(uint64_t *tag, const struct source *source, const struct pack_options *options)
{
    const struct source_list *list = &source->list;
    struct hash_stream *stream = hash_stream_open();
    if (!stream)
        return err_set(ERR_NOMEM, "out of memory");
    const uint32_t made_as[] = {options->encoding, options->recode.short_px,
                                options->recode.long_px, (uint32_t)options->recode.quality,
                                (uint32_t)options->index_mcus};
    for (size_t i = 0; i < sizeof made_as / sizeof *made_as; i++) {
        char number[16];
        int length = snprintf(number, sizeof number, "%" PRIu32 " ", made_as[i]);
        hash_stream_add(stream, number, (size_t)length);
    }
    for (size_t i = 0; i < list->class_count; i++)
        hash_stream_add(stream, list->class_ids[i], strlen(list->class_ids[i]) + 1);
    for (size_t i = 0; i < list->count; i++) {
        const char *name = source_name(source, i);
        char number[64];
        int length = snprintf(number, sizeof number, "%" PRIu32 " %" PRIu64 " ",
                              list->entries[i].label, list->entries[i].bytes);
        hash_stream_add(stream, number, (size_t)length);
        hash_stream_add(stream, name, strlen(name) + 1);
    }
    *tag = hash_stream_end(stream).low;
    hash_stream_close(stream);
    return 0;
}

/* Files that the run before left out: why, is not recorded. */
static int look_again(const struct pack *pack, struct pack_result *result,
                      const struct store_progress *progress)
{
    struct place place = {0};
    void *decoder = NULL;
    int code = progress->skipped_count ? pack->options->decoder->open(&decoder) : 0;
    for (uint32_t i = 0; !code && i < progress->skipped_count; i++) {
        if (progress->skipped[i] >= pack->source->list.count)
            code =
                err_set(ERR_DATA, "%s: places that the source does not have", pack->options->out);
        else
            code = list_bad(pack, result, progress->skipped[i],
                            prepare(pack, &place, progress->skipped[i], decoder)
                                ? err_message()
                                : "left out by the run before");
        free_made(&place);
    }
    source_buffer_free(&place.buffer);
    pack->options->decoder->close(decoder);
    return code;
}

static int go_on(struct pack *pack, struct pack_result *result, uint64_t tag)
{
    struct store_progress progress;
    size_t count = pack->source->list.count;
    int code = store_writer_resume(&pack->writer, &progress, pack->options->out, tag);
    if (code)
        return code;
    if (progress.next == UINT64_MAX)
        progress.next = count;
    if (progress.next > count || progress.count > count)
        return err_set(ERR_DATA, "%s.partial: holds more than the input; remove it",
                       pack->options->out);
    pack->claimed = pack->written = (size_t)progress.next;
    result->samples = progress.count;
    result->image_bytes = progress.image_bytes;
    result->indexed = progress.indexed;
    if (progress.next > 0)
        log_info("going on behind %zu of %zu images", pack->written, count);
    return look_again(pack, result, &progress);
}

static int start(struct pack *pack, struct pack_result *result, uint64_t tag)
{
    int code = pack->options->resume ? go_on(pack, result, tag)
                                     : store_writer_open(&pack->writer, pack->options->out, tag);
    if (code)
        return code;
    pack->place_count = (size_t)pack->options->jobs * PLACES_PER_JOB;
    pack->places = calloc(pack->place_count, sizeof *pack->places);
    pack->threads = calloc((size_t)pack->options->jobs, sizeof *pack->threads);
    if (!pack->places || !pack->threads)
        return err_set(ERR_NOMEM, "out of memory for %d jobs", pack->options->jobs);
    for (; pack->thread_count < pack->options->jobs; pack->thread_count++) {
        if (pthread_create(&pack->threads[pack->thread_count], NULL, work, pack) != 0)
            return err_set(ERR_NOMEM, "cannot start worker thread %d", pack->thread_count + 1);
    }
    return 0;
}

/* Whether all is done or not: ends the workers and frees what is theirs. */
static void stop_workers(struct pack *pack)
{
    pthread_mutex_lock(&pack->lock);
    pack->cancelled = true;
    pthread_cond_broadcast(&pack->changed);
    pthread_mutex_unlock(&pack->lock);
    for (int i = 0; i < pack->thread_count; i++)
        pthread_join(pack->threads[i], NULL);
    for (size_t i = 0; pack->places && i < pack->place_count; i++) {
        source_buffer_free(&pack->places[i].buffer);
        free_made(&pack->places[i]);
    }
    free(pack->places);
    free(pack->threads);
}

static int publish(struct pack *pack, struct pack_result *result)
{
    const struct source *source = pack->source;
    if (result->bad_count && !pack->options->skip_bad)
        return err_set(ERR_DATA,
                       "%zu of %zu files cannot be used, nothing is published; --skip-bad leaves "
                       "them out",
                       result->bad_count, source->list.count);
    if (result->samples == 0)
        return err_set(ERR_DATA, "%s: no file can be used", source->path);
    struct store_meta meta = {
        .class_count = (uint32_t)source->list.class_count,
        .class_ids = (const char *const *)source->list.class_ids,
        .class_names = pack->options->class_names,
        .channels = source->channels ? source->channels : 3,
        .encoding = pack->options->encoding,
        .split = pack->options->split,
        .packed_by = pack->options->packed_by,
    };
    int code = store_writer_publish(pack->writer, &meta, &result->fingerprint);
    struct stat status;
    if (code)
        return code;
    pack->writer = NULL;
    result->bytes = stat(pack->options->out, &status) == 0 ? (uint64_t)status.st_size : 0;
    result->classes = meta.class_count;
    return 0;
}

/* Resuming what is complete already. *done false: there is no store yet. */
static int take_complete(bool *done, struct pack_result *result, const struct pack_options *options,
                         uint64_t tag)
{
    struct stat status;
    struct store *store;
    *done = lstat(options->out, &status) == 0;
    int code = *done ? store_open(&store, options->out) : 0;
    if (code || !*done)
        return code;
    const struct store_meta *meta = store_meta(store);
    if (store_tag(store) == tag) {
        result->samples = meta->sample_count;
        result->classes = meta->class_count;
        result->fingerprint = meta->fingerprint;
        result->indexed = meta->indexed;
        result->bytes = (uint64_t)status.st_size;
        log_info("%s: is complete already", options->out);
    } else {
        code = err_set(ERR_ARG,
                       "%s: exists already, and was made of another input or with other "
                       "options; remove it or choose another name",
                       options->out);
    }
    store_close(store);
    return code;
}

/* What is done is kept where another run may get further. */
static int give_up(struct pack *pack, int code)
{
    if (code != ERR_STOPPED && code != ERR_IO) {
        store_writer_discard(pack->writer);
        return code;
    }
    bool begun = pack->writer != NULL;
    char reason[DESCRIPTION_BYTES];
    snprintf(reason, sizeof reason, "%s", err_message());
    uint32_t kept = store_writer_keep(pack->writer);
    if (kept)
        return err_set(code, "%s; %" PRIu32 " images are kept in %s.partial: --resume goes on",
                       reason, kept, pack->options->out);
    return err_set(code, begun ? "%s; nothing is left of %s" : "%s", reason, pack->options->out);
}

int pack_run(struct pack_result *result, const struct source *source,
             const struct pack_options *options)
{
    struct pack pack = {.source = source, .options = options};
    uint64_t tag = 0;
    bool done = false;
    *result = (struct pack_result){0};
    if (options->split && !meta_text_is_clean(options->split))
        return err_set(ERR_ARG, "the split's name is not UTF-8 or holds control characters");
    int code = tag_of(&tag, source, options);
    if (!code && options->resume)
        code = take_complete(&done, result, options, tag);
    if (code || done)
        return code;
    pthread_mutex_init(&pack.lock, NULL);
    pthread_cond_init(&pack.changed, NULL);
    code = start(&pack, result, tag);
    if (!code)
        code = write_all(&pack, result);
    stop_workers(&pack);
    if (!code)
        code = publish(&pack, result);
    if (code)
        code = give_up(&pack, code);
    pthread_cond_destroy(&pack.changed);
    pthread_mutex_destroy(&pack.lock);
    return code;
}

void pack_result_release(struct pack_result *result)
{
    for (size_t i = 0; i < result->bad_count; i++) {
        free(result->bad[i].file);
        free(result->bad[i].reason);
    }
    free(result->bad);
    *result = (struct pack_result){0};
}
