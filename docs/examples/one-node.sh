#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# One node of 8 GPUs, one rank a GPU, three loader hosts.
exec mpirun -n 8 --bind-to numa satchel-trainer --loaders tcp://cpu1:7000,tcp://cpu2:7000,tcp://cpu3:7000 \
    --secret-key /etc/satchel/trainer.secret --server-keys /etc/satchel/loaders --recipe "${RECIPE:-mixup}" \
    --model resnet50d --device cuda --precision fp16 --total-batch 1024 --micro-batch 128 --out "${RUN:-run}" --resume
