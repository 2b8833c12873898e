/* SPDX-License-Identifier: Apache-2.0 */
/* satchel-bench-step --profile: where a step's time goes. */
#ifndef TOOLS_BENCH_PROFILE_H
#define TOOLS_BENCH_PROFILE_H

#include "trainer/backend.h"

struct bench_profile_times {
    int steps;       /* since profile_start */
    double step_s;   /* all of them together */
    double update_s; /* of that, the update of the weights */
};

/* Two tables on stdout: by kind of work, then by node, each beside this machine's peaks.
 * ERR_UNSUPPORTED when the backend does not measure it; ERR_NOMEM. */
int bench_profile_print(const struct backend_ops *ops, struct backend *backend,
                        const struct program *program, const struct net *net,
                        const struct bench_profile_times *times);

#endif
