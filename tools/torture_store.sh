#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The long tests of the store, on real images. Prints a row for each; exit status 1 when one fails.
#   tools/torture_store.sh BUILD IMAGES [SCRATCH [ROW...]]
# BUILD: a build folder. IMAGES: class folders of JPEGs (a few hundred will do). SCRATCH (default /tmp/satchel-torture) needs about
# 25 GB free for all rows. Rows: sources kills full damage rate memory startup larger; default all. larger needs root and memory
# cgroups (version 1 or 2).
set -u
. "$(dirname "$0")/explain.sh"
[ $# -ge 2 ] || { explain >&2; exit 2; }
root=$(realpath "$(dirname "$0")/..") build=$(realpath "$1") images=$(realpath "$2") scratch=${3:-/tmp/satchel-torture}
shift; shift; [ $# -eq 0 ] || shift
rows=${*:-sources kills full damage rate memory startup larger}
pack=$build/tools/satchel-pack inspect=$build/tools/satchel-inspect loader=$build/loader/satchel-loader feed=$build/tools/satchel-bench-feed
mkdir -p "$scratch" && cd "$scratch" || exit 1
status=0
row() { printf '%-9s %s\n' "$1" "$2"; }
fail() { row "$1" "FAILED: $2"; status=1; }
value_of() { sed -n "s/.*\"$1\":\"\\{0,1\\}\\([^\",}]*\\).*/\\1/p"; }
count=$(find -L "$images" -mindepth 2 -maxdepth 2 -type f | wc -l)
packed() { # packed OUT ARGUMENTS...: the fingerprint
    rm -f "$1" "$1.partial"
    "$pack" --out "$@" --json 2>>pack.log | tail -1 | value_of fingerprint
}

sources() { # the same images as folders, tars, lists: files of other layouts are made by tests/unit/datasets/test_sources.c
    rm -rf flat lists && mkdir flat lists
    (cd "$images" && for class in *; do for file in "$class"/*; do
        ln -s "$images/$file" "$scratch/flat/${class}__${file#*/}"
        echo "${class}__${file#*/} $class" >>"$scratch/lists/columns.txt"
        echo "$file,$class 1 2 3 4" >>"$scratch/lists/list.csv"
    done; done)
    (cd "$images" && tar cf "$scratch/lists/classes.tar" -- * && tar czf "$scratch/lists/classes.tgz" -- * &&
        for class in *; do (cd "$class" && tar cf "$scratch/lists/$class.tar" -- *); done)
    (cd lists && ls | grep '\.tar$' | grep -v '^classes' | tar cf outer.tar -T - && cd ../flat && tar chf ../lists/flat.tar -- *)
    wanted=$(packed a.lmdb --source folder "$images")
    n=0
    while read -r arguments; do
        # shellcheck disable=SC2086
        got=$(packed a.lmdb $arguments)
        [ -n "$got" ] && [ "$got" = "$wanted" ] && n=$((n + 1)) || fail sources "$arguments: ${got:-nothing}"
    done <<EOF
--source tar lists/classes.tar
--source tar lists/classes.tgz
--source imagenet-tar lists/outer.tar
--source tar lists/flat.tar --labels lists/columns.txt
--source folder flat --labels lists/columns.txt
--source list lists/columns.txt flat
--source list lists/list.csv $images
EOF
    row sources "$count images, class folders and $n other forms: equal fingerprints (${wanted})"
}

kills() {
    if "$build/tests/unit/datasets/test_resume" "$pack" "$inspect" "$loader" 30 >kills.log 2>&1; then
        row kills "$(sed -n 's/ kills$//p' kills.log | tail -1) kills -9 at random sizes, --resume each time: the same fingerprint, no partial store accepted"
    else
        fail kills "see $scratch/kills.log"
    fi
}

full() { # a file system of 24 MB, in a mount namespace of its own
    if ! unshare -rm true 2>/dev/null; then
        row full "skipped: no mount namespaces here"
        return
    fi
    mkdir -p small
    unshare -rm sh -c "mount -t tmpfs -o size=24m none small && '$pack' --source folder '$images' --out small/a.lmdb >full.out 2>full.err; echo \$? >full.rc; ls small >full.ls"
    if [ "$(cat full.rc)" = 1 ] && grep -q 'No space left' full.err && ! grep -qx a.lmdb full.ls; then
        row full "status 1, nothing published: $(grep 'error:' full.err | sed 's/.*error: //')"
    else
        fail full "status $(cat full.rc): $(tail -1 full.err)"
    fi
}

# damaged WORDS OPTIONS TRUNCATIONS FLIPS COUNT ARGUMENTS...: of a store of COUNT images packed with these arguments, shared
# between as many processes as there are processors. OPTIONS are the loader's.
damaged() {
    local words=$1 jobs job seed processes=
    jobs=$(nproc) seed=${SATCHEL_TEST_SEED:-$RANDOM}
    export LOADER=$loader FEED=$feed OPTIONS=$2 SAMPLES=$5 CHUNK=$(($5 % 10 ? 1 : $5 / 10)) RECEIPT=
    packed whole.lmdb "${@:6}" >/dev/null
    RECEIPT=$("$root/tests/torture/serve.sh" whole.lmdb)
    SECONDS=0
    for job in $(seq "$jobs"); do
        SATCHEL_TEST_SEED=$((seed + job)) "$build/tests/torture/torture-damage" whole.lmdb "bent$job.lmdb" "$inspect" \
            "$root/tests/torture/serve.sh" $((($3 + jobs - 1) / jobs)) $((($4 + jobs - 1) / jobs)) >"damage$job.out" 2>"damage$job.err" &
        processes="$processes $!"
    done
    job=0
    for process in $processes; do
        job=$((job + 1))
        if [ -n "$RECEIPT" ] && wait "$process"; then
            while read -r line; do row damage "$words: $line"; done <"damage$job.out"
        else
            fail damage "$words: $(tail -1 "damage$job.err"), seed $((seed + job))"
        fi
    done
    row damage "$words: $SECONDS s"
}

damage() { # each case is read here, checked by satchel-inspect and served by a loader
    local few
    damaged "small images" "" 100 1000 "$count" --source folder "$images" --resize-short 64
    rm -rf few && mkdir few
    for few in $(cd "$images" && printf '%s\n' * | head -40); do ln -s "$images/$few" few/; done
    few=$(find -L few -type f | wc -l)
    damaged "past the page cache" "--page-cache-mib 0" 20 200 "$few" --source folder few
}

# many TIMES: folder many-TIMES, in which each class and image is there so many times.
many() {
    [ -d once ] || cp -rL "$images" once
    [ -d "many-$1" ] || python3 -c '
import os, sys
os.mkdir("many-" + sys.argv[1])
for i in range(int(sys.argv[1])):
    for name in os.listdir("once"): os.symlink("../once/" + name, "many-%s/%d-%s" % (sys.argv[1], i, name))' "$1"
}

rate() { # from the page cache: the disk is not what is measured
    many 10
    find -L many-10 -type f -exec cat {} + >/dev/null
    rm -f a.lmdb
    /usr/bin/time -f '%e %U %S %M' -o rate.time "$pack" --source folder many-10 --out a.lmdb --jobs 2 --json >rate.out 2>>pack.log
    read -r seconds user system kib <rate.time
    rates=$(awk "BEGIN{n = 10 * $count; printf \"%d images/s (%d of a CPU second)\", n / $seconds, n / ($user + $system)}")
    row rate "$((10 * count)) JPEGs from the page cache, index included, 2 jobs: $rates, $((kib / 1024)) MB at most, $(($(stat -c %s a.lmdb) / 1000000)) MB written"
    rm -f a.lmdb
}

memory() { # small images, so that there are 200,000 of them
    packed tiny.lmdb --source folder "$images" --resize-short 48 >/dev/null
    rm -rf tiny crowd && mkdir tiny crowd
    for id in $(seq 0 99); do "$inspect" tiny.lmdb --extract "$id" --out "tiny/$id" || return; done
    python3 -c '
import os
for i in range(2000): os.symlink("../tiny", "crowd/%d" % i)'
    rm -f a.lmdb
    /usr/bin/time -f '%e %M' -o memory.time "$pack" --source folder crowd --out a.lmdb --jobs 2 --json >memory.out 2>>pack.log
    read -r seconds kib <memory.time
    [ $((kib / 1024)) -lt 300 ] || fail memory "$((kib / 1024)) MB"
    row memory "$(tail -1 memory.out | value_of samples) images: $((kib / 1024)) MB at most, $seconds s"
    rm -rf crowd tiny a.lmdb
}

startup() {
    anonymous=
    for samples in 10000 1280000; do
        rm -f many.lmdb
        "$build/tests/torture/torture-synthetic" many.lmdb $samples 1000 || { fail startup "no store"; return; }
        rm -f ready
        begin=$(date +%s%N)
        "$loader" --data train=many.lmdb --bind "ipc://$scratch/sock" --ready-file ready --workers 2 2>startup.log &
        pid=$!
        until [ -e ready ] || ! kill -0 $pid 2>/dev/null; do sleep 0.005; done
        ms=$((($(date +%s%N) - begin) / 1000000))
        cpu=$(awk '{print ($14 + $15) * 10}' /proc/$pid/stat)
        kib=$(sed -n 's/RssAnon:[^0-9]*\([0-9]*\).*/\1/p' /proc/$pid/status)
        row startup "$samples records: listening after $ms ms ($cpu ms of CPU), RssAnon $kib KiB"
        kill $pid; wait $pid 2>/dev/null
        [ "$ms" -lt 1000 ] || fail startup "$ms ms"
        anonymous=${anonymous:-$kib}
        [ "$kib" -lt $((anonymous + 256)) ] || fail startup "RssAnon grows with the count: $anonymous, then $kib KiB"
    done
    rm -f many.lmdb
}

# in_group BYTES COMMAND...: with so much memory, its page cache included. Takes the place of the shell.
in_group() {
    local bytes=$1 group; shift
    if [ -f /sys/fs/cgroup/memory/memory.limit_in_bytes ]; then
        group=/sys/fs/cgroup/memory/satchel-torture
        mkdir -p $group && echo "$bytes" >$group/memory.limit_in_bytes || return 1
    else
        group=/sys/fs/cgroup/satchel-torture
        mkdir -p $group && echo "$bytes" >$group/memory.max || return 1
    fi
    exec sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' $group "$@"
}

# feed_rate LIMIT OPTION: images/s of three epochs from one loader, the store not in the cache, and the loader's CPU, us an image.
feed_rate() {
    python3 -c 'import os, sys; f = os.open(sys.argv[1], os.O_RDONLY); os.fsync(f); os.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED)' big.lmdb
    rm -f ready
    if [ "$1" = 0 ]; then
        cat big.lmdb >/dev/null
        "$loader" --data train=big.lmdb --bind "ipc://$scratch/sock" --ready-file ready --workers 2 "$2" 2>larger.log &
    else
        in_group "$1" "$loader" --data train=big.lmdb --bind "ipc://$scratch/sock" --ready-file ready --workers 2 "$2" 2>larger.log &
    fi
    pid=$!
    until [ -e ready ] || ! kill -0 $pid 2>/dev/null; do sleep 0.01; done
    "$feed" --loaders "ipc://$scratch/sock" --epochs 3 --json 2>>larger.log | tail -1 | value_of images_per_second
    awk -v n=$((3 * samples)) '{ printf "%d\n", ($14 + $15) * 1e4 / n }' /proc/$pid/stat >larger.cpu
    kill $pid; wait $pid 2>/dev/null
}

larger() {
    [ -f big.lmdb ] || { many 20; packed big.lmdb --source folder many-20 --jobs 2 >/dev/null; }
    bytes=$(stat -c %s big.lmdb)
    if ! (in_group $((bytes / 4)) true) 2>/dev/null; then
        row larger "skipped: no memory cgroup can be made here"
        return
    fi
    disk=$(python3 -c '
import mmap, os, random, sys, time
f = os.open(sys.argv[1], os.O_RDONLY); os.fsync(f); os.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED)
size = os.fstat(f).st_size; step = 128 << 10; places = list(range(0, size - step, step)); random.shuffle(places)
from concurrent.futures import ThreadPoolExecutor
begin = time.time()
with ThreadPoolExecutor(16) as pool: total = sum(len(b) for b in pool.map(lambda at: os.pread(f, step, at), places))
print(int(total / (time.time() - begin) / 1e6))' big.lmdb)
    samples=$("$inspect" big.lmdb --json | tail -1 | value_of samples)
    ratios=
    for round in 1 2 3; do
        hot=$(feed_rate 0 --read-ahead) hot_cpu=$(cat larger.cpu)
        with=$(feed_rate $((bytes / 4)) --read-ahead) with_cpu=$(cat larger.cpu)
        row larger "store of $((bytes / 1000000)) MB, loader with $((bytes / 4000000)) MB: $with images/s read ahead ($with_cpu us of CPU each), all in memory $hot ($hot_cpu)"
        ratios="$ratios + $with / $hot"
    done
    row larger "mean of the three ratios: $(awk "BEGIN { printf \"%.2f\", (0 $ratios) / 3 }")"
    cached=$(feed_rate $((bytes / 4)) --page-cache-mib=1000000) cached_cpu=$(cat larger.cpu)
    row larger "all through the page cache, announced: $cached images/s ($cached_cpu us)"
    without=$(feed_rate $((bytes / 4)) --read-ahead=false)
    row larger "not read ahead: $without images/s ($(cat larger.cpu) us of CPU each); disk at random: $disk MB/s, $((disk * 1000000 / (bytes / samples))) images/s of this size"
}

for name in $rows; do "$name"; done
exit $status
