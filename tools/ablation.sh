#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The ablation on CIFAR-10: seven recipes, each adding one refinement of the paper to the one before, three seeds each, through a loader
# and the wire. Prints a table with mean and spread; writes it, every run's accuracy and a figure into WORK.
#   tools/ablation.sh BUILD IMAGES WORK
# IMAGES: a folder with train/ and test/, ten class folders in each; or CIFAR-10's binary files (data_batch_1.bin ...).
# WORK keeps stores and runs: the same command again goes on where the last one stopped.
#   SEEDS ("0 1 2")   ROWS (all seven)   THREADS (0: all)   TEACHER (default: trained first by the recipe cifar10-teacher, in WORK/teacher)
#   TABLE=only   prints the table of the runs that are there
set -eu
. "$(dirname "$0")/explain.sh"
. "$(dirname "$0")/start_loader.sh"
[ $# -eq 3 ] || { explain >&2; exit 2; }
build=$(cd "$1" && pwd) images=$(cd "$2" && pwd)
mkdir -p "$3"
work=$(cd "$3" && pwd)
cd "$(dirname "$0")/.."
all="baseline efficient tweak-d cosine smoothing distill mixup"
rows=${ROWS:-$all} seeds=${SEEDS:-0 1 2} threads=${THREADS:-0}
trap stop_loader EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# pack PART FOLDER BINARIES OPTION...
pack() {
    local part=$1 folder=$2 binaries=$3
    shift 3
    [ ! -f "$work/$part.lmdb" ] || return 0
    local source=(folder "$images/$folder")
    # shellcheck disable=SC2206 # the names are a pattern
    [ -d "$images/$folder" ] || source=(cifar $images/$binaries)
    "$build/tools/satchel-pack" --source "${source[@]}" --split "$part" --out "$work/$part.lmdb" "$@" >"$work/pack.log" 2>&1 ||
        { cat "$work/pack.log" >&2; exit 1; }
}

# train RUN OPTION...: goes on with a run that was stopped, leaves alone one that is done
train() {
    local run=$work/$1
    shift
    ! grep -q '"event":"done"' "$run/metrics.jsonl" 2>/dev/null || return 0
    echo "$(date +%T) ${run#"$work"/}" >&2
    "$build/trainer/satchel-trainer" --loaders "ipc://$work/loader" --threads "$threads" --resume --out "$run" "$@" 2>>"$run.log" >/dev/null ||
        { status=$?; tail -n 3 "$run.log" >&2; exit "$status"; }
}

all_runs() {
    pack train train 'data_batch_[1-5].bin'
    pack val test 'test_batch.bin' --classes-of "$work/train.lmdb"
    start_loader "$build" "$work" --data "val=$work/val.lmdb"
    for seed in $seeds; do
        for row in $rows; do
            local teacher=()
            case $row in distill | mixup)
                [ "${TEACHER:-}" ] || { train teacher --recipe cifar10-teacher; TEACHER=$work/teacher/best.safetensors; }
                teacher=(--teacher "$TEACHER")
                ;;
            esac
            train "$row-$seed" --recipe "cifar10-$row" --seed "$seed" "${teacher[@]}"
        done
    done
}

# ROW SEED ACCURACY SECONDS, a line a run that is done
results() {
    local row metrics seed
    for row in $all; do
        for metrics in "$work/$row"-*/metrics.jsonl; do
            [ -f "$metrics" ] || continue
            seed=${metrics%/metrics.jsonl}
            awk -v row="$row" -v seed="${seed##*-}" '
                function number(key) { return match($0, "\"" key "\":[0-9.e+-]+") ? substr($0, RSTART + length(key) + 3, RLENGTH - length(key) - 3) : 0 }
                /"event":"epoch"/ { seconds += number("seconds") }
                /"event":"done"/ { print row, seed, number("top1"), seconds }' "$metrics"
        done
    done
}

# The figure: a dot a run, a bar at the mean of each row.
figure() {
    awk '
        BEGIN { name["baseline"] = "baseline"; name["efficient"] = "+ efficient training"; name["tweak-d"] = "+ ResNet-D"
                name["cosine"] = "+ cosine decay"; name["smoothing"] = "+ label smoothing"; name["distill"] = "+ distillation"; name["mixup"] = "+ mixup"
                low = 100; high = 0 }
        !($1 in count) { order[++rows] = $1 }
        { value[$1, ++count[$1]] = $3; sum[$1] += $3; if ($3 < low) low = $3; if ($3 > high) high = $3 }
        function x(v) { return 190 + (v - low) / (high - low) * 440 }
        END {
            low = int(low) - (low == int(low)); high = int(high) + 1; height = 34 * rows + 56
            printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"680\" height=\"%d\" font-family=\"sans-serif\" font-size=\"13\">\n", height
            printf "<rect width=\"680\" height=\"%d\" fill=\"#fff\"/>\n", height
            for (v = low; v <= high; v++) {
                printf "<line x1=\"%.1f\" y1=\"14\" x2=\"%.1f\" y2=\"%d\" stroke=\"#ddd\"/>", x(v), x(v), height - 38
                printf "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\" fill=\"#555\">%d</text>\n", x(v), height - 22, v }
            printf "<text x=\"410\" y=\"%d\" text-anchor=\"middle\" fill=\"#555\">top-1 accuracy on the 10,000 test images, %%</text>\n", height - 6
            for (r = 1; r <= rows; r++) {
                y = 34 * r - 4; k = order[r]; mean = sum[k] / count[k]
                printf "<text x=\"176\" y=\"%d\" text-anchor=\"end\" fill=\"#222\">%s</text>", y + 4, name[k]
                printf "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"#1f5fa8\" stroke-width=\"3\"/>", x(mean), y - 9, x(mean), y + 9
                for (i = 1; i <= count[k]; i++)
                    printf "<circle cx=\"%.1f\" cy=\"%d\" r=\"4\" fill=\"#1f5fa8\" fill-opacity=\"0.45\"/>", x(value[k, i]), y
                printf "\n" }
            print "</svg>" }' "$work/results"
}

table() {
    awk '
        BEGIN { print "| row | recipe | top-1, mean % | spread (least to most) | against the row above | minutes a run |"; print "|---|---|---|---|---|---|" }
        !($1 in count) { order[++rows] = $1; least[$1] = 100 }
        { count[$1]++; sum[$1] += $3; seconds[$1] += $4; if ($3 < least[$1]) least[$1] = $3; if ($3 > most[$1]) most[$1] = $3 }
        END {
            for (r = 1; r <= rows; r++) {
                k = order[r]; mean = sum[k] / count[k]
                printf "| %d | `cifar10-%s` | %.2f (%d seeds) | %.2f to %.2f | %s | %.1f |\n", r, k, mean, count[k], least[k], most[k],
                    (r > 1 ? sprintf("%+.2f", mean - before) : ""), seconds[k] / count[k] / 60
                before = mean } }' "$work/results"
}

[ "${TABLE:-}" = only ] || all_runs
results >"$work/results"
[ -s "$work/results" ] || { echo "ablation.sh: no run in $work is done" >&2; exit 1; }
figure >"$work/ablation.svg"
table | tee "$work/ablation.md"
