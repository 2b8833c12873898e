#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Compiles the CUDA kernels for every chip that the build is for, warnings being errors, and lists what each needs: registers,
# stack, spills. Exit status 1 when one spills. Needs nvcc, no GPU.
#   tools/kernel_registers.sh [NVCC]
set -eu
. "$(dirname "$0")/explain.sh"
cd "$(dirname "$0")/.."
nvcc=${1:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
[ -x "$nvcc" ] || {
    echo "kernel_registers.sh: no nvcc at '$nvcc'" >&2
    exit 77
}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
chips="80 90 100"
codes=
for chip in $chips; do
    codes="$codes -gencode arch=compute_$chip,code=sm_$chip"
done
for kernel in trainer/cuda/*.cu; do
    # shellcheck disable=SC2086 # a list of words
    if ! "$nvcc" -std=c++17 -O3 -Werror all-warnings -Xptxas -v $codes -I. -c "$kernel" -o "$scratch/kernel.o" \
        2>"$scratch/log"; then
        cat "$scratch/log" >&2
        exit 1
    fi
    cat "$scratch/log" >>"$scratch/all"
done
if command -v c++filt >/dev/null; then
    c++filt <"$scratch/all" >"$scratch/named"
else
    cp "$scratch/all" "$scratch/named"
fi
# shellcheck disable=SC2016 # awk's own variables
awk '
    /Compiling entry function/ { split($0, part, "\047"); name = part[2]; chip = part[4]; sub(/\(.*/, "", name) }
    /bytes stack frame/ { stack = $1; spills = $5 + $9 }
    /Used [0-9]+ registers/ {
        for (i = 1; i < NF; i++) if ($i == "Used") registers = $(i + 1)
        printf "%-14s %-7s %3d registers, %3d bytes of stack, %d bytes spilled\n", name, chip, registers, stack, spills
        kernels++
        bad += spills > 0
    }
    END { printf "%d kernels, %d spill\n", kernels, bad; exit !(kernels > 0 && bad == 0) }
' "$scratch/named" >"$scratch/table" || status=1
sort "$scratch/table" | grep registers
tail -1 "$scratch/table"
exit "${status:-0}"
