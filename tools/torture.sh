#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The long forms of tests/fault: real loaders that are killed, stopped, slowed, paused, poisoned or altered, a
# slow link, and what the wire costs. Prints one row a test: | test | result | goal | ok or NOT |.
#   tools/torture.sh --store FILE.lmdb [--build DIR] [--seconds N] [ROW...]
# ROWs: kill stop slow link pause poison identity wire split trainers; of unwanted peers (tools/torture_peers.sh) idle churn
# requests flood specs deaf mute lies drip. Default: all. --seconds: of kill and link (300).
# slow, wire, split, trainers, requests, flood, specs and deaf compare rates: run them on an otherwise idle machine of two cores or more.
# Exit status 0 only when every goal was met.
set -u
. "$(dirname "$0")/explain.sh"
[ $# -gt 0 ] || { explain >&2; exit 2; }
cd "$(dirname "$0")/.." || exit 1
build=build store='' seconds=300 rows=''
while [ $# -gt 0 ]; do
    case $1 in
    --build) build=$2; shift 2 ;;
    --store) store=$2; shift 2 ;;
    --seconds) seconds=$2; shift 2 ;;
    -*) echo "torture.sh: no option $1 (see --help)" >&2; exit 2 ;;
    *) rows="$rows $1"; shift ;;
    esac
done
rows=${rows:-kill stop slow link pause poison identity wire split trainers idle churn requests flood specs deaf mute lies drip}
[ -n "$store" ] || { echo "torture.sh: --store FILE.lmdb is missing (see --help)" >&2; exit 2; }
store=$(readlink -f "$store")
loader=$build/loader/satchel-loader faulty=$build/tests/fault/faulty-loader
feed=$build/tools/satchel-bench-feed
dir=$(mktemp -d /tmp/satchel-torture-XXXXXX)
failed=0
declare -A pids
cleanup() {
    for pid in "${pids[@]}"; do kill -CONT "$pid" 2>/dev/null; kill -9 "$pid" 2>/dev/null; done
    wait 2>/dev/null
    rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# row NAME RESULT GOAL CONDITION: the condition is an awk expression.
row() {
    local ok=NOT
    if awk "BEGIN { exit !($4) }"; then ok=ok; else failed=1; fi
    echo "| $1 | $2 | $3 | $ok |"
}

# ---- the pool ----

endpoint() { echo "ipc://$dir/l$1"; }
endpoints() { # ID...
    local list='' id
    for id in "$@"; do list="$list,$(endpoint "$id")"; done
    echo "${list#,}"
}
start() { # ID [VARIABLE=VALUE...]: starts it and returns at once
    local id=$1 program=$loader
    shift
    [ $# -eq 0 ] || program=$faulty
    rm -f "$dir/ready$id"
    env "$@" "$program" --data "train=$store" --bind "$(endpoint "$id")" --workers 1 --ready-file "$dir/ready$id" \
        2>>"$dir/log$id" &
    pids[$id]=$!
}
ready() { # ID...
    local id
    for id in "$@"; do
        until [ -e "$dir/ready$id" ]; do
            kill -0 "${pids[$id]}" 2>/dev/null || { echo "torture.sh: loader $id ended:" >&2; tail -3 "$dir/log$id" >&2; exit 1; }
            sleep 0.05
        done
    done
}
stop() { # ID...
    local id
    for id in "$@"; do
        kill -CONT "${pids[$id]}" 2>/dev/null
        kill "${pids[$id]}" 2>/dev/null
        wait "${pids[$id]}" 2>/dev/null
        unset "pids[$id]"
    done
}
pool() {
    local id
    for id in "$@"; do start "$id"; done
    ready "$@"
}
pull() { # NAME OPTION...: to $dir/NAME.out and .err; returns when done
    local name=$1
    shift
    "$feed" --mixup-alpha 0.2 --json "$@" >"$dir/$name.out" 2>"$dir/$name.err"
}
value() { # NAME KEY: of the JSON line
    sed -n '$p' "$dir/$1.out" | sed "s/.*\"$2\": \([0-9.]*\).*/\1/"
}
receipts() { sed -n 's/^epoch \([0-9]*\): receipt \([0-9a-f]*\).*/\1 \2/p' "$dir/$1.out"; }
ratio() { awk "BEGIN { printf \"%.3f\", $1 / $2 }"; }

# The receipts of a quiet pool agree with those of a run; "equal" or "DIFFERENT", and how many.
compare() { # NAME
    local epochs
    epochs=$(receipts "$1" | wc -l)
    pool quiet
    pull quiet --loaders "$(endpoint quiet)" --epochs "$epochs"
    stop quiet
    receipts "$1" >"$dir/a"
    receipts quiet >"$dir/b"
    if [ "$epochs" -gt 0 ] && cmp -s "$dir/a" "$dir/b"; then echo "$epochs receipts equal"; else echo "receipts DIFFERENT"; fi
}
equal() { case $1 in *equal) echo 1 ;; *) echo 0 ;; esac; }

# ---- rows ----

row_kill() {
    pool 0 1 2 3
    pull kill --loaders "$(endpoints 0 1 2 3)" --seconds "$seconds" &
    local run=$! kills=0
    while sleep 2; kill -0 $run 2>/dev/null; do
        local i=$((RANDOM % 4))
        kill -9 "${pids[$i]}" && kills=$((kills + 1))
        wait "${pids[$i]}" 2>/dev/null
        start "$i"
    done
    wait $run
    stop 0 1 2 3
    local same
    same=$(compare kill)
    row "4 loaders, kill -9 one every 2 s for $seconds s" \
        "$kills kills; $same; $(value kill images_per_second) images/s, $(value kill reasked) asked again, $(value kill duplicates) duplicates dropped, longest wait $(value kill longest_wait_seconds) s" \
        "receipts equal those of the quiet run" "$(equal "$same")"
}

STOPS=${STOPS:-50} AT_ONCE=${AT_ONCE:-1} # of row stop

stopped_count() { find "$dir" -name 'stopped*' | wc -l; }

row_stop() {
    pool 0 1 2 3
    pull stop --loaders "$(endpoints 0 1 2 3)" --seconds 100000 &
    local run=$! i
    # Each stop has its own sleeper; at least one loader always runs.
    for n in $(seq "$STOPS"); do
        until i=$((RANDOM % 4)); [ ! -e "$dir/stopped$i" ] && [ "$(stopped_count)" -lt "$AT_ONCE" ]; do sleep 0.1; done
        touch "$dir/stopped$i"
        (kill -STOP "${pids[$i]}"; sleep $((5 + RANDOM % 26)); kill -CONT "${pids[$i]}"; rm "$dir/stopped$i") &
        sleep 2
    done
    while ls "$dir"/stopped* >/dev/null 2>&1; do sleep 0.2; done
    kill $(pgrep -P $run -f bench-feed) 2>/dev/null
    wait $run
    stop 0 1 2 3
    local same wait
    same=$(compare stop)
    wait=$(sed -n 's/.*longest wait \([0-9.]*\) s.*/\1/p' "$dir/stop.out")
    row "$STOPS x SIGSTOP for 5 to 30 s, then SIGCONT, $AT_ONCE of 4 at a time" \
        "$same; longest wait $wait s" "equal; taken over within 2 x the deadline (3 s)" "$(equal "$same") && $wait <= 6"
}

row_slow() {
    local without with
    for i in 0 1 2 slow; do if [ $i = slow ]; then start slow FAULT_SLOW=20; else start $i; fi; done
    ready 0 1 2 slow
    for i in 0 1 2 slow; do taskset -apc 0 "${pids[$i]}" >/dev/null; done
    taskset -c 1 "$feed" --mixup-alpha 0.2 --json --loaders "$(endpoints 0 1 2)" --seconds 20 >"$dir/w.out" 2>/dev/null
    taskset -c 1 "$feed" --mixup-alpha 0.2 --json --loaders "$(endpoints 0 1 2 slow)" --seconds 20 >"$dir/v.out" 2>/dev/null
    stop 0 1 2 slow
    without=$(value w images_per_second) with=$(value v images_per_second)
    row "one loader of 4 slowed 20 x (all on one core, the feed on another)" \
        "$with images/s with it, $without without: $(ratio "$with" "$without")" ">= 0.95" "$with / $without >= 0.95"
}

counted() { tr '\r' '\n' <"$dir/link.err" | sed -n "s/.* \([0-9]*\) $1.*/\1/p" | tail -1; }

# Two loaders behind one link of 10 Mbit/s. Where the kernel has netem, it is a pair of network namespaces; else the
# namespaces' link is limited by tbf and slow-link delays.
row_link() {
    local a=sat-a-$$ b=sat-b-$$ how delay='' run
    ip netns add $a && ip netns add $b || { echo "| slow link | not run: no right to make network namespaces | | NOT |"; failed=1; return; }
    ip link add name va-$$ netns $a type veth peer name vb-$$ netns $b
    ip -n $a addr add 10.99.0.1/24 dev va-$$; ip -n $b addr add 10.99.0.2/24 dev vb-$$
    for n in $a $b; do ip -n $n link set lo up; done
    ip -n $a link set va-$$ up; ip -n $b link set vb-$$ up
    if tc -n $b qdisc add dev vb-$$ root netem delay 50ms rate 10mbit 2>/dev/null; then
        tc -n $a qdisc add dev va-$$ root netem delay 50ms rate 10mbit
        how=netem
    else
        tc -n $b qdisc add dev vb-$$ root tbf rate 10mbit burst 16kb latency 200ms
        tc -n $a qdisc add dev va-$$ root tbf rate 10mbit burst 16kb latency 200ms
        how="tbf, delayed by a relay"
        delay=1
    fi
    local list=''
    for i in 0 1; do
        rm -f "$dir/ready$i"
        ip netns exec $b "$loader" --data "train=$store" --bind "tcp://*:700$i" --insecure --workers 1 --ready-file "$dir/ready$i" 2>>"$dir/log$i" &
        pids[$i]=$!
        if [ -n "$delay" ]; then
            ip netns exec $b "$build/tests/fault/slow-link" 710$i 127.0.0.1 700$i 50 0 &
            pids[relay$i]=$!
        fi
        list="$list,tcp://10.99.0.2:7${delay:-0}0$i"
    done
    ready 0 1
    ip netns exec $a "$feed" --mixup-alpha 0.2 --loaders "${list#,}" --total-batch 64 --prefetch-mib 32 >"$dir/link.out" 2>"$dir/link.err" &
    run=$!
    sleep 60
    local early late lost images
    early=$(counted "asked again")
    sleep $((seconds > 60 ? seconds - 60 : 0))
    late=$(($(counted "asked again") - early)) lost=$(counted "connections lost")
    images=$(tr '\r' '\n' <"$dir/link.err" | sed -n 's/.*pulling[^0-9]*\([0-9][0-9,]*\).*/\1/p' | tail -1)
    kill $run
    wait $run
    for i in 0 1 relay0 relay1; do [ -z "${pids[$i]:-}" ] || { kill "${pids[$i]}"; wait "${pids[$i]}" 2>/dev/null; unset "pids[$i]"; }; done
    ip netns del $a; ip netns del $b
    row "10 Mbit/s with 50 ms each way, $seconds s ($how)" \
        "$lost connections lost, $late asked again after the first minute ($early in it), $images images came" \
        "0 and 0" "$lost == 0 && $late == 0"
}

anon_mib() { awk '/^RssAnon/ { printf "%.1f", $2 / 1024 }' "/proc/$1/status"; }
own_mib() { awk '/^RssAnon|^RssShmem/ { kib += $2 } END { printf "%.1f", kib / 1024 }' "/proc/$1/status"; } # of a loader: chunks are in shared memory

row_pause() {
    pool 0
    pull pause --loaders "$(endpoint 0)" --seconds 200 &
    local run=$! pid budget most=0 now
    until pid=$(pgrep -P $run -f bench-feed) && grep -q '^epoch 1' "$dir/pause.out"; do sleep 0.2; done
    kill -STOP "$pid"
    for n in $(seq 60); do now=$(own_mib "${pids[0]}"); most=$(awk "BEGIN { print ($now > $most) ? $now : $most }"); sleep 1; done
    kill -CONT "$pid"
    budget=$(sed -n 's/.*memory: about \([0-9.]*\) MiB with.*/\1/p' "$dir/log0" | tail -1)
    row "trainer paused for 60 s at full credit: the loader's memory" "$most MiB of $budget MiB" "<= budget + 5 %" "$most <= 1.05 * $budget"
    sleep 3
    kill -STOP "${pids[0]}"
    most=0
    for n in $(seq 60); do now=$(anon_mib "$pid"); most=$(awk "BEGIN { print ($now > $most) ? $now : $most }"); sleep 1; done
    kill -CONT "${pids[0]}"
    budget=$(sed -n 's/.*the feed takes at most \([0-9]*\) MiB.*/\1/p' "$dir/pause.err" | tail -1)
    row "loader paused for 60 s: the trainer's memory" "$most MiB of $budget MiB" "<= budget + 5 %" "$most <= 1.05 * $budget"
    kill "$pid"
    wait $run
    stop 0
}

# A record whose decoding ends the process; loaders are started again whenever one died.
row_poison() {
    local id=17 deaths=0 run
    for i in 0 1 2 3; do start $i FAULT_KILL=$id; done
    ready 0 1 2 3
    pull poison --loaders "$(endpoints 0 1 2 3)" --epochs 3 &
    run=$!
    while kill -0 $run 2>/dev/null; do
        for i in 0 1 2 3; do
            kill -0 "${pids[$i]}" 2>/dev/null || { wait "${pids[$i]}" 2>/dev/null; deaths=$((deaths + 1)); start $i FAULT_KILL=$id; }
        done
        sleep 0.2
    done
    wait $run
    local status=$? named same
    stop 0 1 2 3
    named=$(grep -c "record $id (class .*) ends the process" "$dir/poison.err")
    start quiet FAULT_DAMAGED=$id
    ready quiet
    pull quiet --loaders "$(endpoint quiet)" --epochs 3
    stop quiet
    same=0
    [ "$(receipts poison)" = "$(receipts quiet)" ] && [ -n "$(receipts poison)" ] && same=1
    row "poison record $id, 3 epochs" "$deaths loaders died, status $status, named $named time(s), receipts as with a damaged record: $same" \
        "<= 3 deaths, completed, named" "$deaths <= 3 && $status == 0 && $named >= 1 && $same"
}

row_identity() {
    local n=0
    SATCHEL_LOADER=$faulty "$build/tests/fault/test_faulty" >"$dir/faulty" 2>&1 && n=$((n + 1))
    SATCHEL_LOADER=$loader "$build/tests/fault/test_loaders" >"$dir/loaders" 2>&1 && n=$((n + 1))
    grep -h -o 'its store train is another one\|its decoders make other pixels\|it makes other bytes' "$dir/faulty" "$dir/loaders" | sort | uniq -c | sed 's/^ */    /' >&2
    row "a modified store, a decoder that differs in one bit" "$n of 2 test programs passed" "refused at Hello with the reason" "$n == 2"
}

cpu_ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }

# bare MODE ENDPOINT: messages of the size of a chunk that nothing is made of; "IMAGES/S US_SENDER US_RECEIVER", the last two an image.
bare() {
    "$build/tests/fault/bare-wire" "$1" "$2" "$chunk" "$WIRE_SECONDS" | awk "{ printf \"%.0f %.1f %.1f\", \$1 * $images, \$3 / $images, \$6 / $images }"
}

WIRE_SECONDS=${WIRE_SECONDS:-10} # of row wire: each of its measurements

# Chunks that are not made against a ROUTER and a DEALER, and a plain socket, that move messages of the same size: tcp,
# ipc (where pixels are in shared memory), and ipc with all of it through the socket, for which there is no goal.
row_wire() {
    local chunk=2408448 images=8 hz kind
    hz=$(getconf CLK_TCK)
    for kind in tcp ipc socket; do
        local at="ipc://$dir/l0" bare_at="ipc://$dir/bare$kind" raw_at="ipc://$dir/raw$kind" share=true goal=0.9
        case $kind in
        tcp) at='tcp://127.0.0.1:*' bare_at="tcp://127.0.0.1:$((20000 + RANDOM % 20000))" raw_at="tcp://127.0.0.1:$((40000 + RANDOM % 20000))" ;;
        socket) share=false goal=0 ;;
        esac
        local bare raw before after
        bare=$(bare zmq "$bare_at")
        raw=$(bare raw "$raw_at")
        rm -f "$dir/ready0"
        FAULT_READY=1 "$faulty" --data "train=$store" --bind "$at" --workers 1 --shared-memory=$share --ready-file "$dir/ready0" 2>>"$dir/log0" &
        pids[0]=$!
        ready 0
        before=$(cpu_ticks "${pids[0]}")
        pull wire --loaders "$(cat "$dir/ready0")" --seconds "$WIRE_SECONDS" --prefetch-mib 64
        after=$(cpu_ticks "${pids[0]}")
        stop 0
        local ours total loader_us bare_rate raw_rate
        ours=$(value wire images_per_second)
        total=$(sed -n 's/^epoch .*, \([0-9]*\) images,.*/\1/p' "$dir/wire.out" | awk '{ s += $1 } END { print s }')
        loader_us=$(awk "BEGIN { printf \"%.1f\", ($after - $before) / $hz * 1e6 / $total }")
        bare_rate=${bare%% *} raw_rate=${raw%% *}
        row "wire alone, $kind" \
            "$ours images/s; bare $bare_rate ($(ratio "$ours" "$bare_rate")), raw socket $raw_rate ($(ratio "$ours" "$raw_rate")); CPU an image, sender and receiver: $loader_us and $(value wire cpu_us_per_image) us; bare ${bare#* } us, raw ${raw#* } us" \
            ">= $goal of bare" "$ours / $bare_rate >= $goal"
    done
}

# One thread of satchel-bench-loader on core 0: images a second of processor time.
alone() {
    taskset -c 0 "$build/tools/satchel-bench-loader" "$store" --threads 1 --seconds "$SPLIT_SECONDS" --mixup-alpha 0.2 --json 2>/dev/null |
        sed -n '$s/.*"images_per_cpu_second": *\([0-9.]*\).*/\1/p'
}

SPLIT_SECONDS=${SPLIT_SECONDS:-15} # of row split: each of its three measurements

# Time in which the worker was ready and other programs had its core is nobody's fault and left out: what counts is the
# worker's time on the core, and its time without work. The kernel counts both for each thread (schedstat).
row_split() {
    local before after alone0 alone1 task worker=''
    alone0=$(alone)
    pool 0
    for task in /proc/"${pids[0]}"/task/*; do
        if grep -q '^worker' "$task/comm"; then worker=$task; taskset -pc 0 "${task##*/}" >/dev/null; else taskset -pc 1 "${task##*/}" >/dev/null; fi
    done
    pull warm --loaders "$(endpoint 0)" --seconds 1
    before="$(cat "$worker/schedstat") $(date +%s%N)"
    taskset -c 1 "$feed" --mixup-alpha 0.2 --json --loaders "$(endpoint 0)" --seconds "$SPLIT_SECONDS" >"$dir/split.out" 2>/dev/null
    after="$(cat "$worker/schedstat") $(date +%s%N)"
    stop 0
    alone1=$(alone)
    local images served mean
    images=$(sed -n 's/^epoch .*, \([0-9]*\) images,.*/\1/p' "$dir/split.out" | awk '{ s += $1 } END { print s }')
    mean=$(awk "BEGIN { printf \"%.0f\", ($alone0 + $alone1) / 2 }")
    # shellcheck disable=SC2086 # RAN_NS WAITED_NS SLICES NOW_NS, twice
    served=$(set -- $before $after; awk "BEGIN { printf \"%.0f\", $images / (($8 - $4) - ($6 - $2)) * 1e9 }")
    row "a worker on core 0, I/O and client on core 1, against satchel-bench-loader" \
        "$served images a second in which core 0 was the worker's, $mean alone ($alone0 before, $alone1 after): $(ratio "$served" "$mean"); by the clock $(value split images_per_second)" \
        ">= 0.95" "$served / $mean >= 0.95"
}

row_trainers() {
    pool 0 1
    local list one two
    list=$(endpoints 0 1)
    pull one --loaders "$list" --seconds 15
    pull two --loaders "$list" --seconds 15 --seed 7 --size 192
    one=$(value one images_per_second) two=$(value two images_per_second)
    pull both1 --loaders "$list" --seconds 20 &
    local first=$!
    pull both2 --loaders "$list" --seconds 20 --seed 7 --size 192
    wait $first
    local same
    same=$(for pair in "one both1" "two both2"; do set -- $pair; receipts "$1" >"$dir/a"; receipts "$2" >"$dir/b"; n=$(($(wc -l <"$dir/a") < $(wc -l <"$dir/b") ? $(wc -l <"$dir/a") : $(wc -l <"$dir/b"))); cmp -s <(head -n $n "$dir/a") <(head -n $n "$dir/b") && [ $n -gt 0 ] && echo yes; done | wc -l)
    stop 0 1
    local a b
    a=$(ratio "$(value both1 images_per_second)" "$one") b=$(ratio "$(value both2 images_per_second)" "$two")
    row "two trainers at different specs on one pool" "$a and $b of alone ($one, $two images/s); receipts right for $same of 2" ">= 0.45 each, receipts right" "$a >= 0.45 && $b >= 0.45 && $same == 2"
}

. tools/torture_peers.sh

echo "| test | result | goal | |"
echo "|---|---|---|---|"
for name in $rows; do
    declare -F "row_$name" >/dev/null || { echo "torture.sh: no row $name (see --help)" >&2; exit 2; }
    "row_$name"
done
exit $failed
