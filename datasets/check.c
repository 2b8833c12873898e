/* SPDX-License-Identifier: Apache-2.0 */
#include "datasets/check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/progress.h"
#include "common/stop.h"

enum { BATCH = 32 }; /* ids that a worker takes, and announces, at a time */

struct check {
    const struct store *store;
    const struct image_decoder *decoder;
    struct check_result *result; /* lock */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint32_t next, done; /* lock */
    int code;            /* lock: what ended a worker early */
};

static int examine(const struct check *check, void *decoder, uint32_t id)
{
    struct store_record record;
    uint32_t width, height;
    int code = store_read(&record, check->store, id);
    if (code || !decoder || record.encoding != STORE_JPEG)
        return code;
    code = check->decoder->check(decoder, &width, &height, record.image, record.image_bytes);
    if (!code && (width != record.width || height != record.height))
        code = err_set(ERR_DATA, "the image is not of the size that its record says");
    return code;
}

static int note_damage(struct check *check, uint32_t id)
{
    char *reason = strdup(err_message());
    int code = 0;
    pthread_mutex_lock(&check->lock);
    struct check_result *result = check->result;
    struct check_damage *grown =
        reason ? reallocarray(result->damaged, result->damaged_count + 1, sizeof *grown) : NULL;
    if (grown) {
        result->damaged = grown;
        grown[result->damaged_count++] = (struct check_damage){id, reason};
    } else {
        free(reason);
        code = err_set(ERR_NOMEM, "out of memory for the list of damaged records");
    }
    pthread_mutex_unlock(&check->lock);
    return code;
}

/* Adds what the last batch did and takes the next; 0: nothing left. */
static size_t take(struct check *check, uint32_t *ids, size_t did, int code)
{
    uint32_t count = store_meta(check->store)->sample_count;
    size_t taken = 0;
    pthread_mutex_lock(&check->lock);
    check->done += (uint32_t)did;
    if (code && !check->code)
        check->code = code;
    while (!check->code && !stop_requested() && taken < BATCH && check->next < count)
        ids[taken++] = check->next++;
    pthread_cond_signal(&check->changed);
    pthread_mutex_unlock(&check->lock);
    return taken;
}

static void *work(void *argument)
{
    struct check *check = argument;
    void *decoder = NULL;
    uint32_t ids[BATCH];
    int code = check->decoder ? check->decoder->open(&decoder) : 0;
    for (size_t count = take(check, ids, 0, code); count; count = take(check, ids, count, code)) {
        store_announce(check->store, ids, count);
        for (size_t i = 0; !code && i < count; i++) {
            code = examine(check, decoder, ids[i]);
            if (code == ERR_DATA)
                code = note_damage(check, ids[i]);
        }
    }
    if (check->decoder)
        check->decoder->close(decoder);
    return NULL;
}

static void watch(struct check *check)
{
    uint32_t count = store_meta(check->store)->sample_count;
    struct progress *progress = progress_open("checking", count, "images");
    pthread_mutex_lock(&check->lock);
    while (check->done < count && !check->code && !stop_requested()) {
        pthread_cond_wait(&check->changed, &check->lock);
        progress_update(progress, check->done, NULL);
    }
    pthread_mutex_unlock(&check->lock);
    progress_close(progress);
}

static int by_id(const void *a, const void *b)
{
    const struct check_damage *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

int check_run(struct check_result *result, const struct store *store,
              const struct image_decoder *decoder, int jobs)
{
    struct check check = {.store = store, .decoder = decoder, .result = result};
    *result = (struct check_result){0};
    pthread_t *threads = calloc((size_t)jobs, sizeof *threads);
    int started = 0;
    if (!threads)
        return err_set(ERR_NOMEM, "out of memory");
    pthread_mutex_init(&check.lock, NULL);
    pthread_cond_init(&check.changed, NULL);
    while (started < jobs && pthread_create(&threads[started], NULL, work, &check) == 0)
        started++;
    if (started > 0)
        watch(&check);
    else
        check.code = err_set(ERR_NOMEM, "cannot start a thread");
    for (int i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    pthread_cond_destroy(&check.changed);
    pthread_mutex_destroy(&check.lock);
    free(threads);
    if (result->damaged_count)
        qsort(result->damaged, result->damaged_count, sizeof *result->damaged, by_id);
    if (check.code)
        return started ? err_set(check.code, "%s: cannot be checked", store_path(store))
                       : check.code;
    if (check.done < store_meta(store)->sample_count)
        return err_set(ERR_STOPPED, "%s: stopped before all records were checked",
                       store_path(store));
    return 0;
}

void check_result_release(struct check_result *result)
{
    for (size_t i = 0; i < result->damaged_count; i++)
        free(result->damaged[i].reason);
    free(result->damaged);
    *result = (struct check_result){0};
}
