#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Plants fourteen faults in the CUDA backend, one at a time, in a scratch copy of the tree, and runs the backend's tests on the
# double of a GPU: each fault must make one fail, and without a fault all must pass. Needs no GPU. Minutes; not part of CI.
#   tools/cuda_faults.sh [SCRATCH]
#   tools/cuda_faults.sh --check    only whether every fault still fits the sources; a moment
# Exit status 0 only when all are caught (or fit).
set -u
cd "$(dirname "$0")/.." || exit 1
check=
[ "${1:-}" != --check ] || check=yes
if [ -z "$check" ]; then
    scratch=${1:-$(mktemp -d)}
    log=$scratch/log
    mkdir -p "$scratch/tree"
    git ls-files -z | xargs -0 cp --parents -t "$scratch/tree"
    cd "$scratch/tree" || exit 1
    [ -d build ] || meson setup build --buildtype=release -Dmpi=disabled >"$log" 2>&1 || {
        tail -20 "$log" >&2
        exit 1
    }
fi

# tests: 0 when the backend is built and right.
tests() {
    ninja -C build tests/vgpu/vgpu_backend_test tests/vgpu/vgpu_steps_test >"$log" 2>&1 || {
        tail -20 "$log" >&2
        echo "cuda_faults.sh: the build failed" >&2
        exit 1
    }
    export OMP_WAIT_POLICY=passive
    build/tests/vgpu/vgpu_steps_test resnet8d >"$log" 2>&1 && build/tests/vgpu/vgpu_backend_test >>"$log" 2>&1
}

caught=0 planted=0
# fault NAME FILE OLD NEW: OLD is in FILE exactly once.
fault() {
    planted=$((planted + 1))
    if [ -n "$check" ]; then
        if OLD=$3 perl -0777 -ne '$n += () = /\Q$ENV{OLD}\E/g; END { exit($n == 1 ? 0 : 1) }' "trainer/cuda/$2"; then
            caught=$((caught + 1))
        else
            echo "cuda_faults.sh: '$1' does not fit $2 any more" >&2
        fi
        return
    fi
    cp "trainer/cuda/$2" "$scratch/saved"
    OLD=$3 NEW=$4 perl -0777 -pi -e '$n += s/\Q$ENV{OLD}\E/$ENV{NEW}/g; END { exit($n == 1 ? 0 : 1) }' "trainer/cuda/$2" || {
        echo "cuda_faults.sh: '$1' does not fit $2 any more" >&2
        exit 1
    }
    if tests; then
        echo "MISSED  $1"
    else
        caught=$((caught + 1))
        echo "caught  $1: $(grep -m 1 -E '^vgpu: |differ|FAILED|Assertion|\(\)' "$log" | cut -c 1-110)"
    fi
    cp "$scratch/saved" "trainer/cuda/$2"
}

if [ -z "$check" ]; then
    tests || {
        tail -20 "$log" >&2
        echo "cuda_faults.sh: the tests fail without any fault" >&2
        exit 1
    }
    echo "passed  without a fault"
fi
fault "two tensors swapped" schedule_backward.c \
    'schedule_use(building, GRAPH_MEAN, blocks->mean);
        schedule_use(building, GRAPH_INVERSE, blocks->inverse);' \
    'schedule_use(building, GRAPH_MEAN, blocks->inverse);
        schedule_use(building, GRAPH_INVERSE, blocks->mean);'
fault "a stride off" graph_ops.c \
    'shape->channels * shape->width, shape->channels}' 'shape->channels * (shape->width + 1), shape->channels}'
fault "a pad off" graph_ops.c \
    'describe_set(d, made, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, pads);
    describe_set(d, made, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, pads);' \
    'const int64_t shift = spec->pad > 0, before[2] = {spec->pad + shift, spec->pad}, after[2] = {spec->pad - shift, spec->pad};
    describe_set(d, made, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, before);
    describe_set(d, made, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, after);'
fault "a missing stream event" pass.c \
    'error = cudaStreamWaitEvent(backend->compute, program->copied[turn], 0);' 'error = cudaSuccess;'
fault "a buffer reused too early" schedule_backward.c \
    'schedule_use(building, GRAPH_Y, blocks->y);' 'schedule_put(building, GRAPH_Y, PLACE_BLOCK, blocks->y);'
fault "gradient not zeroed" graph_ops.c 'spec->accumulate && !spec->masked && !spec->sums ? 1 : 0' '1'
fault "gradient zeroed between micro-batches" update.cu \
    'float4 sum = ((float4 *)args.dst)[i];' 'float4 sum = make_float4(0, 0, 0, 0);'
fault "scale not undone" state.c '.grad_scale = (float)update->grad_scale' '.grad_scale = 1'
fault "decay on a gamma" state.c 'net_decayed(tensor, true)' 'net_decayed(tensor, tensor->kind != TENSOR_GAMMA)'
fault "running variance biased" schedule_backward.c 'count / (count - 1)' '1'
fault "bitmask of the wrong block" schedule_backward.c \
    'schedule_use(building, GRAPH_MASK, blocks->mask);' \
    'schedule_use(building, GRAPH_MASK, building->nodes[node->input].mask >= 0 ? building->nodes[node->input].mask : blocks->mask);'
fault "weights not recast after the update" update.cu \
    '*(uint2 *)(args.halves + at) = make_uint2(to_halves(w.x, w.y), to_halves(w.z, w.w));' ''
fault "what arrived overwritten before it was read" pass.c \
    'error = cudaStreamWaitEvent(backend->copy, program->unpacked[turn], 0);' 'error = cudaSuccess;'
fault "an engine that sums in fp16 taken" plan.c \
    'return note == CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION ||' 'return'
[ -z "$check" ] || {
    echo "$caught of $planted fit"
    exit $((caught != planted))
}
echo "$caught of $planted caught"
[ "$#" -gt 0 ] || rm -rf "$scratch"
[ "$caught" -eq "$planted" ]
