#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The oneDNN backend keeps its blocked layouts from end to end: as the library itself tells (DNNL_VERBOSE), a step reorders
# weights and their gradients, once for each convolution that reads or makes them, and never a map. Whatever begins with
# the batch (7, which no count of channels is) is a map. With AVX-512, 3 x 3 convolutions of many channels are done by Winograd's algorithm.
#   reorders.sh SATCHEL_BENCH_STEP [ISA]
set -eu
[ -z "${2-}" ] || export DNNL_MAX_CPU_ISA="$2"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
fail() {
    echo "reorders.sh: $1" >&2
    grep -m 5 "$2" "$log" >&2 || true
    exit 1
}
for what in resnet18d:64 resnet8b:32; do
    model=${what%:*} size=${what#*:}
    DNNL_VERBOSE=1 "$1" --backend dnnl --model $model --size $size --batch 7 --steps 1 --warmup 0 --threads 2 >"$log"
    convolutions=$(grep -c 'exec,cpu,convolution' "$log" || true)
    reorders=$(grep -c 'exec,cpu,reorder' "$log" || true)
    maps=$(grep -c 'exec,cpu,reorder.*,7x[0-9x]*,[0-9.e-]*$' "$log" || true)
    slow=$(grep -c 'exec,cpu,convolution,ref' "$log" || true)
    winograd=$(grep -c 'exec,cpu,convolution,jit_wino' "$log" || true)
    echo "$model: $convolutions convolutions, $reorders reorders of weights, $maps of maps, $slow slow convolutions, $winograd by Winograd"
    [ "$convolutions" -gt 20 ] || fail "$model: only $convolutions convolutions" .
    [ "$maps" -eq 0 ] || fail "$model: maps are reordered" 'exec,cpu,reorder.*,7x'
    [ "$reorders" -le "$convolutions" ] || fail "$model: more reorders than convolutions" 'exec,cpu,reorder'
    ! grep -q 'exec,cpu,convolution,jit:avx512_core' "$log" || [ "$winograd" -gt 0 ] || fail "$model: none by Winograd" 'exec,cpu,convolution'
    [ "$slow" -eq 0 ] || fail "$model: slow convolutions" 'exec,cpu,convolution,ref'
done
