/* SPDX-License-Identifier: Apache-2.0 */
/* Stores and specs. */
#include "loader/known.h"

#include <string.h>
#include <sys/stat.h>

#include "common/err.h"
#include "common/file.h"
#include "common/log.h"
#include "datasets/file_system.h"
#include "loader/buffer.h"
#include "loader/sample.h"

enum {
    ANNOUNCE_BYTES = 16384,
    DECODE_BYTES_MAX = 64 << 20,   /* of the records of a chunk: about a second of one worker */
    SCRATCH_BYTES_MAX = 256 << 20, /* of a worker */
};

static int parse_name(struct frame_store *facts, const char *text, const char **file)
{
    const char *equals = strchr(text, '=');
    size_t bytes = equals ? (size_t)(equals - text) : 0;
    if (bytes == 0 || !equals[1])
        return err_set(ERR_ARG, "--data %s: expected NAME=FILE.lmdb (see --help)", text);
    if (bytes >= sizeof(facts->name) ||
        strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") < bytes)
        return err_set(ERR_ARG, "--data %s: a name has at most %d letters, digits, _ or -", text,
                       SPEC_STORE_NAME_BYTES - 1);
    memcpy(facts->name, text, bytes);
    facts->name[bytes] = 0;
    *file = equals + 1;
    return ERR_OK;
}

static uint64_t average_bytes(const char *file, uint32_t count)
{
    struct stat facts;
    return stat(file, &facts) == 0 ? (uint64_t)facts.st_size / count : 0;
}

int known_open_store(struct known *known, const char *name_and_file)
{
    struct frame_store facts = {0};
    const char *file = NULL;
    int code = parse_name(&facts, name_and_file, &file);
    if (code)
        return code;
    if (known_store(known, facts.name))
        return err_set(ERR_ARG, "--data %s: two stores of the name %s", name_and_file, facts.name);
    if (known->store_count == FRAME_MAX_STORES)
        return err_set(ERR_ARG, "--data: more than %d stores", FRAME_MAX_STORES);
    struct store *store;
    if ((code = store_open(&store, file)))
        return code;
    const char *network = file_system_network(file);
    if (network)
        log_warn("store %s: %s lies on %s: slower, and gone when the network is; better copy it to "
                 "this host, and check the copy with satchel-inspect --check",
                 facts.name, file, network);
    const struct store_meta *meta = store_meta(store);
    code = frame_classes_hash(&facts.classes, meta->class_ids, meta->class_count);
    if (code) {
        store_close(store);
        return code;
    }
    facts.fingerprint = meta->fingerprint;
    facts.sample_count = meta->sample_count;
    facts.class_count = meta->class_count;
    facts.channels = meta->channels;
    known->stores[known->store_count++] =
        (struct known_store){store, facts, average_bytes(file, facts.sample_count), false};
    /* Small records share pages, and the kernel maps a page's neighbours with it: announcing each
     * would cost more than it saves. */
    struct known_store *added = &known->stores[known->store_count - 1];
    added->announces = added->record_bytes >= ANNOUNCE_BYTES;
    char text[33];
    hash128_to_text(text, facts.fingerprint);
    log_info("store %s: %s, %u samples, %u classes, %u channel%s, fingerprint %s", facts.name, file,
             facts.sample_count, facts.class_count, facts.channels, log_plural(facts.channels),
             text);
    if (strcmp(facts.name, "train") != 0 && strcmp(facts.name, "val") != 0)
        log_warn("nobody will ask for the store '%s': trainers ask for train and val", facts.name);
    return ERR_OK;
}

int known_check(const struct known *known)
{
    int code = ERR_OK;
    for (int i = 0; i < known->store_count && !code; i++)
        code = store_check_unchanged(known->stores[i].store, true);
    return code;
}

int known_check_output(const struct known *known, const char *path)
{
    int code = 0;
    for (int i = 0; i < known->store_count && !code; i++)
        code = file_check_output(path, store_path(known->stores[i].store), "the store");
    return code;
}

void known_close(struct known *known)
{
    while (known->store_count > 0)
        store_close(known->stores[--known->store_count].store);
}

const struct known_store *known_store(const struct known *known, const char *name)
{
    for (int i = 0; i < known->store_count; i++)
        if (strcmp(known->stores[i].facts.name, name) == 0)
            return &known->stores[i];
    return NULL;
}

struct known_spec *known_spec(struct known *known, struct hash128 hash)
{
    for (int i = 0; i < known->spec_count; i++)
        if (hash128_equal(known->specs[i].hash, hash)) {
            known->specs[i].last_used = ++known->clock;
            return &known->specs[i];
        }
    return NULL;
}

/* A place for one more: a new one, or that of the spec unused for the longest time. */
static struct known_spec *place(struct known *known)
{
    if (known->spec_count < KNOWN_SPECS)
        return &known->specs[known->spec_count++];
    struct known_spec *oldest = NULL;
    for (int i = 0; i < KNOWN_SPECS; i++) {
        struct known_spec *spec = &known->specs[i];
        if (spec->uses == 0 && (!oldest || spec->last_used < oldest->last_used))
            oldest = spec;
    }
    return oldest;
}

/* What one request for this spec would cost. */
static int check_cost(const struct known_store *store, const struct spec *spec, size_t limit_bytes)
{
    size_t pixels = spec->chunk_size * spec_sample_bytes(spec);
    if (pixels > SPEC_MAX_CHUNK_BYTES || buffer_bytes(spec->chunk_size * frame_label_bytes(spec),
                                                      spec->chunk_size, pixels) > limit_bytes)
        return err_set(ERR_PEER, "a chunk of %zu bytes is more than this loader makes", pixels);
    if (store->record_bytes > DECODE_BYTES_MAX / spec->chunk_size)
        return err_set(
            ERR_PEER,
            "chunks of %u records of about %llu bytes are more decoding than this loader "
            "does at once (%d MiB)",
            spec->chunk_size, (unsigned long long)store->record_bytes, DECODE_BYTES_MAX >> 20);
    if (builder_bytes(spec) > SCRATCH_BYTES_MAX)
        return err_set(ERR_PEER, "it takes %zu MiB of scratch memory, this loader takes %d",
                       builder_bytes(spec) >> 20, SCRATCH_BYTES_MAX >> 20);
    return ERR_OK;
}

int known_learn(struct known *known, bool *is_new, const struct spec *spec, size_t limit_bytes)
{
    struct hash128 hash = spec_hash(spec);
    *is_new = false;
    if (known_spec(known, hash))
        return ERR_OK;
    const struct known_store *store = known_store(known, spec->store);
    if (!store)
        return err_set(ERR_PEER, "no store %s here", spec->store);
    if (spec->channels != store->facts.channels)
        return err_set(ERR_PEER, "store %s has %u channels, the spec wants %u", spec->store,
                       store->facts.channels, spec->channels);
    int code = check_cost(store, spec, limit_bytes);
    if (code)
        return code;
    struct known_spec *slot = place(known);
    if (!slot)
        return err_set(ERR_PEER, "%d specs are in use here", KNOWN_SPECS);
    *slot = (struct known_spec){*spec, hash, store, 0, ++known->clock};
    *is_new = true;
    char text[33];
    hash128_to_text(text, hash);
    if (log_limit_passes(&known->specs_said, "new specs"))
        log_info("spec %s: store %s, %u px, chunks of %u samples, %.2f MiB", text, spec->store,
                 spec->size_px, spec->chunk_size,
                 (double)(spec->chunk_size * spec_sample_bytes(spec)) / (1 << 20));
    return ERR_OK;
}
