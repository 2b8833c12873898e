#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What working together costs: N ranks of one thread each on N cores, against N trainers that know nothing of each
# other, at the same time on the same cores. Synthetic data. Prints both rates, their ratio, and how much of the
# all-reduce was hidden behind the backward.
#   tools/bench/ranks.sh [BUILD_DIRECTORY]
#   RANKS (2)  MODEL (resnet50d)  BATCH of a rank (16)  STEPS (12)  SIZE (224)
set -eu
. "$(dirname "$0")/../explain.sh"
build=${1:-$(dirname "$0")/../../build}
ranks=${RANKS:-2} model=${MODEL:-resnet50d} batch=${BATCH:-16} steps=${STEPS:-12} size=${SIZE:-224}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
common=("$build/trainer/satchel-trainer" --loaders synthetic --model "$model" --size "$size" --micro-batch "$batch"
    --max-steps "$steps" --epochs 1 --threads 1 --check-ranks 0)
# Images a second of a run: the median of its steps, the first two left out (the network is being set up).
rate() {
    grep '"event":"step"' "$1/metrics.jsonl" | tail -n +3 | sed 's/.*"images_per_second":\([0-9.]*\).*/\1/' | sort -n |
        awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}
lscpu | sed -n 's/^Model name: *//p' | head -1
date -u +%F
for _ in $(seq 3); do
    rm -rf "$work"/*
    for core in $(seq 0 $((ranks - 1))); do
        taskset -c "$core" "${common[@]}" --total-batch "$batch" --out "$work/alone$core" >"$work/log$core" 2>&1 &
    done
    wait
    alone=$(for core in $(seq 0 $((ranks - 1))); do rate "$work/alone$core"; done | awk '{ s += $1 } END { print s }')
    mpirun -n "$ranks" --bind-to core "${common[@]}" --total-batch $((batch * ranks)) --out "$work/together" \
        >"$work/together.log" 2>&1
    together=$(rate "$work/together")
    hidden=$(sed -n 's/.* ranks: \(.*\)/\1/p' "$work/together.log" | tail -1)
    awk -v a="$alone" -v t="$together" -v n="$ranks" -v h="$hidden" \
        'BEGIN { printf "%d apart %.2f images/s, together %.2f, ratio %.3f; %s\n", n, a, t, t / a, h }'
done
