#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Two ranks on a machine without a GPU, one core each: the same model, bit for bit, as one process of one thread
# with the same --micro-batch (the recipe's own, 128, is the whole batch: there would be nothing to share).
exec mpirun -n 2 --bind-to core satchel-trainer --loaders tcp://127.0.0.1:5555 --recipe fashion-mnist --micro-batch 64 \
    --threads 1 --out "${RUN:-run}"
