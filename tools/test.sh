#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, builds with sanitizers and without, runs every test of both builds.
# Ends with the line "N passed, N failed"; exit status 0 only when nothing failed.
#   tools/test.sh
#   BUILD_ROOT   where the two builds go (default: build-test in the source tree)
set -eu
. "$(dirname "$0")/explain.sh"
cd "$(dirname "$0")/.."
root=${BUILD_ROOT:-$PWD/build-test}
passed=0 failed=0

tools/deps.sh --test

# run_suite NAME MESON_OPTION...: one build and all its tests.
run_suite() {
    name=$1
    shift
    build=$root/$name
    if [ -d "$build" ]; then
        meson configure "$build" --werror "$@" >/dev/null
    else
        meson setup "$build" . --werror "$@"
    fi
    if ! ninja -C "$build"; then
        echo "test.sh: the $name build failed" >&2
        failed=$((failed + 1))
        return
    fi
    # Numbers come from meson's own log: one JSON object a test.
    rm -f "$build/meson-logs/testlog.json"
    meson test -C "$build" --no-rebuild --print-errorlogs --timeout-multiplier 4 || true
    log=$build/meson-logs/testlog.json
    ok=$(grep -c '"result": "\(OK\|EXPECTEDFAIL\)"' "$log" || true)
    skipped=$(grep -c '"result": "SKIP"' "$log" || true)
    all=$(grep -c '"result": ' "$log" || true)
    passed=$((passed + ok))
    failed=$((failed + all - ok - skipped))
    [ "$all" -gt 0 ] || failed=$((failed + 1)) # no test ran at all
    [ "$skipped" -eq 0 ] || echo "test.sh: $name: $skipped skipped (see $build/meson-logs/testlog.txt for why)"
}

# An abort is clearer in a test's log than going on after the first finding.
export ASAN_OPTIONS=${ASAN_OPTIONS:-abort_on_error=1:detect_stack_use_after_return=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-halt_on_error=1:print_stacktrace=1}

run_suite release --buildtype=release
run_suite sanitize --buildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
