#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A loader on a store that may be damaged, for torture-damage: it refuses the store by name, or serves an epoch, which is all of
# it, whose receipt is that of the whole store, or it or the trainer names what cannot be served. Anything else is status 1.
#   LOADER=PROGRAM FEED=PROGRAM SAMPLES=COUNT CHUNK=SAMPLES RECEIPT=HEX [OPTIONS=LOADER'S] serve.sh STORE
# With RECEIPT= (empty) it prints the receipt that it gets.
set -u
work=$(mktemp -d "${TMPDIR:-/tmp}/satchel-serve-XXXXXX")
loader= feed=
finish() {
    [ -z "$loader$feed" ] || kill -9 $loader $feed 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT
wrong() {
    echo "$1" >&2
    cat "$work/loader.err" "$work/feed.err" >&2 2>/dev/null
    exit 1
}
# --strict: a damaged record makes its chunk impossible instead of putting another one in its place.
"$LOADER" --data "train=$1" --bind "ipc://$work/l" --workers 1 --strict ${OPTIONS-} 2>"$work/loader.err" &
loader=$!
"$FEED" --loaders "ipc://$work/l" --size 32 --total-batch "$SAMPLES" --micro-batch "$SAMPLES" --chunk-size "$CHUNK" --epochs 1 \
    >"$work/feed.out" 2>"$work/feed.err" &
feed=$!
# The feed ends when it has all or cannot have a chunk; the loader when it cannot serve the store, and the feed would wait for
# another one.
served=none
wait -n -p first $loader $feed
status=$?
if [ "$first" = $feed ]; then
    served=$status feed=
    kill $loader 2>/dev/null
    wait $loader
    status=$?
else
    kill -9 $feed
    wait $feed 2>/dev/null
    feed=
fi
loader=
[ $status -le 1 ] || wrong "the loader ended with $status"
receipt=$(sed -n 's/^epoch 0: receipt \([0-9a-f]*\), .*/\1/p' "$work/feed.out")
if [ "$served" = 0 ] && [ -z "$RECEIPT" ]; then
    echo "$receipt"
elif [ "$served" = 0 ]; then
    [ "$receipt" = "$RECEIPT" ] || wrong "another receipt than $RECEIPT: $receipt"
    echo "served whole"
elif [ $status = 1 ]; then
    grep -qF "$1" "$work/loader.err" || wrong "the loader does not name $1"
    echo "refused or ended by name"
else
    # The chunk of a damaged record.
    grep -q 'cannot make chunk' "$work/feed.err" && grep -qF "$1" "$work/feed.err" || wrong "nobody names $1"
    echo "chunk refused by name"
fi
