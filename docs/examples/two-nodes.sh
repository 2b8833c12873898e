#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Two nodes of 8 GPUs without a scheduler: ssh without a password between them, the same program and the same path to
# the run directory on both.
exec mpirun -n 16 --host node1:8,node2:8 --bind-to numa satchel-trainer --loaders @loaders.txt \
    --recipe "${RECIPE:-refine-mixup}" --model resnet50d --device cuda --precision fp16 --total-batch 1024 --micro-batch 64 \
    --out "${RUN:-/shared/runs/resnet50d}" --resume
