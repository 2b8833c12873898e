/* SPDX-License-Identifier: Apache-2.0 */
/* What a kernel of a finalised operation graph must move between memory and the chip: every tensor
 * that is not virtual, read or written once. Nothing runs for it. */
#ifndef TESTS_VGPU_TRAFFIC_H
#define TESTS_VGPU_TRAFFIC_H

#include <cudnn.h>

struct traffic { /* bytes */
    double once;
    double twice; /* maps of which statistics over the batch are taken first are read twice */
};
struct traffic vgpu_traffic(cudnnBackendDescriptor_t graph);

#endif
