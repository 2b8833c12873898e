/* SPDX-License-Identifier: Apache-2.0 */
/* Streams, events and captured graphs of the double. Work waits in its stream until the host waits
 * for it (or for something behind it): the latest schedule that the API allows, so a host that
 * reuses a buffer too early, or reads too early, gets what it deserves. */
#ifndef TESTS_VGPU_STREAM_H
#define TESTS_VGPU_STREAM_H

#include <cuda_runtime_api.h>

#include "tests/vgpu/memory.h"

#ifdef __cplusplus
extern "C" {
#endif

struct vgpu_stream;
struct vgpu_event;
struct vgpu_graph; /* what a capture recorded; instantiated: with streams of its own to run on */

struct vgpu_stream *vgpu_stream_create(bool with_default); /* false: cudaStreamNonBlocking */
void vgpu_stream_destroy(struct vgpu_stream *stream);
/* NULL and the legacy handle are the default stream; aborts on what is no stream. */
struct vgpu_stream *vgpu_stream_of(cudaStream_t handle);
void vgpu_stream_finish(struct vgpu_stream *stream); /* runs its work; the host is behind it then */
void vgpu_stream_wait(struct vgpu_stream *stream);   /* the same; counted when there is work */
void vgpu_stream_finish_all(void);
bool vgpu_stream_idle(const struct vgpu_stream *stream);
/* On the default stream, at once; the host is behind it when host_waits. */
void vgpu_stream_run_default(struct vgpu_task *task, bool host_waits);

struct vgpu_event *vgpu_event_create(bool timing);
void vgpu_event_destroy(struct vgpu_event *event);
void vgpu_event_record(struct vgpu_event *event, struct vgpu_stream *stream);
void vgpu_event_wait(struct vgpu_stream *stream, struct vgpu_event *event);
void vgpu_event_finish(struct vgpu_event *event);
bool vgpu_event_done(const struct vgpu_event *event);
bool vgpu_event_timed(const struct vgpu_event *event); /* aborts on what is no event */

/* mode: cudaStreamCaptureMode, of the calling thread's interaction with it. */
void vgpu_graph_begin(struct vgpu_stream *stream, int mode);
/* Aborts when calls that no capture sees may not be made now: the runtime's documentation calls
 * them potentially unsafe. */
void vgpu_graph_forbid(const char *call);
struct vgpu_graph *vgpu_graph_end(struct vgpu_stream *stream);
bool vgpu_graph_capturing(const struct vgpu_stream *stream);
/* Something that cannot be captured was tried: the capture ends with an error, and as NULL. */
void vgpu_graph_spoil(struct vgpu_stream *stream);
struct vgpu_graph *vgpu_graph_instantiate(struct vgpu_graph *graph);
size_t vgpu_graph_nodes(const struct vgpu_graph *graph);
void vgpu_graph_launch(struct vgpu_graph *exec, struct vgpu_stream *stream);
void vgpu_graph_destroy(struct vgpu_graph *graph);

#ifdef __cplusplus
}
#endif

#endif
