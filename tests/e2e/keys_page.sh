#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The commands of docs/operations.md, section Keys, do what the page says, and are fewer than ten. Only the endpoints are
# others, so that tests beside this one do not meet.
#   keys_page.sh SOURCE_ROOT BUILD_ROOT
set -eu
source=$1 build=$2
. "$source/tests/e2e/pages.sh"
pids=
finish() {
    for pid in $pids; do kill "$pid" 2>/dev/null || true; done
    wait
    rm -rf "$work"
}
trap finish EXIT

blocks docs/operations.md tests/e2e/keys_page.sh |
    sed "s|tcp://127.0.0.1:5555|ipc://$work/1|g; s|tcp://127.0.0.1:5556|ipc://$work/2|g" >commands.sh
commands=$(wc -l <commands.sh)
[ "$commands" -gt 5 ] && [ "$commands" -lt 10 ] || fail "$commands commands on the page"

# 512 pictures of 8 x 8 in two classes.
mkdir idx
{ printf '\000\000\010\003\000\000\002\000\000\000\000\010\000\000\000\010' && head -c 32768 /dev/zero; } >idx/train-images-idx3-ubyte
{ printf '\000\000\010\001\000\000\002\000' && head -c 256 /dev/zero && head -c 256 /dev/zero | tr '\000' '\001'; } >idx/train-labels-idx1-ubyte
satchel-pack --source idx idx --split train --out train.lmdb >pack.log 2>&1 || { cat pack.log >&2; exit 1; }

# What runs in the background in this shell, so that it can be ended.
sed '/^satchel-loader/,$d' commands.sh >first.sh
grep '&$' commands.sh >loaders.sh
sed '1,/^satchel-loader/d; /&$/d' commands.sh >feed.sh
sh -eu first.sh >/dev/null
[ "$(stat -c %a keys/trainer.key)" = 600 ]
while read -r line; do
    eval "${line%&} 2>>loaders.log &"
    pids="$pids $!"
done <loaders.sh
sh -eu feed.sh >feed.log 2>&1 || { cat feed.log loaders.log >&2; exit 1; }
grep -q 'epoch 0: receipt [0-9a-f]\{32\}, 512 images' feed.log || { cat feed.log >&2; exit 1; }
grep -q 'with key trainer' loaders.log || { cat loaders.log >&2; exit 1; }
# The first loader may have served all before the other was there: each by itself.
for n in 1 2; do
    satchel-bench-feed --loaders "ipc://$work/$n" --secret-key keys/trainer.key --server-keys keys/servers >"one$n.log" 2>&1 ||
        { cat "one$n.log" loaders.log >&2; exit 1; }
done
# Nobody else is let in.
satchel-keygen keys stranger >/dev/null
if satchel-bench-feed --loaders "ipc://$work/1" --secret-key keys/stranger.key --server-keys keys/servers >stranger.log 2>&1; then
    echo "a stranger was served" >&2
    exit 1
fi
grep -q "does not allow this trainer's key" stranger.log || { cat stranger.log >&2; exit 1; }
