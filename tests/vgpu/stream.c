/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/vgpu/stream.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STREAM_MAGIC = 0x5712ea3, EVENT_MAGIC = 0xe7e27 };

enum { POINTS = 1024 }; /* events in a captured graph */
enum kind { TASK, WAIT, RECORD };

struct entry { /* of a stream's queue or of a graph */
    enum kind kind;
    struct vgpu_task *task;
    struct vgpu_clock clock;    /* queue: what comes before it, itself included */
    struct vgpu_stream *behind; /* queue, WAIT: */
    uint64_t sequence;          /* ... that much of that stream's work */
    int branch, point;          /* graph: which of its streams, which of its recorded points */
};

struct list {
    struct entry *items;
    size_t count, room;
};

struct vgpu_stream {
    unsigned magic;
    int lane;
    bool with_default, destroyed;
    struct vgpu_clock clock;     /* behind all that was queued */
    struct list queue;           /* what was queued last; its first entry is number base */
    uint64_t base, done, queued; /* how many entries, since ever */
    struct vgpu_graph *capture;
    int branch;
    struct vgpu_stream *next;
};

struct vgpu_event {
    unsigned magic;
    bool timing, recorded;
    struct vgpu_stream *stream;
    uint64_t sequence;
    struct vgpu_clock clock;
    uint64_t capture; /* recorded while capturing: number of the capture, else 0 */
    int point;
};

struct vgpu_graph {
    uint64_t number; /* from 1 */
    int mode;
    pthread_t thread; /* that began the capture */
    struct list nodes;
    struct vgpu_stream *streams[VGPU_LANES]; /* capture: who takes part; exec: who runs a branch */
    int branches, points;
    bool spoilt;
    struct vgpu_clock heads[VGPU_LANES]; /* capture: [branch] what it is behind, by branch */
    struct vgpu_stream *launched;        /* exec: on which stream it ran last; NULL: never */
    uint64_t end;             /* exec: how much of that stream's work that was the end of, */
    struct vgpu_clock behind; /* ... and what comes before that */
    struct point {
        int branch;
        struct vgpu_clock clock; /* capture: by branch; exec: of the latest launch, by lane */
        uint64_t sequence;       /* exec */
    } recorded[POINTS];
};

static struct vgpu_stream *streams; /* all that ever were */
static struct vgpu_clock host;      /* what the host waited for */
static int lanes;
static struct {
    int seen, ignored;
} waits = {0, -1};

static void push(struct list *list, const struct entry *entry)
{
    if (list->count == list->room) {
        list->room = list->room ? 2 * list->room : 64;
        list->items = realloc(list->items, list->room * sizeof *list->items);
        if (!list->items)
            vgpu_fail("no memory");
    }
    list->items[list->count++] = *entry;
}

struct vgpu_task *vgpu_task(void (*run)(void *), void (*drop)(void *), void *payload,
                            const char *format, ...)
{
    struct vgpu_task *task = calloc(1, sizeof *task);
    if (!task)
        vgpu_fail("no memory");
    *task = (struct vgpu_task){.references = 1, .run = run, .drop = drop, .payload = payload};
    va_list list;
    va_start(list, format);
    vsnprintf(task->label, sizeof task->label, format, list);
    va_end(list);
    return task;
}

void vgpu_task_drop(struct vgpu_task *task)
{
    if (!task || --task->references > 0)
        return;
    if (task->drop)
        task->drop(task->payload);
    free(task);
}

static struct vgpu_stream *default_stream(void)
{
    static struct vgpu_stream *stream;
    if (!stream)
        stream = vgpu_stream_create(false);
    return stream;
}

struct vgpu_stream *vgpu_stream_create(bool with_default)
{
    struct vgpu_stream *stream = NULL;
    for (struct vgpu_stream *old = streams; old && !stream; old = old->next)
        if (old->destroyed)
            stream = old;
    if (!stream) {
        if (lanes + 1 == VGPU_LANES)
            vgpu_fail("the double has %d streams at a time and no more", VGPU_LANES - 1);
        stream = calloc(1, sizeof *stream);
        if (!stream)
            vgpu_fail("no memory");
        stream->magic = STREAM_MAGIC;
        stream->lane = ++lanes;
        stream->next = streams;
        streams = stream;
    }
    stream->destroyed = false;
    stream->with_default = with_default;
    return stream;
}

struct vgpu_stream *vgpu_stream_of(cudaStream_t handle)
{
    if (!handle || handle == cudaStreamLegacy)
        return default_stream();
    struct vgpu_stream *stream = (struct vgpu_stream *)handle;
    for (struct vgpu_stream *one = streams; one; one = one->next)
        if (one == stream && !one->destroyed)
            return stream;
    vgpu_fail("%p is no stream, or was destroyed", (void *)handle);
}

static void run(struct vgpu_stream *stream, const struct entry *entry)
{
    struct vgpu_actor before = vgpu_actor;
    vgpu_actor = (struct vgpu_actor){stream->lane, entry->clock, entry->task->label};
    vgpu_remember(stream->lane, entry->clock.at[stream->lane], entry->task->label);
    entry->task->run(entry->task->payload);
    vgpu_actor = before;
    vgpu_task_drop(entry->task);
}

static void finish_until(struct vgpu_stream *stream, uint64_t sequence)
{
    while (stream->done < sequence) {
        struct entry entry = stream->queue.items[stream->done - stream->base];
        if (entry.kind == WAIT)
            finish_until(entry.behind, entry.sequence);
        else
            run(stream, &entry);
        stream->done++;
    }
}

void vgpu_stream_finish(struct vgpu_stream *stream)
{
    if (stream->capture)
        vgpu_fail("synchronisation of a stream that is being captured");
    finish_until(stream, stream->queued);
    vgpu_clock_join(&host, &stream->clock);
}

void vgpu_stream_wait(struct vgpu_stream *stream)
{
    if (stream->capture || vgpu_stream_idle(stream) || waits.seen++ != waits.ignored)
        vgpu_stream_finish(stream);
}

void vgpu_stream_finish_all(void)
{
    for (struct vgpu_stream *stream = streams; stream; stream = stream->next)
        if (!stream->destroyed)
            vgpu_stream_finish(stream);
}

bool vgpu_stream_idle(const struct vgpu_stream *stream)
{
    return stream->done == stream->queued;
}

void vgpu_stream_destroy(struct vgpu_stream *stream)
{
    if (stream->capture)
        vgpu_fail("cudaStreamDestroy of a stream that is being captured");
    finish_until(stream, stream->queued); /* the work goes on after the handle is gone */
    stream->destroyed = true;
}

static void queue(struct vgpu_stream *stream, const struct entry *entry)
{
    if (stream->done == stream->queued) { /* nothing waits: start over */
        stream->base = stream->queued;
        stream->queue.count = 0;
    }
    push(&stream->queue, entry);
    stream->queued++;
}

static void queue_task(struct vgpu_stream *stream, struct vgpu_task *task)
{
    vgpu_clock_join(&stream->clock, &host);
    stream->clock.at[stream->lane]++;
    queue(stream, &(struct entry){.kind = TASK, .task = task, .clock = stream->clock});
}

static void queue_wait(struct vgpu_stream *stream, struct vgpu_stream *behind, uint64_t sequence,
                       const struct vgpu_clock *clock)
{
    vgpu_clock_join(&stream->clock, clock);
    queue(stream, &(struct entry){.kind = WAIT, .behind = behind, .sequence = sequence});
}

/* The default stream and the streams made to go with it wait for each other; its work runs at once.
 */
void vgpu_stream_run_default(struct vgpu_task *task, bool host_waits)
{
    struct vgpu_stream *own = default_stream();
    for (struct vgpu_stream *stream = streams; stream; stream = stream->next)
        if (stream->with_default && !stream->destroyed) {
            finish_until(stream, stream->queued);
            vgpu_clock_join(&own->clock, &stream->clock);
        }
    queue_task(own, task);
    finish_until(own, own->queued);
    for (struct vgpu_stream *stream = streams; stream; stream = stream->next)
        if (stream->with_default)
            vgpu_clock_join(&stream->clock, &own->clock);
    if (host_waits)
        vgpu_clock_join(&host, &own->clock);
}

/* Events. */
struct vgpu_event *vgpu_event_create(bool timing)
{
    struct vgpu_event *event = calloc(1, sizeof *event);
    if (!event)
        vgpu_fail("no memory");
    event->magic = EVENT_MAGIC;
    event->timing = timing;
    return event;
}

static void check_event(const struct vgpu_event *event)
{
    if (!event || event->magic != EVENT_MAGIC)
        vgpu_fail("%p is no event, or was destroyed", (const void *)event);
}

void vgpu_event_destroy(struct vgpu_event *event)
{
    check_event(event);
    event->magic = 0;
    free(event);
}

bool vgpu_event_timed(const struct vgpu_event *event)
{
    check_event(event);
    return event->timing;
}

void vgpu_event_record(struct vgpu_event *event, struct vgpu_stream *stream)
{
    check_event(event);
    struct vgpu_graph *graph = stream->capture;
    if (graph) {
        if (graph->points == POINTS)
            vgpu_fail("more events in a captured graph than the double has room for");
        event->capture = graph->number;
        event->point = graph->points++;
        graph->recorded[event->point] =
            (struct point){.branch = stream->branch, .clock = graph->heads[stream->branch]};
        push(&graph->nodes,
             &(struct entry){.kind = RECORD, .branch = stream->branch, .point = event->point});
        return;
    }
    vgpu_clock_join(&stream->clock, &host);
    event->capture = 0;
    event->recorded = true;
    event->stream = stream;
    event->sequence = stream->queued;
    event->clock = stream->clock;
}

/* The capture that goes on under this number. */
static struct vgpu_graph *capture_of(uint64_t number)
{
    for (struct vgpu_stream *stream = streams; stream; stream = stream->next)
        if (stream->capture && stream->capture->number == number)
            return stream->capture;
    vgpu_fail("cudaStreamWaitEvent on an event that was last recorded in a capture, which is over");
}

/* A stream that waits for a captured event takes part in the capture. */
static void join_capture(struct vgpu_stream *stream, struct vgpu_event *event)
{
    struct vgpu_graph *graph = capture_of(event->capture);
    if (!stream->capture) {
        if (graph->branches == VGPU_LANES)
            vgpu_fail("too many streams in a captured graph");
        stream->capture = graph;
        stream->branch = graph->branches++;
        graph->streams[stream->branch] = stream;
    }
    if (stream->capture != graph)
        vgpu_fail("cudaStreamWaitEvent on an event of another capture");
    vgpu_clock_join(&graph->heads[stream->branch], &graph->recorded[event->point].clock);
    push(&graph->nodes,
         &(struct entry){.kind = WAIT, .branch = stream->branch, .point = event->point});
}

void vgpu_waits_reset(int ignored)
{
    waits.seen = 0;
    waits.ignored = ignored;
}

int vgpu_waits(void)
{
    return waits.seen;
}

void vgpu_event_wait(struct vgpu_stream *stream, struct vgpu_event *event)
{
    check_event(event);
    if (waits.seen++ == waits.ignored)
        return;
    if (event->capture) {
        join_capture(stream, event);
        return;
    }
    if (stream->capture)
        vgpu_fail("a captured stream waits for an event that was recorded outside of the capture");
    if (event->recorded)
        queue_wait(stream, event->stream, event->sequence, &event->clock);
}

void vgpu_event_finish(struct vgpu_event *event)
{
    check_event(event);
    if (event->capture)
        vgpu_fail("cudaEventSynchronize on an event of a capture");
    if (waits.seen++ == waits.ignored)
        return;
    if (!event->recorded)
        return;
    finish_until(event->stream, event->sequence);
    vgpu_clock_join(&host, &event->clock);
}

bool vgpu_event_done(const struct vgpu_event *event)
{
    check_event(event);
    return !event->recorded || event->stream->done >= event->sequence;
}

/* Captured graphs. */
void vgpu_graph_forbid(const char *call)
{
    for (struct vgpu_stream *stream = streams; stream; stream = stream->next) {
        const struct vgpu_graph *graph = stream->capture;
        if (graph && graph->mode != cudaStreamCaptureModeRelaxed &&
            (graph->mode == cudaStreamCaptureModeGlobal ||
             pthread_equal(graph->thread, pthread_self())))
            vgpu_fail("%s while a stream is being captured", call);
    }
}

void vgpu_graph_begin(struct vgpu_stream *stream, int mode)
{
    static uint64_t captures;
    if (stream == default_stream())
        vgpu_fail("the default stream cannot be captured");
    if (stream->capture)
        vgpu_fail("cudaStreamBeginCapture on a stream that is being captured");
    struct vgpu_graph *graph = calloc(1, sizeof *graph);
    if (!graph)
        vgpu_fail("no memory");
    graph->number = ++captures;
    graph->mode = mode;
    graph->thread = pthread_self();
    graph->streams[0] = stream;
    graph->branches = 1;
    stream->capture = graph;
    stream->branch = 0;
}

bool vgpu_graph_capturing(const struct vgpu_stream *stream)
{
    return stream->capture;
}

void vgpu_graph_spoil(struct vgpu_stream *stream)
{
    stream->capture->spoilt = true;
}

struct vgpu_graph *vgpu_graph_end(struct vgpu_stream *stream)
{
    struct vgpu_graph *graph = stream->capture;
    if (!graph || stream->branch != 0)
        vgpu_fail("cudaStreamEndCapture on a stream whose capture it did not begin");
    if (graph->mode != cudaStreamCaptureModeRelaxed &&
        !pthread_equal(graph->thread, pthread_self()))
        vgpu_fail("cudaStreamEndCapture in another thread than the one that began it");
    for (int branch = 0; branch < graph->branches; branch++) {
        if (graph->heads[0].at[branch] < graph->heads[branch].at[branch])
            vgpu_fail("cudaStreamEndCapture: work of branch %d was never joined", branch);
        graph->streams[branch]->capture = NULL;
        graph->streams[branch] = NULL;
    }
    if (!graph->spoilt)
        return graph;
    vgpu_graph_destroy(graph);
    return NULL;
}

struct vgpu_graph *vgpu_graph_instantiate(struct vgpu_graph *graph)
{
    struct vgpu_graph *exec = malloc(sizeof *exec);
    if (!exec)
        vgpu_fail("no memory");
    *exec = *graph;
    exec->nodes = (struct list){0};
    for (size_t i = 0; i < graph->nodes.count; i++) {
        push(&exec->nodes, &graph->nodes.items[i]);
        if (graph->nodes.items[i].kind == TASK)
            graph->nodes.items[i].task->references++;
    }
    for (int branch = 1; branch < exec->branches; branch++)
        exec->streams[branch] = vgpu_stream_create(false);
    return exec;
}

size_t vgpu_graph_nodes(const struct vgpu_graph *graph)
{
    size_t nodes = 0;
    for (size_t i = 0; i < graph->nodes.count; i++)
        nodes += graph->nodes.items[i].kind == TASK;
    return nodes;
}

void vgpu_graph_launch(struct vgpu_graph *exec, struct vgpu_stream *stream)
{
    if (stream->capture)
        vgpu_fail("a graph is launched into a capture, which the double does not do");
    exec->streams[0] = stream;
    vgpu_clock_join(&stream->clock, &host);
    vgpu_count.graphs++;
    /* An executable graph runs once at a time; on its last stream that is so anyway. */
    if (exec->launched && exec->launched != stream && waits.seen++ != waits.ignored)
        queue_wait(stream, exec->launched, exec->end, &exec->behind);
    for (size_t i = 0; i < exec->nodes.count; i++) {
        const struct entry *node = &exec->nodes.items[i];
        struct vgpu_stream *on = exec->streams[node->branch];
        if (node->kind == TASK) {
            node->task->references++;
            queue_task(on, node->task);
        } else if (node->kind == RECORD) {
            struct point *point = &exec->recorded[node->point];
            point->clock = on->clock;
            point->sequence = on->queued;
        } else {
            const struct point *point = &exec->recorded[node->point];
            queue_wait(on, exec->streams[point->branch], point->sequence, &point->clock);
        }
    }
    exec->launched = stream;
    exec->end = stream->queued;
    exec->behind = stream->clock;
}

void vgpu_graph_destroy(struct vgpu_graph *graph)
{
    for (size_t i = 0; i < graph->nodes.count; i++)
        if (graph->nodes.items[i].kind == TASK)
            vgpu_task_drop(graph->nodes.items[i].task);
    for (int branch = 1; branch < graph->branches; branch++)
        if (graph->streams[branch])
            vgpu_stream_destroy(graph->streams[branch]);
    free(graph->nodes.items);
    free(graph);
}

void vgpu_enqueue(void *handle, struct vgpu_task *task)
{
    vgpu_called("queued");
    struct vgpu_stream *stream = handle;
    struct vgpu_graph *graph = stream->capture;
    if (graph) {
        graph->heads[stream->branch].at[stream->branch]++;
        push(&graph->nodes, &(struct entry){.kind = TASK, .task = task, .branch = stream->branch});
    } else if (stream == default_stream()) {
        vgpu_graph_forbid("work on the default stream");
        vgpu_stream_run_default(task, false);
    } else {
        queue_task(stream, task);
    }
}
