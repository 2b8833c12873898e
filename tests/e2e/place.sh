# SPDX-License-Identifier: Apache-2.0
# For shell tests of the stream, sourced: a store of the golden images in $place, gone at the end, and loaders.
# Needs PACK, LOADER, GOLDEN.
set -eu
place=$(mktemp -d /tmp/satchel-XXXXXX)
loaders=''
leave() {
    [ -z "$loaders" ] || kill $loaders 2>/dev/null || true
    rm -rf "$place"
}
trap leave EXIT

# A store of so many copies of each JPEG, in two classes.
make_store() { # FILE COPIES
    for n in $(seq "$2"); do
        for image in "$GOLDEN"/*.jpg; do
            class=c$(($(wc -c <"$image") % 2))
            mkdir -p "$place/images/$class"
            cp "$image" "$place/images/$class/$n-${image##*/}"
        done
    done
    "$PACK" --source folder "$place/images" --out "$1" >/dev/null 2>"$place/pack.log"
}

# Starts a loader of the store at ipc://$place/NAME and waits until it listens, or has ended.
start_loader() { # NAME STORE
    "$LOADER" --data "train=$2" --bind "ipc://$place/$1" --workers 1 --ready-file "$place/$1.ready" 2>"$place/$1.log" &
    pid=$!
    loaders="$loaders $pid"
    until [ -e "$place/$1.ready" ]; do
        kill -0 $pid || { cat "$place/$1.log"; exit 1; }
    done
}

fail() {
    echo "$@" >&2
    exit 1
}
