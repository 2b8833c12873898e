#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The commands of docs/operations.md, section Keys, do what the page says, and are fewer than ten. Only the endpoints are
# others, so that tests beside this one do not meet.
#   keys_page.sh SOURCE_ROOT BUILD_ROOT
set -eu
page=$1/docs/operations.md build=$2
work=$(mktemp -d)
pids=
finish() {
    for pid in $pids; do kill "$pid" 2>/dev/null || true; done
    wait
    rm -rf "$work"
}
trap finish EXIT
mkdir "$work/bin"
for program in tools/satchel-keygen tools/satchel-bench-feed tools/satchel-pack loader/satchel-loader; do
    ln -s "$build/$program" "$work/bin/"
done
PATH=$work/bin:$PATH
cd "$work"

# block N: the Nth code block behind the marker.
block() {
    awk -v want="$1" '/keys_page.sh runs the next two blocks/ { on = 1 } /^```/ { if (on) { inside = !inside; n += inside } next }
        on && inside && n == want' "$page" |
        sed "s|tcp://127.0.0.1:5555|ipc://$work/1|g; s|tcp://127.0.0.1:5556|ipc://$work/2|g"
}
commands=$( (block 1 && block 2) | wc -l)
[ "$commands" -gt 5 ] && [ "$commands" -lt 10 ] || {
    echo "$commands commands on the page" >&2
    exit 1
}

# 512 pictures of 8 x 8 in two classes.
mkdir idx
{ printf '\000\000\010\003\000\000\002\000\000\000\000\010\000\000\000\010' && head -c 32768 /dev/zero; } >idx/train-images-idx3-ubyte
{ printf '\000\000\010\001\000\000\002\000' && head -c 256 /dev/zero && head -c 256 /dev/zero | tr '\000' '\001'; } >idx/train-labels-idx1-ubyte
satchel-pack --source idx idx --split train --out train.lmdb >pack.log 2>&1 || { cat pack.log >&2; exit 1; }

block 1 >first.sh
sh -eu first.sh
[ "$(stat -c %a keys/trainer.key)" = 600 ]
# The second block in this shell, so that its loaders can be ended.
block 2 | grep '&$' >loaders.sh
block 2 | grep -v '&$' >feed.sh
while read -r line; do
    eval "${line%&} 2>>loaders.log &"
    pids="$pids $!"
done <loaders.sh
sh -eu feed.sh >feed.log 2>&1 || { cat feed.log loaders.log >&2; exit 1; }
grep -q 'epoch 0: receipt [0-9a-f]\{32\}, 512 images' feed.log || { cat feed.log >&2; exit 1; }
grep -q 'with key trainer' loaders.log || { cat loaders.log >&2; exit 1; }
[ "$(grep -c 'ready' feed.log)" = 2 ] || { cat feed.log >&2; exit 1; }
# Nobody else is let in.
satchel-keygen keys stranger >/dev/null
if satchel-bench-feed --loaders "ipc://$work/1" --secret-key keys/stranger.key --server-keys keys/servers >stranger.log 2>&1; then
    echo "a stranger was served" >&2
    exit 1
fi
grep -q "does not allow this trainer's key" stranger.log || { cat stranger.log >&2; exit 1; }
