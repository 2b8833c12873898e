# SPDX-License-Identifier: Apache-2.0
# What tests of a job of several ranks share; read in by them with BUILD_DIRECTORY as $1. The script names its trainer's
# command line in the array `trainer` and removes $work itself.
build=$(cd "$1" && pwd)
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none
work=$(mktemp -d)
mkfifo "$work/pause"

say() { echo "${0##*/}: $*"; }
fail() {
    say "FAILED: $*"
    tail -n 20 "$work"/*.log >&2 || true
    exit 1
}
# await SECONDS COMMAND...: until the command succeeds.
await() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || return 1
        read -r -t 0.05 <>"$work/pause" || true
    done
}
# train RANKS RUN OPTION...: the exit status is mpirun's.
train() {
    local ranks=$1 run=$work/$2
    shift 2
    mpirun -n "$ranks" "${trainer[@]}" --out "$run" "$@" >>"$run.log" 2>&1
}
hash_of() { sha256sum "$work/$1/last.safetensors" | cut -d' ' -f1; }
steps_done() { [ -f "$work/$1/metrics.jsonl" ] && [ "$(grep -c '"event":"step"' "$work/$1/metrics.jsonl")" -ge "$2" ]; }
