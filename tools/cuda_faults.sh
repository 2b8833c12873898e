#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Plants faults in the CUDA backend, one at a time, in a scratch copy of the tree, and runs the backend's tests on the
# double of a GPU: each fault must make one fail, and without a fault all must pass. Needs no GPU. Minutes; not part of CI.
#   tools/cuda_faults.sh [SCRATCH]
#   tools/cuda_faults.sh --check    only whether every fault still fits the sources; a moment
# Exit status 0 only when all are caught (or fit).
set -u
. "$(dirname "$0")/explain.sh"
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
    # shellcheck disable=SC2086
    build/tests/vgpu/vgpu_steps_test $net >"$log" 2>&1 && build/tests/vgpu/vgpu_backend_test >>"$log" 2>&1
}

net=resnet8d # and how it is fused; without: not, and --fusion prologue
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
fault "a missing stream event" input.c \
    'cudaStreamWaitEvent(input->backend->compute, input->copied[input->turn], 0)' 'cudaSuccess'
fault "a buffer reused too early" schedule_backward.c \
    'schedule_use(building, GRAPH_Y, blocks->y);' 'schedule_put(building, GRAPH_Y, PLACE_BLOCK, blocks->y);'
fault "gradient not zeroed" graph_ops.c 'spec->accumulate && !spec->masked && !spec->sums ? 1 : 0' '1'
fault "gradient zeroed between micro-batches" update.cu \
    'float4 sum = ((float4 *)args.dst)[i];' 'float4 sum = make_float4(0, 0, 0, 0);'
fault "scale not undone" captured.c 'float scale = (float)update->grad_scale;' 'float scale = 1;'
fault "decay on a gamma" state.c 'net_decayed(tensor, true)' 'net_decayed(tensor, tensor->kind != TENSOR_GAMMA)'
fault "running variance biased" schedule_backward.c 'count / (count - 1)' '1'
fault "bitmask of the wrong block" schedule_backward.c \
    'schedule_use(building, GRAPH_MASK, blocks->mask);' \
    'schedule_use(building, GRAPH_MASK, building->nodes[node->input].mask >= 0 ? building->nodes[node->input].mask : blocks->mask);'
fault "weights not recast after the update" update.cu \
    '*(uint2 *)(args.halves + at) = make_uint2(to_halves(w.x, w.y), to_halves(w.z, w.w));' ''
fault "what arrived overwritten before it was read" input.c \
    'return cuda_order(input->backend, input->backend->compute, input_cuda_stream(input));' 'return 0;'
fault "an engine that sums in fp16 taken" plan.c \
    'return note == CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION ||' 'return'
fault "sums and squares swapped" schedule_forward.c \
    'schedule_use(building, GRAPH_SUM, sum);
    schedule_use(building, GRAPH_SQUARES, squares);
    schedule_put' \
    'schedule_use(building, GRAPH_SUM, squares);
    schedule_use(building, GRAPH_SQUARES, sum);
    schedule_put'
fault "scale of the layer before" schedule_forward.c \
    'schedule_use(building, GRAPH_X, blocks->y);
    schedule_use(building, GRAPH_IN_SCALE, blocks->scale);
    schedule_use(building, GRAPH_IN_SHIFT, blocks->shift);
}

static void want' \
    'schedule_use(building, GRAPH_X, blocks->y);
    schedule_use(building, GRAPH_IN_SCALE, building->nodes[input - 1].scale >= 0 ? building->nodes[input - 1].scale : blocks->scale);
    schedule_use(building, GRAPH_IN_SHIFT, blocks->shift);
}

static void want'
fault "ReLU left out of the last block's backward" schedule_scheme.c \
    'spec.relu = node->relu && !spec.recompute && !blocks->masked;' \
    'spec.relu = node->relu && !spec.recompute && building->forms[index] == FORM_PLAIN;'
fault "mask by y instead of BN of y" graph_fused.c \
    'graph_relu_backward(graph, graph_out_map(graph, spec, GRAPH_DOUT), normed, dz);' \
    'graph_relu_backward(graph, graph_out_map(graph, spec, GRAPH_DOUT), y, dz);'
fault "filter's gradient by the map before BN" schedule_scheme.c \
    'schedule_spec(building, index, GRAPH_CONV_WEIGHT);
    spec.prologue = schedule_is_virtual(building, building->net->nodes[index].input);' \
    'schedule_spec(building, index, GRAPH_CONV_WEIGHT);'
fault "statistics over another count" program.c \
    '(int64_t)program->config.batch * net->nodes[i].out_height' \
    '(int64_t)(program->config.batch - 1) * net->nodes[i].out_height'
net="resnet50d-w16 block"
fault "coefficients of the backward swapped" schedule_backward.c \
    'schedule_use(building, roles->b, blocks->b);
    schedule_use(building, roles->c, blocks->c);
    blocks->dy' \
    'schedule_use(building, roles->b, blocks->c);
    schedule_use(building, roles->c, blocks->b);
    blocks->dy'
fault "a block's mask by another shift" schedule_backward.c \
    'schedule_put(building, roles->beta, PLACE_VALUES, node->beta);' \
    'schedule_put(building, roles->beta, PLACE_VALUES, node->gamma);'
fault "a block's end with the shortcut's scale" schedule_forward.c \
    'schedule_use(building, GRAPH_RES_SCALE, blocks->scale);
    schedule_use(building, GRAPH_RES_SHIFT, blocks->shift);' \
    'schedule_use(building, GRAPH_RES_SCALE, blocks->shift);
    schedule_use(building, GRAPH_RES_SHIFT, blocks->scale);'
[ -z "$check" ] || {
    echo "$caught of $planted fit"
    exit $((caught != planted))
}
echo "$caught of $planted caught"
[ "$#" -gt 0 ] || rm -rf "$scratch"
[ "$caught" -eq "$planted" ]
