#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Everything that needs a real GPU, in one call of less than 8 minutes: the CUDA tests under compute-sanitizer, runs with and
# without CUDA graphs and NCCL, which must give the same bits, then training steps beside PyTorch (channels_last, autocast, compile). Prints a table and writes it to OUT. Needs a release build with the
# CUDA module; PyTorch is optional.
#   tools/gpu_check.sh [BUILD] [OUT]      (default: build, gpu_check.txt)
# TORCH_PYTHON: a Python with torch and timm (default: python3). NETS: what is timed, "MODEL BATCH" a line. Exit status 77: there
# is no GPU here.
set -u
. "$(dirname "$0")/explain.sh"
cd "$(dirname "$0")/.."
build=${1:-build}
out=${2:-gpu_check.txt}
python=${TORCH_PYTHON:-python3}
begin=$(date +%s)
deadline=$((begin + 460))
failed=0

left() { # seconds until the deadline, at least 1
    seconds=$((deadline - $(date +%s)))
    [ "$seconds" -gt 1 ] && echo "$seconds" || echo 1
}
tell() {
    echo "$*" | tee -a "$out"
}

[ -f "$build/trainer/satchel-cuda.so" ] || {
    echo "gpu_check.sh: '$build' has no CUDA module: build with the toolkit first (meson setup $build --buildtype=release)" >&2
    exit 1
}
probe=$("$build/trainer/satchel-trainer" --version | grep '^  cuda')
case $probe in
*"not here"*)
    echo "gpu_check.sh:$probe" >&2
    exit 77
    ;;
esac
: >"$out"
tell "satchel $(git rev-parse --short HEAD 2>/dev/null || echo '?'), $(date -u +%Y-%m-%d):$probe"

# --- tests: the cuda backend against the reference, on the device ---
sanitizer=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
[ -x "$sanitizer" ] || sanitizer=
check() { # check NAME COMMAND...
    name=$1
    shift
    if timeout "$(left)" "$@" >"$out.log" 2>&1; then
        tell "ok      $name"
    else
        tell "FAILED  $name (status $?)"
        tail -20 "$out.log" | tee -a "$out"
        failed=$((failed + 1))
    fi
}
test=$build/tests/cuda/cuda_device
check "operations and whole steps against the reference" "$test"
if [ -n "$sanitizer" ]; then
    for tool in memcheck racecheck synccheck; do
        check "compute-sanitizer $tool" "$sanitizer" --tool "$tool" --error-exitcode 1 "$test" --quick
    done
else
    tell "not run compute-sanitizer: it is not here"
fi

# --- whole steps: as one CUDA graph, queued anew, and through NCCL with one rank: the same bits ---
runs=$out.runs
rm -rf "$runs"
train() { # train NAME [OPTION...]
    run=$1
    shift
    timeout "$(left)" "$build/trainer/satchel-trainer" --loaders synthetic --device cuda --precision fp16 --model resnet18d --size 64 --resize-short 64 \
        --total-batch 64 --micro-batch 32 --epochs 1 --lr 0.02 --max-steps 20 --out "$runs/$run" "$@"
}
same() { # same NAME NAME: their weights
    cmp "$runs/$1/last.safetensors" "$runs/$2/last.safetensors"
}
captured() { train captured && [ "$(grep -c '"event":"step"' "$runs/captured/metrics.jsonl")" = 20 ]; }
again() { train again && same captured again; }
queued() { train queued --cuda-graph no && same captured queued; }
nccl() { SATCHEL_NCCL=1 train nccl && same captured nccl; }
for part in captured again queued nccl; do
    [ "$part" != nccl ] || [ -f "$build/trainer/satchel-nccl.so" ] || {
        tell "not run NCCL with one rank: '$build' has no module for it"
        continue
    }
    if "$part" >"$out.log" 2>&1; then
        tell "ok      20 steps of resnet18d, $part"
    else
        tell "FAILED  20 steps of resnet18d, $part"
        tail -20 "$out.log" | tee -a "$out"
        failed=$((failed + 1))
    fi
done
rm -rf "$runs"

# --- speed ---
step() { # step MODEL BATCH
    timeout "$(left)" "$build/tools/satchel-bench-step" --device cuda --precision fp16 --model "$1" --batch "$2" --steps 20 --warmup 5 \
        --json 2>"$out.log" | tail -1
}
number() { # number KEY: from a JSON line on stdin
    sed -n "s/.*\"$1\": *\([0-9.eE+]*\).*/\1/p"
}
tell ""
tell "$(printf '%-12s %6s %20s %20s' model batch 'satchel images/s' 'PyTorch images/s')"
nets=${NETS-"resnet50d 64
resnet50d 256
resnet18d 256"}
echo "$nets" >"$out.nets"
while read -r model batch; do
    ours=$(step "$model" "$batch" | number images_per_second)
    [ -n "$ours" ] || {
        tail -3 "$out.log" | tee -a "$out"
        failed=$((failed + 1))
    }
    theirs="not here"
    if "$python" -c 'import torch, timm' 2>/dev/null; then
        theirs=$(timeout "$(left)" "$python" tools/bench/torch_step.py "$model" "$batch" 2>"$out.log" | number images_per_second)
    fi
    tell "$(printf '%-12s %6s %20s %20s' "$model" "$batch" "${ours:-failed}" "${theirs:-failed}")"
done <"$out.nets"
rm -f "$out.log" "$out.nets"
tell ""
tell "$failed failed, $(($(date +%s) - begin)) seconds"
[ "$failed" -eq 0 ]
