#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds the fuzz targets with clang, ASan and UBSan, and runs them one after another.
#   tools/fuzz.sh [SECONDS [TARGET...]]     default: 1800 seconds each, all targets
# BUILD (default build-fuzz) is the build folder; corpora stay in BUILD/corpus. Ends with a line for each target; exit status 1
# when one was interrupted or has a finding, which is left in BUILD/corpus/TARGET-findings.
set -eu
. "$(dirname "$0")/explain.sh"
cd "$(dirname "$0")/.."
seconds=${1:-1800}
[ $# -eq 0 ] || shift
build=${BUILD:-build-fuzz}
[ -d "$build" ] || CC=clang meson setup "$build" . -Dfuzz=true --buildtype=debugoptimized -Db_sanitize=address,undefined \
    -Db_lundef=false -Dc_args=-fsanitize=fuzzer-no-link
[ $# -gt 0 ] || set -- $(ls tests/fuzz/fuzz_*.c | sed 's|.*/||; s|\.c$||; s|^fuzz_source$|fuzz_source_tar fuzz_source_idx fuzz_source_rec|')
for target in "$@"; do
    ninja -C "$build" "tests/fuzz/$target" >/dev/null
done

# Inputs to begin with, small and whole.
seeds=$build/corpus/seeds
mkdir -p "$seeds/tree/n01" "$seeds/tree/n02"
printf 'one' >"$seeds/tree/n01/a.jpg"
printf 'three' >"$seeds/tree/n02/b.jpg"
printf '1' >"$seeds/tree/n02/b.cls"
(cd "$seeds/tree" && tar cf ../plain.tar n01 n02 && tar czf ../plain.tgz n01 n02 && tar cf n01.tar n01 && tar cf n02.tar n02 &&
    tar cf ../outer.tar n01.tar n02.tar)
seed() { # seed TARGET NAME: a seed from standard input
    mkdir -p "$build/corpus/$1"
    cat >"$build/corpus/$1/$2"
}
for kind in 0 1 2; do
    for file in plain.tar plain.tgz outer.tar; do
        { printf "\\$kind" && cat "$seeds/$file"; } | seed fuzz_source_tar "$file-$kind"
    done
done
ninja -C "$build" tests/fuzz/seed_wire >/dev/null
mkdir -p "$build/corpus/fuzz_frame" "$build/corpus/fuzz_spec"
"$build/tests/fuzz/seed_wire" "$build/corpus/fuzz_frame" "$build/corpus/fuzz_spec"
# A 2 x 2 image and its label; two bytes give the first file's size.
printf '\024\000\000\000\010\003\000\000\000\001\000\000\000\002\000\000\000\002abcd\000\000\010\001\000\000\000\001\003' |
    seed fuzz_source_idx pair
printf '\012\043\327\316\034\000\000\000\000\000\000\000\000\000\200\077\007\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000jpeg' |
    seed fuzz_source_rec whole
printf '\012\043\327\316\034\000\000\040\000\000\000\000\000\000\200\077\007\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000jpeg\012\043\327\316\004\000\000\140tail' |
    seed fuzz_source_rec parts
printf 'ImageId,PredictionString\nval_1,n02 1 2 3\nval_2,n01 4 5 6\n' | seed fuzz_labels kaggle
printf '0\t3.000000\tn01/a.jpg\n1\t0.0\tn02/b.jpg\n' | seed fuzz_labels lst
printf 'val/a.JPEG 3\nval/b c.JPEG 0\n# comment\n' | seed fuzz_labels columns
printf 'checksumtag-----SMPL\000\000\000\000\000\000\000\000\001\000\001\000\001\003\000\000\001\000\000\000\000\000\000\000\000\000\000\000i%064d' 0 |
    seed fuzz_record sample
printf 'SATCHEL\000checksum\010\001\032\003n01\050\001\060\001\070\003\102\020fingerprint-----\142\001\001' | seed fuzz_record meta

# What earlier runs on the JPEG path kept, and whole files of every kind.
tar xzf tests/fuzz/corpus.tar.gz -C "$build/corpus"
mkdir -p "$build/corpus/fuzz_decode" "$build/corpus/fuzz_jpeg_indexed"
for file in tests/golden/loader/*.jpg tests/golden/loader/*.png; do
    cp "$file" "$build/corpus/fuzz_decode/"
    { printf '\1abcdefg' && cat "$file"; } >"$build/corpus/fuzz_jpeg_indexed/${file##*/}"
done

# spent: what processes that have ended took, in seconds of CPU. A busy machine leaves little to nice 19.
take_times() {
    times >"$build/corpus/times" # not in a pipe, whose shell has no such processes
    spent=$(sed 's/[ms]/ /g' "$build/corpus/times" | awk 'NR == 2 { print int(60 * ($1 + $3) + $2 + $4) }')
}

status=0
summary=
for target in "$@"; do
    mkdir -p "$build/corpus/$target" "$build/corpus/$target-findings"
    log=$build/corpus/$target.log
    take_times
    before=$spent
    # The targets' own stderr, warnings about inputs, is closed; a finding is run again for its report.
    code=0
    nice -n 19 "$build/tests/fuzz/$target" -max_total_time="$seconds" -timeout=600 -rss_limit_mb=4096 -print_final_stats=1 -close_fd_mask=2 \
        -artifact_prefix="$build/corpus/$target-findings/" "$build/corpus/$target" >"$log" 2>&1 </dev/null || code=$?
    case $code in
    0) result="no finding" ;;
    72) result="no finding, interrupted" status=1 ;; # libFuzzer's status for a signal
    *) result="A FINDING, see $log" status=1 ;;
    esac
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    take_times
    summary="$summary$target: $seconds s ($((spent - before)) of CPU), ${runs:-?} runs, $result
"
done
printf '%s' "$summary"
exit $status
