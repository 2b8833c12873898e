#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Trains on Fashion-MNIST through a loader and the wire twice from the same weights and the same stream: the CUDA backend in fp16 on
# the test double (tests/vgpu/), and oneDNN in fp32. Their smoothed loss curves must stay within 2 %, their predictions on 1,000
# validation images agree to 98 %. Both begin with weights that oneDNN has trained for a while: a net that knows little is undecided
# about many images, and a learning rate that is large for it tears any two runs apart. Needs no GPU; minutes, for the double is slow.
#   compare_double.sh [BUILD]     a build tree with tests (default: build)
#   STEPS (100)   WARM (220: steps of 64 before)   BATCH (32; two micro-batches)   IMAGES (1000; 0: predictions are not compared)
#   COMPARE_WORK  where everything goes (default: a temporary directory)
set -eu
. "$(dirname "$0")/explain.sh"
. "$(dirname "$0")/start_loader.sh"
cd "$(dirname "$0")/.."
build=$(cd "${1:-build}" && pwd)
steps=${STEPS:-100} warm=${WARM:-220} batch=${BATCH:-32} images=${IMAGES:-1000}
data=/usr/share/datasets/fashion-mnist
[ -f "$data/train-images-idx3-ubyte.gz" ] || {
    echo "skipped: no $data (Debian's dataset-fashion-mnist)"
    exit 77
}
work=${COMPARE_WORK:-$(mktemp -d)}
mkdir -p "$work"
finish() {
    stop_loader
    [ -n "${COMPARE_WORK:-}" ] || rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

for part in train:train val:t10k; do
    store=$work/${part%:*}.lmdb files=$data/${part#*:}
    [ -f "$store" ] || "$build/tools/satchel-pack" --source idx "$files-images-idx3-ubyte.gz" "$files-labels-idx1-ubyte.gz" \
        --class-names recipes/fashion-mnist.names --split "${part%:*}" --out "$store" >"$work/pack.log" 2>&1 ||
        { cat "$work/pack.log" >&2; exit 1; }
done
# No val: evaluating 10,000 images on the double would take longer than the steps.
start_loader "$build" "$work"

# train NAME BATCH STEPS LR OPTION...
train() {
    name=$1
    rm -rf "${work:?}/$name"
    size=$2 count=$3 lr=$4
    shift 4
    "$build/trainer/satchel-trainer" --loaders "ipc://$work/loader" --recipe recipes/fashion-mnist.ini --total-batch "$size" \
        --micro-batch $((size / 2)) --max-steps "$count" --warmup-epochs 0 --schedule step --lr "$lr" --out "$work/$name" "$@" \
        >"$work/$name.log" 2>&1 || { tail -n 5 "$work/$name.log" >&2; exit 1; }
}
if [ "$warm" -gt 0 ]; then
    train warm 64 "$warm" 0.05 --device cpu --backend dnnl
    set -- --init "$work/warm/last.safetensors"
else
    set --
fi
train dnnl "$batch" "$steps" 0.01 --device cpu --backend dnnl "$@"
export SATCHEL_MODULES="$build/tests/vgpu"
train double "$batch" "$steps" 0.01 --device cuda --precision fp16 --loss-scale 1024 "$@"

# losses RUN: the loss of every step
losses() {
    sed -n '/"event": *"step"/s/.*"loss": *\([-0-9.eE+]*\).*/\1/p' "$work/$1/metrics.jsonl"
}
losses dnnl >"$work/dnnl.loss"
losses double >"$work/double.loss"
paste "$work/dnnl.loss" "$work/double.loss" | awk -v steps="$steps" '
    function distance(a, b) { return a > b ? (a - b) / b : (b - a) / b }
    { # the mean over the last 10 steps
        a[NR] = $1; b[NR] = $2; sum_a += $1; sum_b += $2; d = distance($2, $1); if (d > single) single = d
        if (NR > 10) { sum_a -= a[NR - 10]; sum_b -= b[NR - 10] }
        if (NR >= 10 || NR == steps) { d = distance(sum_b, sum_a); if (d > smooth) smooth = d }
    }
    END {
        printf "%d steps, loss %.4f to %.4f (oneDNN fp32) and %.4f (cuda fp16 on the double); apart by at most %.2f %% smoothed, %.2f %% in a step\n",
            NR, a[1], a[NR], b[NR], 100 * smooth, 100 * single
        if (NR != steps || !(smooth <= 0.02)) exit 1
    }'
[ "$images" -gt 0 ] || exit 0
agree=$("$build/tests/vgpu/vgpu_predictions" "$work/val.lmdb" "$images" "$work/double/last.safetensors" \
    "$work/dnnl/last.safetensors" 2>"$work/predictions.log") || { cat "$work/predictions.log" >&2; exit 1; }
echo "predictions: $agree"
echo "$agree" | awk '{ exit !($2 >= 0.98 * ($4 + 0)) }'
