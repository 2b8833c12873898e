#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# docs/walkthrough.md from packing to the end of the day, and docs/weights.md on what came of it: every command as it stands there.
# Only the pictures are fewer, and the loaders' endpoints others, so that tests beside this one do not meet.
# tools/walkthrough.sh runs the first of them as it is, in a clean clone.
#   walkthrough.sh SOURCE_ROOT BUILD_ROOT
set -eu
source=$1 build=$2
. "$source/tests/e2e/pages.sh"
leave() {
    status=$?
    exec >&2
    [ $status -eq 0 ] || tail -n 20 ./*.log
    kill $(jobs -p) 2>/dev/null || true
    wait
    rm -rf "$work"
}
trap leave EXIT

# few SET COUNT OCTAL: the first COUNT pictures of train or t10k; OCTAL is the number as two bytes.
few() {
    all=/usr/share/datasets/fashion-mnist/$1
    { printf "\0\0\10\3\0\0$3\0\0\0\34\0\0\0\34" && gunzip -c "$all-images-idx3-ubyte.gz" | tail -c +17 | head -c $((784 * $2)); } \
        >"idx/$1-images-idx3-ubyte"
    { printf "\0\0\10\1\0\0$3" && gunzip -c "$all-labels-idx1-ubyte.gz" | tail -c +9 | head -c "$2"; } >"idx/$1-labels-idx1-ubyte"
}
mkdir idx
few train 512 '\2\0'
few t10k 128 '\0\200'
cp "$source/tests/golden/loader/444.jpg" photo.jpg
cp "$source/tests/golden/loader/alpha.png" another.png

page() { # NAME: runs its blocks in this shell
    blocks "docs/$1.md" tests/e2e/walkthrough.sh |
        sed "s|/usr/share/datasets/fashion-mnist|idx|; s|tcp://127.0.0.1:|ipc://$work/127.0.0.1:|g; s|^satchel-loader .*[^&]|& 2>>loaders.log |" >"$1.sh"
    # shellcheck disable=SC1090
    . "./$1.sh" >"$1.out" 2>"$1.log" # not in a condition: the first command that fails ends this
}
page walkthrough
# The pages about single things find the day's files, and a loader.
satchel-loader --data train=train.lmdb val=val.lmdb --bind "ipc://$work/127.0.0.1:5555" 2>>loaders.log &
page weights

[ "$(head -c 8 sheet.png | tr -d '\r\n\032' | tail -c +2)" = PNG ] || fail "sheet.png is no PNG"
grep -q '</html>' report.html || fail "report.html is not whole"
[ "$(grep -c 'with key trainer' loaders.log)" -ge 2 ] || fail "not both loaders served: $(cat loaders.log)"
receipt=$(sed -n 's/.*"event":"epoch","epoch":0,.*"receipt":"\([0-9a-f]\{32\}\)".*/\1/p' run/metrics.jsonl)
[ -n "$receipt" ] && grep -q "receipt $receipt" walkthrough.out || fail "the replay's receipt is not $receipt: $(cat walkthrough.out)"
for file in weights.safetensors model.onnx; do [ "$(wc -c <$file)" -gt 100000 ] || fail "$file is too small"; done
grep -q '^photo.jpg: [A-Z][^,]* [0-9.]* %, ' walkthrough.out || fail "no class of the photograph: $(cat walkthrough.out)"
grep -q 'last layer begins afresh' weights.log && fail "the last layer does not fit its own classes"
[ "$(wc -l <t.csv)" = 2 ] || fail "not one image in t.csv"
