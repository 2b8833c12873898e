#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# One node of 8 GPUs, one rank a GPU, three loader hosts.
exec mpirun -n 8 --bind-to numa satchel-trainer --loaders tcp://cpu1:5555,tcp://cpu2:5555,tcp://cpu3:5555 \
    --secret-key ~/trainer.key --server-keys /etc/satchel/servers --recipe "${RECIPE:-refine-mixup}" \
    --model resnet50d --device cuda --precision fp16 --total-batch 1024 --micro-batch 128 --out "${RUN:-run}" --resume
