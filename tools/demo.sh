#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The whole path on real images with one command: installs what is missing from Debian, builds, packs Fashion-MNIST,
# starts two loaders on loopback, trains, prints the validation accuracy and writes a report. Everything it makes is under ./demo/.
#   tools/demo.sh
#   SEED   seed of the run (default 0); equal seeds give equal accuracy to the last digit
set -eu
. "$(dirname "$0")/explain.sh"
cd "$(dirname "$0")/.."
demo=$PWD/demo
images=/usr/share/datasets/fashion-mnist
say() { printf '\n== %s\n' "$*"; }

say "1. Dependencies (Debian packages)"
tools/deps.sh
echo "all there"

say "2. Build (release) in demo/build"
mkdir -p "$demo"
[ -d "$demo/build" ] || meson setup "$demo/build" . --buildtype=release -Dtests=false >"$demo/setup.log" ||
    { cat "$demo/setup.log" >&2; exit 1; }
ninja --quiet -C "$demo/build"
bin=$demo/build

say "3. Pack Fashion-MNIST: 60,000 training and 10,000 validation images"
pack() {
    [ -f "$demo/$1.lmdb" ] || "$bin/tools/satchel-pack" --source idx "$images/$2-images-idx3-ubyte.gz" \
        "$images/$2-labels-idx1-ubyte.gz" --class-names recipes/fashion-mnist.names --split "$1" --out "$demo/$1.lmdb"
    echo "$demo/$1.lmdb"
}
pack train train
pack val t10k

say "4. Two loaders on loopback"
loaders=
stop_loaders() {
    for pid in $loaders; do kill "$pid" 2>/dev/null || true; done
    for pid in $loaders; do wait "$pid" 2>/dev/null || true; done
    loaders=
}
trap stop_loaders EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
endpoints=
for n in 1 2; do
    log=$demo/loader$n.log
    : >"$log"
    "$bin/loader/satchel-loader" --data "train=$demo/train.lmdb" --data "val=$demo/val.lmdb" \
        --bind 'tcp://127.0.0.1:*' --workers 1 2>"$log" &
    pid=$!
    loaders="$loaders $pid"
    until endpoint=$(sed -n 's/.*listening on \(tcp:[^ ]*\).*/\1/p' "$log") && [ -n "$endpoint" ]; do
        kill -0 "$pid" 2>/dev/null || { cat "$log" >&2; exit 1; }
        sleep 0.1
    done
    echo "loader $n: $endpoint (log: $log)"
    endpoints=${endpoints:+$endpoints,}$endpoint
done

say "5. Train"
n=1
while [ -e "$demo/run$n" ]; do n=$((n + 1)); done
run=$demo/run$n
"$bin/trainer/satchel-trainer" --loaders "$endpoints" --recipe recipes/fashion-mnist.ini --seed "${SEED:-0}" --out "$run"
stop_loaders

say "6. Result"
awk -F'"top1":' '/"event": *"done"/ {split($2, v, /[,}]/); printf "validation top-1: %s %%\n", v[1]}' "$run/metrics.jsonl"
"$bin/tools/satchel-report" "$run" --data "$demo/val.lmdb" --title "Fashion-MNIST, run $n" --out "$run/report.html" >/dev/null
echo "the run: $run"
echo "the report: $run/report.html (open it in a browser; it needs no network)"
