#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# One model on several ranks, through a loader and the wire: the same bits on 1, 2, 4 and 8 ranks, over kills and
# resumes on other numbers of ranks; ranks that differ are refused; a rank that dies takes the job with it.
#   ranks.sh BUILD_DIRECTORY
#   KILLS   how many runs of 4 ranks lose one by kill -9, every other one its loader as well (default 2)
#   STEPS   of a run (default 50)
set -eu
. "$(dirname "$0")/job.sh"
kills=${KILLS:-2} steps=${STEPS:-50}
images=/usr/share/datasets/fashion-mnist
loader=

kill_loader() {
    kill -9 "$loader" 2>/dev/null || true
    wait "$loader" 2>/dev/null || true
}
leave() {
    [ -z "$loader" ] || kill_loader
    pkill -9 -f "$work/" 2>/dev/null || true
    rm -rf "$work"
}
trap leave EXIT

# The first N samples of Fashion-MNIST as a store: subset NAME PREFIX N
subset() {
    local size
    size=$(printf '\\x%02x\\x%02x' $(($3 / 256)) $(($3 % 256)))
    { printf "\0\0\x08\x03\0\0$size\0\0\0\x1c\0\0\0\x1c" && gunzip -c "$images/$2-images-idx3-ubyte.gz" | tail -c +17 |
        head -c $((784 * $3)); } >"$work/images" || true
    { printf "\0\0\x08\x01\0\0$size" && gunzip -c "$images/$2-labels-idx1-ubyte.gz" | tail -c +9 | head -c "$3"; } \
        >"$work/labels" || true
    "$build/tools/satchel-pack" --source idx "$work/images" "$work/labels" --split "$1" --out "$work/$1.lmdb" \
        >"$work/pack.log" 2>&1 || fail "packing $1"
}

start_loader() { # NAME TRAIN_STORE
    rm -f "$work/$1.ready"
    "$build/loader/satchel-loader" --data "train=$work/$2.lmdb" --data "val=$work/val.lmdb" --workers 1 \
        --bind "ipc://$work/$1.sock" --ready-file "$work/$1.ready" 2>>"$work/loader.log" &
    loader=$!
    await 60 test -s "$work/$1.ready" || fail "the loader does not start"
}

cat >"$work/small.ini" <<EOF
model = resnet18d-w8
size = 28
resize-short = 28
total-batch = 64
micro-batch = 8
epochs = 10
lr = 0.05
warmup-epochs = 1
schedule = cosine
no-bias-decay = true
mixup-alpha = 0.2
label-smoothing = 0.1
augment = crop
EOF
trainer=("$build/trainer/satchel-trainer" --loaders "ipc://$work/loader.sock" --recipe "$work/small.ini" --threads 1
    --check-ranks 10 --max-steps "$steps")
lines_of() { # metrics without what differs from run to run
    sed -E 's/,"(images_per_second|wait_share|seconds)":[^,}]*//g' "$work/$1/metrics.jsonl"
}
assert_quiet() {
    [ "$(hash_of "$1")" = "$(hash_of quiet)" ] || fail "$1: the weights are not the quiet run's"
    [ "$(lines_of "$1")" = "$(lines_of quiet)" ] || fail "$1: the metrics are not the quiet run's"
}
no_process() { ! pgrep -f -- "--out $work/$1" >/dev/null; }

subset train train 1000
subset other train 998
subset val t10k 203
start_loader loader train

"${trainer[@]}" --out "$work/quiet" >"$work/quiet.log" 2>&1 || fail "one process"
for ranks in 2 4 8; do
    train $ranks "ranks$ranks" || fail "$ranks ranks"
    assert_quiet "ranks$ranks"
done
say "1, 2, 4 and 8 ranks: equal weights, receipts and evaluations after $steps steps"
grep 'hidden behind' "$work/ranks4.log" | tail -n 1

# stop RANKS STEPS: a run that SIGUSR1 stops behind so many steps.
stop_at() {
    mpirun -n "$1" "${trainer[@]}" --out "$work/moved" --resume >>"$work/moved.log" 2>&1 &
    local job=$! status=0
    await 120 steps_done moved "$2" || fail "no $2 steps"
    kill -USR1 $job
    wait $job || status=$?
    [ $status = 3 ] || fail "SIGUSR1: exit status $status"
}
stop_at 4 $((steps / 4))
stop_at 2 $((steps / 2))
train 1 moved --resume || fail "resume on one rank"
assert_quiet moved
say "stopped on 4 ranks, resumed on 2, then on 1: as the quiet run"

worst=0
for i in $(seq "$kills"); do
    run=killed$i
    mpirun -n 4 "${trainer[@]}" --out "$work/$run" --save-every 3 >>"$work/$run.log" 2>&1 &
    job=$! status=0
    await 120 steps_done $run $((RANDOM % (steps - 10) + 1)) || fail "$run: no steps"
    mapfile -t pids < <(pgrep -f -- "satchel-trainer .*--out $work/$run" | grep -vx $job)
    [ $((i % 2)) = 1 ] || kill_loader
    begin=$SECONDS
    kill -9 "${pids[$((RANDOM % ${#pids[@]}))]}" || fail "$run: ended too early"
    wait $job || status=$?
    [ $status != 0 ] || fail "$run: exit status 0"
    await 30 no_process $run || fail "$run: orphans 30 s after the kill"
    seconds=$((SECONDS - begin))
    [ $seconds -le "$worst" ] || worst=$seconds
    [ $seconds -le 30 ] || fail "$run: took $seconds s to end"
    grep -q 'signal 9 (Killed)' "$work/$run.log" || fail "$run: the cause is not named"
    [ $((i % 2)) = 1 ] || start_loader loader train
    train 2 $run --resume || fail "$run: resume"
    assert_quiet $run
done
say "$kills runs lost a rank to kill -9: each job ended in at most $worst s with the cause named, and resumed as quiet"

# refused TIMES TEXT MPIRUN_ARGUMENT...: ends by itself; each rank that has a reason says it once.
refused() {
    local times=$1 text=$2 status=0
    shift 2
    timeout 60 mpirun "$@" >"$work/refused.log" 2>&1 || status=$?
    [ $status != 0 ] && [ $status != 124 ] || fail "not refused: $text (status $status)"
    [ "$(grep -c -- "error: .*$text" "$work/refused.log")" = "$times" ] || fail "not said $times times: $text"
}
all=("${trainer[@]}" --out "$work/refused")
refused 1 "'lr = 0.07' here, 'lr = 0.05' there" -n 2 "${all[@]}" : -n 1 "${all[@]}" --lr 0.07
refused 1 "'check-ranks = 7' here, 'check-ranks = 10' there" -n 1 "${all[@]}" : -n 1 "${all[@]}" --check-ranks 7
refused 3 'total-batch 64 is not divisible by 3 ranks' -n 1 "${all[@]}" : -n 2 "${all[@]}"
first=$loader
start_loader other other
refused 1 "'the loaders' store train = " -n 1 "${all[@]}" : -n 1 "${all[@]}" --loaders "ipc://$work/other.sock"
kill_loader
loader=$first
await 30 no_process refused || fail "refused ranks are still there"
say "ranks with another recipe, a batch that cannot be shared, another dataset: refused"

# All ranks find out together and end in order: none kills rank 0 while it saves.
status=0
train 2 lost --lr 1e6 --warmup-epochs 0 --save-every 1 || status=$?
[ $status = 1 ] && grep -q 'error: the loss or a gradient is not finite' "$work/lost.log" || fail "a lost run: status $status"
! grep -q MPI_ABORT "$work/lost.log" || fail "a lost run: ranks were killed"
say "a loss that is not finite: both ranks ended in order"
say "all is well"
