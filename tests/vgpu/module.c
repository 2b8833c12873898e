/* SPDX-License-Identifier: Apache-2.0 */
/* Nothing of its own: the module is the backend on the double. */
#include "trainer/backend.h"

extern const struct backend_ops backend_cuda;
const struct backend_ops *const vgpu_module_backend = &backend_cuda;
