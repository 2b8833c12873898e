#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Ranks in containers: the host's mpirun starts one container a rank, all with the host's network and shared memory.
exec mpirun -n 8 apptainer exec --nv "${IMAGE:-satchel-trainer.sif}" satchel-trainer --loaders @loaders.txt \
    --recipe "${RECIPE:-refine-mixup}" --model resnet50d --device cuda --precision fp16 --total-batch 1024 --micro-batch 128 \
    --out "${RUN:-run}" --resume
