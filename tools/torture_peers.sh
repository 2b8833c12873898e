# SPDX-License-Identifier: Apache-2.0
# Rows of tools/torture.sh about peers that nobody wants, which reads this file: strangers (idle, churn), trainers with a valid
# key (requests, flood, specs, deaf, mute) and loaders with one (lies, drip). The honest loader and trainer run on core 0 and
# whoever is hostile on core 1, as if it were another host; what it costs is what the honest two do less per CPU second.

hostile=$build/tests/fault/hostile keys=$dir/keys
PERIOD=${PERIOD:-14} ROUNDS=${ROUNDS:-3} # seconds with and without a hostile trainer, and how often

make_keys() {
    local name
    [ -d "$keys" ] || for name in loader trainer bad; do "$build/tools/satchel-keygen" "$keys" $name >/dev/null || exit 1; done
}
with_keys() { echo "--secret-key $keys/trainer.key --server-keys $keys"; }

# serve ID KEYS(yes|no) STORE [VARIABLE=VALUE...]: a loader on TCP, whose place `at ID` tells; BIND=ENDPOINT: there.
serve() {
    local id=$1 keyed=$2 file=$3 program=$loader bind='tcp://127.0.0.1:*'
    shift 3
    case ${1:-} in BIND=*) bind=${1#BIND=}; shift ;; esac
    [ $# -eq 0 ] || program=$faulty
    rm -f "$dir/ready$id"
    # shellcheck disable=SC2046
    env "$@" taskset -c 0 "$program" --data "train=$file" --bind "$bind" --workers 1 --ready-file "$dir/ready$id" \
        $([ "$keyed" = yes ] && echo "--secret-key $keys/loader.key --allow $keys") 2>>"$dir/log$id" &
    pids[$id]=$!
}
at() { cat "$dir/ready$1"; }

# watch_memory PID FILE: the most anonymous memory that it has had, in KiB, until it ends.
watch_memory() {
    local most=0 now
    while now=$(sed -n 's/^RssAnon:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$1/status" 2>/dev/null) && [ -n "$now" ]; do
        [ "$now" -gt $most ] && most=$now && echo $most >"$2"
        sleep 0.1
    done
}
# What the loader of this log said it would take at most, in MiB.
budget() {
    sed -n 's/.*memory: about \([0-9.]*\) MiB.* in all at most \([0-9]*\) MiB.*/\1 \2/p' "$dir/log$1" | awk '{ print $1 + $2; exit }'
}

# ---- strangers ----

small_store() { [ -f "$dir/small.lmdb" ] || "$build/tests/torture/torture-synthetic" "$dir/small.lmdb" 2000 10 || exit 1; }

# How long a trainer that comes now takes for 2,000 small images, in seconds.
newcomer() {
    local begin end
    begin=$(date +%s%N)
    # shellcheck disable=SC2046
    "$feed" --loaders "$(at door)" $(with_keys) --size 28 --epochs 1 >/dev/null 2>&1 || return 1
    end=$(date +%s%N)
    awk "BEGIN { printf \"%.2f\", ($end - $begin) / 1e9 }"
}

# strangers NAME WHAT SECONDS NUMBER NEWCOMER_AFTER
strangers() {
    local name=$1 what=$2 length=$3 before between after alone took out
    make_keys
    small_store
    serve door yes "$dir/small.lmdb"
    ready door
    newcomer >/dev/null
    before=$(cpu_ticks "${pids[door]}")
    alone=$(newcomer)
    between=$(cpu_ticks "${pids[door]}")
    taskset -c 1 "$hostile" "$name" "$(at door)" "$length" "$4" >"$dir/strangers.out" 2>&1 &
    local pid=$!
    sleep "$5"
    took=$(newcomer)
    wait $pid || { cat "$dir/strangers.out" >&2; failed=1; }
    after=$(cpu_ticks "${pids[door]}")
    out=$(cat "$dir/strangers.out")
    local share
    share=$(awk "BEGIN { printf \"%.2f\", (($after - $between) - ($between - $before)) / $(getconf CLK_TCK) / $length * 100 }")
    row "$what" "$out; the loader's CPU on them $share % of a core; a newcomer's 2,000 images after $took s ($alone s without); memory $(sed -n 's/VmHWM:[^0-9]*//p' "/proc/${pids[door]}/status")" \
        "<= 2 % of a core, newcomer <= 5 s" "$share <= 2 && $took <= 5"
    stop door
}
row_idle() { strangers idle "10,000 connections that say nothing" 40 10000 1; }
row_churn() { strangers churn "100 connections a second, each dropped at once" 60 100 30; }

# ---- trainers with a valid key ----

# One period of the honest trainer: images per CPU second of loader and feed, and images/s, to FILE.
honest_period() {
    local before after
    before=$(cpu_ticks "${pids[door]}")
    # shellcheck disable=SC2046
    taskset -c 0 "$feed" --mixup-alpha 0.2 --total-batch 64 --loaders "$(at door)" $([ "$2" = yes ] && with_keys) --seconds "$PERIOD" --json \
        >"$dir/period.out" 2>>"$dir/period.err"
    after=$(cpu_ticks "${pids[door]}")
    awk -v ticks=$((after - before)) -v hz="$(getconf CLK_TCK)" -v rate="$(value period images_per_second)" -v us="$(value period cpu_us_per_image)" \
        '/^epoch/ { for (i = 1; i < NF; i++) if ($(i + 1) == "images,") n += $i }
         END { printf "%.0f %.0f\n", n / (ticks / hz + n * us / 1e6), rate }' "$dir/period.out" >>"$1"
}
median() { cut -d ' ' -f "$2" "$1" | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

# trainers NAME WHAT MODE KEYS(yes|no)
hostile_trainers() {
    local mode=$3 keyed=$4 i pid cpu clock memory most
    make_keys
    rm -f "$dir/with" "$dir/without" "$dir/hostile.out" "$dir/memory"
    serve door "$keyed" "$store"
    ready door
    watch_memory "${pids[door]}" "$dir/memory" &
    for i in $(seq "$ROUNDS"); do
        honest_period "$dir/without" "$keyed"
        # shellcheck disable=SC2046
        taskset -c 1 "$hostile" "$mode" "$(at door)" "$((PERIOD + 2))" $([ "$keyed" = yes ] && echo "$keys/bad.key $keys/loader.pub") >>"$dir/hostile.out" 2>&1 &
        pid=$!
        honest_period "$dir/with" "$keyed"
        wait $pid
    done
    stop door
    most=$(budget door) memory=$(awk '{ printf "%.1f", $1 / 1024 }' "$dir/memory")
    cpu=$(ratio "$(median "$dir/with" 1)" "$(median "$dir/without" 1)") clock=$(ratio "$(median "$dir/with" 2)" "$(median "$dir/without" 2)")
    row "$2" "$(awk '{ n += $1; c += $(NF - 1) } END { printf "%d messages in all, cut off or turned away %d times", n, c }' "$dir/hostile.out"); the honest trainer keeps $cpu per CPU second ($(median "$dir/with" 1) of $(median "$dir/without" 1) images), $clock by the clock; loader's memory at most $memory MiB, $most announced; the log: $(grep -h 'cut off' "$dir/logdoor" | sed 's/.*cut off/cut off/' | sort | uniq -c | head -3 | tr -s ' ' | tr '\n' ';')" \
        ">= 0.9, memory within what was announced" "$cpu >= 0.9 && $memory <= $most"
    rm -f "$dir/logdoor"
}
row_requests() { hostile_trainers requests "a trainer that asks and asks" requests yes; }
row_flood() { hostile_trainers flood "the same without keys, which comes back at once" requests no; }
row_specs() { hostile_trainers specs "a trainer that brings ever new specs, of 1,024 px" specs yes; }
row_deaf() { hostile_trainers deaf "a trainer that asks for what it may, 8 x 32 MiB, and reads nothing" deaf yes; }

# Over TCP the kernel gives up on it when nothing was taken for ten seconds; over ipc the loader does after a minute.
row_mute() {
    local bind memory pid begin took
    make_keys
    for bind in 'tcp://127.0.0.1:*' "ipc://$dir/mute"; do
        rm -f "$dir/memory" "$dir/logdoor"
        serve door yes "$store" BIND="$bind"
        ready door
        watch_memory "${pids[door]}" "$dir/memory" &
        "$hostile" deaf "$(at door)" 90 "$keys/bad.key" "$keys/loader.pub" >"$dir/hostile.out" 2>&1 &
        pid=$!
        until grep -q 'with key bad.*: connected' "$dir/logdoor"; do sleep 0.1; done
        begin=$(date +%s%N) took=none
        while kill -0 $pid 2>/dev/null; do
            ! grep -qE 'with key bad.*: (disconnected|.*takes none of its chunks)' "$dir/logdoor" || { took=$((($(date +%s%N) - begin) / 1000000000)); break; }
            sleep 0.2
        done
        kill $pid 2>/dev/null
        wait $pid 2>/dev/null
        memory=$(awk '{ printf "%.1f", $1 / 1024 }' "$dir/memory")
        row "a trainer that asks for 8 x 24 MiB and reads nothing, ${bind%%:*}" "cut off after $took s ($(grep 'with key bad' "$dir/logdoor" | sed 's/.*#[0-9]*: //' | tail -1)); loader's memory at most $memory MiB, $(budget door) announced" \
            "cut off within about a minute, memory within what was announced" "\"$took\" != \"none\" && $took + 0 <= 75 && $memory <= $(budget door)"
        stop door
    done
    rm -f "$dir/logdoor"
}

# ---- loaders with a valid key ----

LIES="lam-nan lam-inf lam-negative lam-large label-range label-masked pixels-short pixels-long pixels-none pixels-nan pixels-inf labels-short labels-long
    samples chunk epoch spec unasked twice frames kind endless"

row_lies() {
    local lie list named=0 count=0 same
    make_keys
    for lie in honest $LIES; do
        # shellcheck disable=SC2046
        serve "$lie" yes "$store" $([ "$lie" = honest ] || echo FAULT_LIE="$lie")
    done
    # shellcheck disable=SC2086
    ready honest $LIES
    list=$(for lie in honest $LIES; do at "$lie"; echo; done | paste -sd ,)
    # shellcheck disable=SC2046
    pull lies --loaders "$list" $(with_keys) --seconds 20
    for lie in $LIES; do
        count=$((count + 1))
        grep -qF "$(at "$lie"): " <(grep 'it will not be used' "$dir/lies.err") && named=$((named + 1))
    done
    # shellcheck disable=SC2086
    stop honest $LIES
    same=$(compare lies)
    row "an honest loader and $count with a valid key that lie, each in another way" "$named cut off by name; $same" \
        "all named, receipts equal" "$named == $count && $(equal "$same")"
}

row_drip() {
    local port=$((20000 + RANDOM % 20000)) same times
    make_keys
    serve honest yes "$store"
    serve slow yes "$store"
    ready honest slow
    "$build/tests/fault/slow-link" $port 127.0.0.1 "$(at slow | sed 's/.*://')" 0 0.0001 12000000 &
    pids[relay]=$!
    # shellcheck disable=SC2046
    pull drip --loaders "$(at honest),tcp://127.0.0.1:$port" $(with_keys) --seconds 120 --prefetch-mib 64
    stop honest slow relay
    times=$(grep -c "tcp://127.0.0.1:$port: .* with requests overdue" "$dir/drip.err")
    same=$(compare drip)
    row "a loader whose bytes drip, 12 a second, after its first five chunks, 120 s" \
        "lost by name $times times; $same; $(value drip reasked) asked again, longest wait $(value drip longest_wait_seconds) s" "named, receipts equal" "$times >= 1 && $(equal "$same")"
}
