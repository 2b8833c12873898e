#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Two ranks on a machine without a GPU, one core each: the same model, bit for bit, as one process of one thread.
exec mpirun -n 2 --bind-to core satchel-trainer --loaders tcp://127.0.0.1:5555 --recipe fashion-mnist --threads 1 \
    --out "${RUN:-run}"
