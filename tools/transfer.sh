#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Transfer, a worked example: weights of the CIFAR-10 recipe are fine-tuned on a small set of another kind, 100 images of each of
# Fashion-MNIST's ten classes, beside training on these alone from scratch. Prints the accuracy on 2,000 other images, a line a run.
#   tools/transfer.sh BUILD WEIGHTS.safetensors [WORK]
# WEIGHTS: best.safetensors of `satchel-trainer --recipe cifar10`. WORK (default: a temporary directory) keeps images, stores and runs.
#   EPOCHS (20; at least 3)   SEED (0)   RECIPE (cifar10: what WEIGHTS was trained by)   MODEL (the recipe's)
set -eu
. "$(dirname "$0")/explain.sh"
. "$(dirname "$0")/start_loader.sh"
[ $# -ge 2 ] || { explain >&2; exit 2; }
build=$(cd "$1" && pwd) weights=$(realpath "$2")
work=${3:-$(mktemp -d)}
mkdir -p "$work"
work=$(cd "$work" && pwd)
cd "$(dirname "$0")/.."
epochs=${EPOCHS:-20} seed=${SEED:-0} recipe=${RECIPE:-cifar10}
data=/usr/share/datasets/fashion-mnist
[ -f "$data/train-images-idx3-ubyte.gz" ] || { echo "transfer.sh: no $data: install Debian's dataset-fashion-mnist" >&2; exit 1; }
command -v cjpeg >/dev/null || { echo "transfer.sh: no cjpeg: install Debian's libjpeg-turbo-progs" >&2; exit 1; }
finish() {
    stop_loader
    [ "${keep:-}" ] || rm -rf "$work"
}
[ $# -lt 3 ] || keep=yes
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# images PART FILES COUNT A_CLASS: the first images of IDX files, at most A_CLASS of each class, as PART/CLASS/NUMBER.jpg
images() {
    [ ! -d "$work/$1" ] || return 0
    gunzip -c "$data/$2-images-idx3-ubyte.gz" | tail -c +17 >"$work/pixels"
    gunzip -c "$data/$2-labels-idx1-ubyte.gz" | tail -c +9 | head -c "$3" | od -An -v -tu1 -w1 |
        awk -v limit="$4" '++seen[$1] <= limit { print NR - 1, $1 }' >"$work/chosen"
    while read -r number class; do
        mkdir -p "$work/$1.partial/$class"
        { printf 'P5\n28 28\n255\n' && dd if="$work/pixels" bs=784 skip="$number" count=1 status=none; } |
            cjpeg -quality 95 >"$work/$1.partial/$class/$number.jpg"
    done <"$work/chosen"
    mv "$work/$1.partial" "$work/$1"
}
images train train 2000 100
images val t10k 2000 2000
# pack PART OPTION...
pack() {
    part=$1
    shift
    [ -f "$work/$part.lmdb" ] || "$build/tools/satchel-pack" --source folder "$work/$part" --split "$part" --out "$work/$part.lmdb" "$@" \
        >"$work/pack.log" 2>&1 || { cat "$work/pack.log" >&2; exit 1; }
}
pack train
pack val --classes-of "$work/train.lmdb"

start_loader "$build" "$work" --data "val=$work/val.lmdb"

# run NAME WHAT OPTION...
run() {
    name=$1 what=$2
    shift 2
    "$build/trainer/satchel-trainer" --loaders "ipc://$work/loader" --recipe "$recipe" ${MODEL:+--model "$MODEL"} --total-batch 50 \
        --micro-batch 50 --epochs "$epochs" \
        --seed "$seed" --resume --out "$work/$name" "$@" 2>"$work/$name.log" >/dev/null || { tail -n 3 "$work/$name.log" >&2; exit 1; }
    awk -F'"top1":' -v what="$what" '/"event": *"done"/ { split($2, v, /[,}]/); printf "%-58s %6.2f %%\n", what, v[1] }' \
        "$work/$name/metrics.jsonl"
}
run scratch "from scratch" --lr 0.1
run all "CIFAR-10 weights, all trained" --init "$weights" --lr 0.05
run head "CIFAR-10 weights, stem and two stages frozen" --init "$weights" --freeze 2 --lr 0.02 --head-lr 0.1
