#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# How the per-sample path scales: N threads of one process against N processes of one thread at once; medians of five, in turns.
#   tools/bench/threads.sh STORE.lmdb [BUILD_FOLDER]      a release build (default: build); N: the cores of this machine
set -eu
. "$(dirname "$0")/../explain.sh"
[ $# -ge 1 ] || { explain >&2; exit 2; }
store=$1
build=${2:-$(dirname "$0")/../../build}
threads=$(nproc)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# bench THREADS: its rate, images a second
bench() {
    "$build/tools/satchel-bench-loader" "$store" --threads "$1" --seconds 3 --mixup-alpha 0.2 --json 2>/dev/null |
        sed -n 's/.*"images_per_second": \([0-9.]*\).*/\1/p'
}

pass=0
while [ $pass -lt 5 ]; do
    pass=$((pass + 1))
    together=$(bench "$threads")
    i=0
    while [ $i -lt "$threads" ]; do
        i=$((i + 1))
        bench 1 >"$work/$i" &
    done
    wait
    cat "$work"/* | awk -v one="$together" '{ apart += $1 } END { print one / apart, one, apart }'
done | sort -n | tee /dev/stderr | sed -n 3p | awk -v n="$threads" '{ print n " threads / " n " processes: " $1 }'
