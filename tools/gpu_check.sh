#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Everything that needs a real GPU, in parts; prints a table and writes it to OUT. One call takes less than LIMIT_S seconds: what
# there was no time for is told. Needs a release build with the CUDA module, nothing from the network, and of Python (PyTorch
# and timm, for comparison) only what is there.
#   tools/gpu_check.sh [BUILD] [PART...]         (default: build, every part in this order)
#     tests      operations and whole steps against the reference
#     steps      20 steps of the trainer as one CUDA graph, repeated, queued anew, through NCCL: the same bits; and --fusion prologue, block
#     speed      training steps, each --fusion, and PyTorch's (channels_last, autocast, compile)
#     profile    where the time of a step goes, to OUT.profile
#     autotune   training steps by engines that were timed first, which takes minutes
#     sanitizer  the tests under compute-sanitizer
#   tools/gpu_check.sh --bundle DIR [BUILD]      what that needs, in a folder for a machine without our build's libraries:
#                                                DIR/gpu_check.sh [PART...] there
# OUT (gpu_check.txt), LIMIT_S (540), TORCH_PYTHON (python3), TOOLKIT (/usr/local/cuda). What is run: NETS, "MODEL BATCH" a line;
# SIZE of its images; STEPS (20) that are timed; TRAIN, options of the trainer. Exit status: 0 nothing failed, 1 something did, 77 there is no GPU to use.
set -u
. "$(dirname "$0")/explain.sh"
here=$(cd "$(dirname "$0")" && pwd)
if [ -x "$here/trainer/satchel-trainer" ]; then # in a bundle
    build=$here
    torch_step=$here/torch_step.py
else
    cd "$here/.." || exit 1
    build=build
    torch_step=tools/bench/torch_step.py
fi
bundle=
if [ "${1:-}" = --bundle ]; then
    bundle=${2:?gpu_check.sh: --bundle wants a folder}
    shift 2
fi
case ${1:-} in
'' | tests | steps | speed | profile | autotune | sanitizer) ;;
*)
    build=$1
    shift
    ;;
esac
parts=${*:-tests steps speed profile autotune sanitizer}
for part in $parts; do
    case $part in
    tests | steps | speed | profile | autotune | sanitizer) ;;
    *)
        echo "gpu_check.sh: there is no part '$part' (tests, steps, speed, profile, autotune, sanitizer)" >&2
        exit 2
        ;;
    esac
done
[ -f "$build/trainer/satchel-cuda.so" ] || {
    echo "gpu_check.sh: '$build' has no CUDA module: build with the toolkit first (meson setup $build --buildtype=release)" >&2
    exit 1
}

if [ -n "$bundle" ]; then
    mkdir -p "$bundle/trainer" "$bundle/tests/cuda" "$bundle/tools" "$bundle/lib/cxx"
    cp "$build/trainer/satchel-trainer" "$build"/trainer/satchel-cuda.so "$bundle/trainer/" || exit 1
    cp "$build/trainer/satchel-nccl.so" "$bundle/trainer/" 2>/dev/null
    cp "$build/tests/cuda/cuda_device" "$bundle/tests/cuda/" || exit 1
    cp "$build/tools/satchel-bench-step" "$bundle/tools/" || exit 1
    cp tools/gpu_check.sh tools/explain.sh tools/bench/torch_step.py "$bundle/" || exit 1
    git rev-parse --short HEAD >"$bundle/revision" 2>/dev/null
    ldd "$bundle/trainer/satchel-trainer" "$bundle/tests/cuda/cuda_device" "$bundle/tools/satchel-bench-step" |
        sed -n 's/.* => \(\/[^ ]*\) .*/\1/p' | sort -u | while read -r library; do
        case ${library##*/} in
        libc.so* | libm.so* | libdl.so* | librt.so* | libpthread.so* | libresolv.so*) ;;         # the system's own
        libstdc++.so* | libgcc_s.so* | libgomp.so*) cp -L "$library" "$bundle/lib/cxx/" ;; # where there are none
        *) cp -L "$library" "$bundle/lib/" ;;
        esac
    done
    echo "$bundle: $(du -sm "$bundle" | cut -f 1) MB, to be run as $bundle/gpu_check.sh"
    exit 0
fi

out=${OUT:-gpu_check.txt}
python=${TORCH_PYTHON:-python3}
toolkit=${TOOLKIT:-/usr/local/cuda}
steps=${STEPS:-20}
begin=$(date +%s)
deadline=$((begin + ${LIMIT_S:-540}))
limit=0 # of the running check: a time of the clock
passed=0 failed=0 missing=0

left() { # left [MOST]: seconds that a command may take, at least 1
    seconds=$((deadline - $(date +%s)))
    [ "$seconds" -lt "${1:-$seconds}" ] || seconds=$1
    [ "$seconds" -gt 1 ] && echo "$seconds" || echo 1
}
tell() {
    echo "$*" | tee -a "$out"
}
not_run() { # not_run NAME WHY
    tell "not run $1: $2"
    missing=$((missing + 1))
}
check() { # check MOST NAME COMMAND...
    most=$1 name=$2
    shift 2
    if [ $((deadline - $(date +%s))) -lt 5 ]; then
        not_run "$name" "no time is left"
        return
    fi
    start=$(date +%s)
    limited "$(left "$most")" "$@" >"$out.log" 2>&1
    status=$?
    spent=$(($(date +%s) - start))
    case $status in
    0)
        tell "ok      $name ($spent s)"
        passed=$((passed + 1))
        ;;
    124) not_run "$name" "not done after $spent s" ;;
    *)
        tell "FAILED  $name (status $status, $spent s)"
        tail -12 "$out.log" | sed 's/^/        /' | tee -a "$out"
        failed=$((failed + 1))
        ;;
    esac
}
limited() { # limited SECONDS COMMAND...: 124 when it took longer. A function of this script limits its own commands
    seconds=$1
    shift
    if [ -x "$(command -v "$1")" ]; then
        timeout "$seconds" "$@"
    else
        limit=$(($(date +%s) + seconds)) "$@"
    fi
}

# --- the libraries: CUDA's from the toolkit or from where PyTorch has them, ours from the bundle ---
site=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])' 2>/dev/null)
path=
add_path() {
    case :$path: in
    *:"$1":*) ;;
    *) path=$path${path:+:}$1 ;;
    esac
}
absent=
if [ -z "${SATCHEL_MODULES:-}" ]; then
    for library in libcudart.so.13 libcublasLt.so.13 libcudnn.so.9 libnvrtc.so.13 libnccl.so.2; do
        found=
        for folder in "$toolkit/lib64" "$toolkit/targets/x86_64-linux/lib" "$site"/nvidia/*/lib; do
            [ -z "$found" ] && [ -e "$folder/$library" ] && found=$folder
        done
        if [ -n "$found" ]; then
            add_path "$found"
        elif ! /sbin/ldconfig -p 2>/dev/null | grep -q "$library"; then
            absent="$absent $library"
        fi
    done
fi
if [ -d "$build/lib" ]; then
    add_path "$build/lib"
    /sbin/ldconfig -p 2>/dev/null | grep -q libgomp.so.1 || add_path "$build/lib/cxx"
fi
ours() { # ours COMMAND...: one of our programs; the others keep their own libraries
    LD_LIBRARY_PATH=$path${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} "$@"
}

probe=$(ours "$build/trainer/satchel-trainer" --version 2>&1 | grep '^  cuda' || echo "  cuda: $(ours "$build/trainer/satchel-trainer" --version 2>&1 | tail -1)")
case $probe in
*"not here"* | *"error while loading"*)
    echo "gpu_check.sh: no device:$probe" >&2
    [ -z "$absent" ] || echo "gpu_check.sh: not found:$absent (under $toolkit, in Python's packages, by ldconfig)" >&2
    exit 77
    ;;
esac
: >"$out"
tell "satchel $(cat "$build/revision" 2>/dev/null || git rev-parse --short HEAD 2>/dev/null || echo '?'), $(date -u +%Y-%m-%d):$probe"
[ -z "$absent" ] || tell "not found:$absent"
command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,power.limit --format=csv,noheader 2>/dev/null | tee -a "$out"

device_test() { # device_test [COMMAND...]: under that command
    rest=$((limit - $(date +%s)))
    SATCHEL_MODULES=${SATCHEL_MODULES:-$build/trainer} ours timeout $((rest > 1 ? rest : 1)) "$@" "$build/tests/cuda/cuda_device" ${quick:+--quick}
}
quick=
part_tests() {
    check 200 "operations and whole steps against the reference" device_test
}

# --- 20 steps of the trainer: the same bits however they are run; near ones with other kernels ---
runs=$out.runs
train() { # train NAME [OPTION...]
    run=$1
    shift
    rm -rf "${runs:?}/$run"
    rest=$((limit - $(date +%s)))
    # shellcheck disable=SC2086
    ours timeout $((rest > 1 ? rest : 1)) "$build/trainer/satchel-trainer" --loaders synthetic --device cuda --precision fp16 ${TRAIN:---model resnet50d --size 64 --resize-short 64 \
        --total-batch 64 --micro-batch 32 --max-steps 20} --epochs 1 --lr 0.02 --out "$runs/$run" "$@"
}
same() { # same NAME NAME: their weights
    cmp "$runs/$1/last.safetensors" "$runs/$2/last.safetensors"
}
losses() { # losses NAME: of its steps
    sed -n 's/.*"event":"step".*"loss": *\([0-9.eE+-]*\).*/\1/p' "$runs/$1/metrics.jsonl"
}
near() { # near NAME NAME: the mean loss of their last five steps, within 3 %
    losses "$1" | tail -5 >"$runs/a" && losses "$2" | tail -5 | paste "$runs/a" - |
        awk '{ a += $1; b += $2 } END { print NR, a, b; exit(!(NR > 0 && a > 0 && b > 0 && a / b < 1.03 && b / a < 1.03)) }'
}
# Without fusion, as it is by default: with it the sums of a convolution differ in their last bits from run to run.
captured() { train captured && [ -n "$(losses captured)" ]; }
again() { train again && same captured again; }
queued() { train queued --cuda-graph no && same captured queued; }
nccl() { SATCHEL_NCCL=1 train nccl && same captured nccl; }
# At so small a rate that what their roundings differ by hardly grows in 20 steps.
calm() { [ -d "$runs/calm" ] || train calm --lr 0.002; }
prologue() { calm && train prologue --lr 0.002 --fusion prologue && near calm prologue; }
block() { calm && train block --lr 0.002 --fusion block && near calm block; }
part_steps() {
    mkdir -p "$runs"
    check 90 "training steps, captured as a CUDA graph" captured
    check 60 "the same bits in a second run" again
    check 60 "the same bits queued anew" queued
    if [ -f "$build/trainer/satchel-nccl.so" ]; then
        check 60 "the same bits through NCCL with one rank" nccl
    else
        not_run "the same bits through NCCL with one rank" "'$build' has no module for it"
    fi
    for fusion in prologue block; do
        check 60 "about the same losses with --fusion $fusion" "$fusion"
    done
    rm -rf "$runs"
}

# --- speed ---
bench() { # bench MOST MODEL BATCH [OPTION...]: images a second
    most=$1 model=$2 batch=$3
    shift 3
    # shellcheck disable=SC2086
    ours timeout "$(left "$most")" "$build/tools/satchel-bench-step" --device cuda --precision fp16 --model "$model" --batch "$batch" ${SIZE:+--size $SIZE} "$@" 2>"$out.log"
    status=$?
    [ $status -ne 124 ] || : >"$out.late"
    return $status
}
number() { # number KEY: from a JSON line on stdin
    tail -1 | sed -n "s/.*\"$1\": *\([0-9.eE+]*\).*/\1/p"
}
row() { # row MODEL BATCH NAME NUMBER
    if [ -n "$4" ]; then
        tell "$(printf '        %-12s %6s  %-34s %10s' "$1" "$2" "$3" "$4")"
        passed=$((passed + 1))
    elif [ $((deadline - $(date +%s))) -lt 5 ] || [ -e "$out.late" ]; then
        not_run "$1 $2, $3" "there was no time for it"
        rm -f "$out.late"
    else
        tell "FAILED  $1 $2, $3"
        tail -3 "$out.log" | sed 's/^/        /' | tee -a "$out"
        failed=$((failed + 1))
    fi
}
part_speed() {
    tell "$(printf '        %-12s %6s  %-34s %10s' model batch '' images/s)"
    torch=no
    "$python" -c 'import torch, timm; assert torch.cuda.is_available()' 2>/dev/null && torch=yes
    echo "${NETS:-resnet50d 256}" >"$out.nets"
    while read -r model batch <&3; do
        for fusion in none prologue block; do
            row "$model" "$batch" "--fusion $fusion" "$(bench 60 "$model" "$batch" --steps "$steps" --warmup 5 --fusion $fusion --json | number images_per_second)"
        done
        row "$model" "$batch" "--cuda-graph no" "$(bench 60 "$model" "$batch" --steps "$steps" --warmup 5 --cuda-graph no --json | number images_per_second)"
        if [ "$torch" = yes ]; then
            row "$model" "$batch" "PyTorch $("$python" -c 'import torch; print(torch.__version__)')" \
                "$(timeout "$(left 150)" "$python" "$torch_step" "$model" "$batch" "$steps" 2>"$out.log" | number images_per_second)"
        else
            not_run "PyTorch beside it" "'$python' has no torch with a GPU, or no timm"
        fi
    done 3<"$out.nets"
    rm -f "$out.nets"
}

first_net() { # sets model and batch
    echo "${NETS:-resnet50d 256}" | head -1 >"$out.nets"
    read -r model batch <"$out.nets"
    rm -f "$out.nets"
}
part_autotune() {
    first_net
    row "$model" "$batch" "--autotune" "$(bench 400 "$model" "$batch" --steps "$steps" --warmup 5 --autotune "$out.engines" --json | number images_per_second)"
}
part_profile() {
    first_net
    if bench 90 "$model" "$batch" --steps 5 --warmup 2 --profile >"$out.profile"; then
        tell "ok      a profile of $model, batch $batch: $out.profile"
        passed=$((passed + 1))
        head -20 "$out.profile" | sed 's/^/        /' | tee -a "$out"
    else
        row "$model" "$batch" "a profile" ""
    fi
}

part_sanitizer() {
    sanitizer=$(command -v compute-sanitizer || echo "$toolkit/bin/compute-sanitizer")
    for tool in memcheck racecheck synccheck; do
        if [ -x "$sanitizer" ]; then
            quick=yes
            check 170 "compute-sanitizer $tool" device_test "$sanitizer" --tool "$tool" --error-exitcode 1
        else
            not_run "compute-sanitizer $tool" "it is not here"
        fi
    done
}

for part in $parts; do
    tell "$part"
    "part_$part"
done
rm -f "$out.log" "$out.late"
tell "$passed ok, $failed failed, $missing not run; $(($(date +%s) - begin)) seconds"
[ "$failed" -eq 0 ]
