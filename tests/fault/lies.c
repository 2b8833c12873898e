/* SPDX-License-Identifier: Apache-2.0 */
/* A loader that lies, for one that is linked with --wrap=sock_send: everything about it is real,
 * its key too, but for the chunks that it sends.
 *
 *   FAULT_LIE=NAME   what is wrong with each chunk from then on; NAMEs are at the end
 *   FAULT_HONEST=N   so many chunks are right before (default 2: the challenge and one more)
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "common/err.h"
#include "proto/chunk.h"
#include "proto/frame.h"
#include "proto/sock.h"
#include "proto/sock_private.h"

enum {
    SLACK_BYTES = 64, /* that a frame may be too long */
    ENDLESS_PARTS = 4000,
    ENDLESS_PART_BYTES = 1 << 16,
    ID_UNASKED = 1000000,
};

struct lie {
    struct sock *sock;
    uint32_t client;
    struct frame frame;
    uint8_t envelope[FRAME_MAX_BYTES];
    uint8_t *labels, *pixels; /* copies, with SLACK_BYTES behind */
    struct sock_part parts[SOCK_PARTS_MAX];
    int count;
};

int __real_sock_send(struct sock *sock, uint32_t client, const struct sock_part *parts, int count);
int __wrap_sock_send(struct sock *sock, uint32_t client, const struct sock_part *parts, int count);

/* ---- what can be wrong ---- */

static struct chunk_label label_of(const struct lie *lie)
{
    return chunk_label_decode(lie->labels);
}

static void set_label(struct lie *lie, struct chunk_label label)
{
    chunk_label_encode(lie->labels, label);
}

static void set_lam(struct lie *lie, float lam)
{
    struct chunk_label label = label_of(lie);
    label.lam = lam;
    set_label(lie, label);
}

static void lam_nan(struct lie *lie)
{
    set_lam(lie, NAN);
}

static void lam_inf(struct lie *lie)
{
    set_lam(lie, INFINITY);
}

static void lam_negative(struct lie *lie)
{
    set_lam(lie, -0.25f);
}

static void lam_large(struct lie *lie)
{
    set_lam(lie, 1.25f);
}

static void label_range(struct lie *lie)
{
    struct chunk_label label = label_of(lie);
    label.b = 1u << 20;
    set_label(lie, label);
}

static void label_masked(struct lie *lie)
{
    set_label(lie, (struct chunk_label){CHUNK_LABEL_MASKED, CHUNK_LABEL_MASKED, 1});
    lie->frame.chunk.masked = 1;
}

static void pixels_short(struct lie *lie)
{
    lie->parts[2].bytes--;
}

static void pixels_long(struct lie *lie)
{
    lie->parts[2].bytes += SLACK_BYTES;
}

static void pixels_none(struct lie *lie)
{
    lie->parts[2].bytes = 0;
}

/* A quiet NaN, and an infinity, as the last half. */
static void pixels_nan(struct lie *lie)
{
    lie->pixels[lie->parts[2].bytes - 1] = 0x7e;
}

static void pixels_inf(struct lie *lie)
{
    lie->pixels[lie->parts[2].bytes - 2] = 0;
    lie->pixels[lie->parts[2].bytes - 1] = 0xfc;
}

static void labels_short(struct lie *lie)
{
    lie->parts[1].bytes -= CHUNK_LABEL_BYTES;
}

static void labels_long(struct lie *lie)
{
    lie->parts[1].bytes += CHUNK_LABEL_BYTES;
}

static void samples(struct lie *lie)
{
    lie->frame.chunk.samples--;
}

static void chunk_index(struct lie *lie)
{
    lie->frame.chunk.chunk++;
}

static void epoch(struct lie *lie)
{
    lie->frame.chunk.epoch++;
}

static void spec(struct lie *lie)
{
    lie->frame.chunk.spec_hash.low ^= 1;
}

static void unasked(struct lie *lie)
{
    lie->frame.chunk.id += ID_UNASKED;
}

static void send_lie(struct lie *lie)
{
    if (!frame_encode(lie->envelope, &lie->parts[0].bytes, &lie->frame))
        __real_sock_send(lie->sock, lie->client, lie->parts, lie->count);
}

static void twice(struct lie *lie)
{
    send_lie(lie);
}

static void frames(struct lie *lie)
{
    lie->count = 2;
}

static void kind(struct lie *lie)
{
    const struct frame_chunk chunk = lie->frame.chunk;
    lie->frame = (struct frame){
        .kind = FRAME_REQUEST, .request = {chunk.spec_hash, chunk.epoch, chunk.chunk, chunk.id, 0}};
}

/* A message of 250 MB in parts. ZeroMQ sends only whole messages; it is on its way for long. */
static void endless(struct lie *lie)
{
    static uint8_t nothing[ENDLESS_PART_BYTES];
    uint8_t address[5] = {0};
    memcpy(address + 1, &lie->client, sizeof(lie->client));
    lie->count = 0;
    if (zmq_send(lie->sock->zmq, address, sizeof(address), ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0)
        return;
    for (int i = 0; i < ENDLESS_PARTS; i++) {
        zmq_msg_t part;
        if (zmq_msg_init_data(&part, nothing, sizeof(nothing), NULL, NULL) != 0)
            abort();
        if (zmq_msg_send(&part, lie->sock->zmq, i + 1 < ENDLESS_PARTS ? ZMQ_SNDMORE : 0) < 0)
            zmq_msg_close(&part);
    }
}

static const struct {
    const char *name;
    void (*tell)(struct lie *lie);
} LIES[] = {
    {"lam-nan", lam_nan},
    {"lam-inf", lam_inf},
    {"lam-negative", lam_negative},
    {"lam-large", lam_large},
    {"label-range", label_range},
    {"label-masked", label_masked},
    {"pixels-short", pixels_short},
    {"pixels-long", pixels_long},
    {"pixels-none", pixels_none},
    {"pixels-nan", pixels_nan},
    {"pixels-inf", pixels_inf},
    {"labels-short", labels_short},
    {"labels-long", labels_long},
    {"samples", samples},
    {"chunk", chunk_index},
    {"epoch", epoch},
    {"spec", spec},
    {"unasked", unasked},
    {"twice", twice},
    {"frames", frames},
    {"kind", kind},
    {"endless", endless},
};

/* ---- sending ---- */

static int tell(struct lie *lie, const char *name)
{
    for (size_t i = 0; i < sizeof(LIES) / sizeof(LIES[0]); i++)
        if (strcmp(name, LIES[i].name) == 0) {
            LIES[i].tell(lie);
            if (lie->count > 0)
                send_lie(lie);
            return SOCK_SENT;
        }
    return err_set(ERR_ARG, "FAULT_LIE=%s: no such lie", name);
}

static uint8_t *copy_of(struct sock_part *copy, const struct sock_part *part)
{
    uint8_t *bytes = calloc(1, part->bytes + SLACK_BYTES);
    if (!bytes)
        abort();
    memcpy(bytes, part->data, part->bytes);
    *copy = (struct sock_part){bytes, part->bytes, NULL, NULL};
    return bytes;
}

/* Only chunks have so many parts. */
int __wrap_sock_send(struct sock *sock, uint32_t client, const struct sock_part *parts, int count)
{
    static long sent;
    const char *name = getenv("FAULT_LIE"), *honest = getenv("FAULT_HONEST");
    if (!name || count != SOCK_PARTS_MAX || sent++ < (honest ? atol(honest) : 2))
        return __real_sock_send(sock, client, parts, count);
    struct lie lie = {.sock = sock, .client = client, .count = count};
    if (frame_decode(&lie.frame, parts[0].data, parts[0].bytes))
        abort();
    lie.parts[0] = (struct sock_part){lie.envelope, 0, NULL, NULL};
    lie.labels = copy_of(&lie.parts[1], &parts[1]);
    lie.pixels = copy_of(&lie.parts[2], &parts[2]);
    int code = tell(&lie, name);
    free(lie.labels);
    free(lie.pixels);
    if (code == SOCK_SENT && parts[2].release)
        parts[2].release((void *)parts[2].data, parts[2].user);
    return code;
}
