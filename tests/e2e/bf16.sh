#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Training in bf16 on a CPU: the same bits in a second run and in one that was interrupted and resumed; losses near fp32's.
# Where the processor has no AVX512-BF16 it is refused by name, and the rest is skipped.
#   bf16.sh SATCHEL_TRAINER
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
train() { # RUN OPTION...
    run=$work/$1
    shift
    "$trainer" --loaders synthetic --backend dnnl --model resnet8d --size 28 --resize-short 28 --total-batch 32 --micro-batch 16 \
        --epochs 1 --lr 0.02 --threads 2 --label-smoothing 0.1 --out "$run" "$@" >"$run.log" 2>&1
}
fail() {
    echo "bf16.sh: $1" >&2
    tail -n 5 "$work"/*.log >&2
    exit 1
}
hash_of() { sha256sum "$work/$1/last.safetensors" | cut -d' ' -f1; }
losses_of() { sed -nE 's/.*"event":"step","step":([0-9]+).*"loss":([^,]*).*/\1 \2/p' "$work/$1/metrics.jsonl"; }
trainer=$1
if ! train one --precision bf16 --max-steps 5; then
    grep -q 'bf16 needs a processor with AVX512-BF16' "$work/one.log" || fail "bf16 failed"
    echo "skipped: this processor has no AVX512-BF16; it is refused by name"
    exit 77
fi
train two --precision bf16 --max-steps 5 || fail "the second run failed"
[ "$(hash_of one)" = "$(hash_of two)" ] || fail "a second run has other bits"
train three --precision bf16 --max-steps 2 || fail "the run to be resumed failed"
train three --precision bf16 --max-steps 5 --resume || fail "the resumed run failed"
[ "$(hash_of one)" = "$(hash_of three)" ] || fail "the resumed run has other bits"
train exact --precision fp32 --max-steps 5 || fail "fp32 failed"
[ "$(hash_of one)" != "$(hash_of exact)" ] || fail "bf16 has fp32's bits"
losses_of one >"$work/bf16.txt"
losses_of exact >"$work/fp32.txt"
[ "$(wc -l <"$work/bf16.txt")" -ge 1 ] || fail "no losses"
# 30 roundings of 2^-8 of a loss of about 7.
paste -d' ' "$work/bf16.txt" "$work/fp32.txt" | awk '
    { d = $2 - $4; if (d < 0) d = -d; if ($1 != $3 || !(d <= 0.02 * $4)) { print "step " $0; bad = 1 } }
    END { exit bad }' || fail "other losses than fp32's"
if train three --precision fp32 --max-steps 6 --resume; then fail "resumed in another precision"; fi
grep -q precision "$work/three.log" || fail "another precision is not named"
echo "bf16: $(wc -l <"$work/bf16.txt") losses near fp32's, equal bits in three runs"
