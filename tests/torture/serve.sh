#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A loader on a store that may be damaged, for torture-damage: it refuses the store by name, or serves an epoch whose receipt
# is that of the whole store, or it or the trainer names what cannot be served. Anything else is status 1.
#   LOADER=PROGRAM FEED=PROGRAM RECEIPT=HEX serve.sh STORE
set -u
work=$(mktemp -d "${TMPDIR:-/tmp}/satchel-serve-XXXXXX")
pid=
finish() {
    [ -z "$pid" ] || kill -9 "$pid" 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT
wrong() {
    echo "$1" >&2
    cat "$work/loader.err" "$work/feed.err" >&2 2>/dev/null
    exit 1
}
# --strict: a damaged record makes its chunk impossible instead of putting another one in its place.
"$LOADER" --data "train=$1" --bind "ipc://$work/l" --workers 1 --strict --ready-file "$work/ready" 2>"$work/loader.err" &
pid=$!
until [ -e "$work/ready" ] || ! kill -0 "$pid" 2>/dev/null; do sleep 0.01; done
if [ -e "$work/ready" ]; then
    "$FEED" --loaders "ipc://$work/l" --size 32 --total-batch 64 --epochs 1 --stall-limit 30 >"$work/feed.out" 2>"$work/feed.err"
    served=$?
    kill "$pid" 2>/dev/null
else
    served=none
fi
wait "$pid"
status=$?
pid=
[ $status -le 1 ] || wrong "the loader ended with $status"
if [ "$served" = 0 ]; then
    grep -q "receipt $RECEIPT," "$work/feed.out" || wrong "another receipt than $RECEIPT: $(cat "$work/feed.out")"
    echo "served whole"
elif [ $status = 1 ]; then
    grep -qF "$1" "$work/loader.err" || wrong "the loader does not name $1"
    echo "refused or ended by name"
else
    # The chunk of a damaged record.
    grep -q 'cannot make chunk' "$work/feed.err" && grep -qF "$1" "$work/feed.err" || wrong "nobody names $1"
    echo "chunk refused by name"
fi
