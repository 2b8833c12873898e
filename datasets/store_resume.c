/* SPDX-License-Identifier: Apache-2.0 */
/* Going on with a store that a killed writer left: everything in it is read again, which proves it
 * whole and brings back what the writer knew. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"
#include "common/progress.h"
#include "common/stop.h"
#include "datasets/store_head.h"
#include "datasets/store_partial.h"
#include "datasets/store_writer_parts.h"

static int recall(struct store_writer *writer, const struct store_record *record)
{
    const struct store_sample sample = {
        .label = record->label,
        .width = record->width,
        .height = record->height,
        .channels = record->channels,
        .encoding = record->encoding,
        .image = record->image,
        .image_bytes = record->image_bytes,
        .index = record->index,
        .index_bytes = record->index_bytes,
    };
    return writer_recall(writer, &sample);
}

static int recall_all(struct store_writer *writer, struct store_progress *progress,
                      const struct store *store, uint32_t count)
{
    enum { AHEAD = 64 }; /* records that the kernel reads beforehand */
    struct progress *line = progress_open("verifying", count, "images");
    int code = 0;
    for (uint32_t id = 0; !code && id < count; id++) {
        struct store_record record;
        uint32_t ids[AHEAD], ahead = 0;
        if (stop_requested())
            code = err_set(ERR_STOPPED, "%s: stopped; --resume goes on", writer->partial);
        while (id % AHEAD == 0 && ahead < AHEAD && id + ahead < count) {
            ids[ahead] = id + ahead;
            ahead++;
        }
        store_announce(store, ids, ahead);
        if (!code)
            code = store_record_of_partial(&record, store, id, writer->partial_state.tag);
        if (!code)
            code = recall(writer, &record);
        if (!code)
            progress->image_bytes += record.image_bytes;
        progress_update(line, id + 1, NULL);
    }
    progress_close(line);
    return code;
}

static int go_on(struct store_writer *writer, struct store_progress *progress)
{
    struct store *store = NULL;
    struct partial found = {0};
    int code = store_open_partial(&store, &found, writer->partial, writer->fd);
    if (!code && found.tag != writer->partial_state.tag)
        code = err_set(ERR_ARG,
                       "%s: was begun with another input or other options; use those, or remove it",
                       writer->partial);
    if (!code)
        code = recall_all(writer, progress, store, found.count);
    if (code == ERR_DATA)
        err_wrap(code, "remove %s and pack again; it cannot be gone on with", writer->partial);
    if (code) {
        partial_release(&found);
    } else {
        writer->partial_state = found;
        writer->skipped_room = found.skipped_count;
        writer->kept = found.count;
        writer->last_key = writer->noted = true;
        progress->next = found.next;
        progress->count = found.count;
        progress->indexed = writer->indexed;
        progress->skipped = found.skipped;
        progress->skipped_count = found.skipped_count;
    }
    store_close_partial(store);
    return code;
}

/* True: killed before its first batch was written. */
static bool holds_nothing(const struct store_writer *writer)
{
    MDB_stat stat;
    return mdb_env_stat(writer->env, &stat) == 0 && stat.ms_entries == 0;
}

static int begin_again(struct store_writer *writer)
{
    if (writer->env)
        mdb_env_close(writer->env);
    writer->env = NULL;
    if (ftruncate(writer->fd, 0) != 0)
        return writer_lmdb_error(writer, errno);
    return writer_open_environment(writer);
}

static int resume(struct store_writer *writer, struct store_progress *progress)
{
    struct stat status;
    if (fstat(writer->fd, &status) != 0)
        return writer_lmdb_error(writer, errno);
    if (status.st_size == 0)
        return writer_open_environment(writer);
    int code = store_check_head(&status, writer->fd, writer->partial);
    if (code)
        return err_wrap(code, "remove %s and pack again; it cannot be gone on with",
                        writer->partial);
    code = writer_open_environment(writer);
    if (code)
        return code;
    if (holds_nothing(writer))
        return begin_again(writer);
    code = writer_reach_last_page(writer);
    return code ? code : go_on(writer, progress);
}

int store_writer_resume(struct store_writer **out, struct store_progress *progress,
                        const char *path, uint64_t tag)
{
    *progress = (struct store_progress){0};
    int code = writer_create(out, path, tag, true);
    if (!code)
        code = resume(*out, progress);
    if (code) {
        writer_dispose(*out); /* the file stays: it is the user's to remove */
        *out = NULL;
    }
    return code;
}
