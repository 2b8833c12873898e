#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# satchel-inspect --replay gives the receipts that satchel-bench-feed pulled from a loader, whole epochs and as
# the sum of chunks, isolated or not, at every instruction set level, and refuses what is not there.
. "$(dirname "$0")/place.sh"
store=$place/train.lmdb
make_store "$store" 5
start_loader loader "$store"
options="--size 32 --total-batch 16 --micro-batch 8 --chunk-size 4 --mixup-alpha 0.2 --seed 3"
for wire in fp16 uint8; do
    "$FEED" --loaders "ipc://$place/loader" $options --wire $wire --epochs 2 >"$place/feed" 2>"$place/feed.log"
    for epoch in 0 1; do
        pulled=$(sed -n "s/^epoch $epoch: receipt \([0-9a-f]*\),.*/\1/p" "$place/feed")
        replayed=$("$INSPECT" "$store" --replay $epoch $options --wire $wire 2>/dev/null | sed -n 's/.*: receipt \([0-9a-f]*\),.*/\1/p')
        [ -n "$pulled" ] && [ "$pulled" = "$replayed" ] || fail "$wire, epoch $epoch: pulled '$pulled', replayed '$replayed'"
    done
done
for level in scalar avx2 avx512; do # a level that the machine lacks is a warning, and its best one is taken
    for size in 32 97; do
        got=$(SATCHEL_ISA=$level "$INSPECT" "$store" --replay 0 $options --size $size 2>/dev/null)
        expected=$("$INSPECT" "$store" --replay 0 $options --size $size 2>/dev/null)
        [ -n "$got" ] && [ "$got" = "$expected" ] || fail "SATCHEL_ISA=$level, $size px: $got, not $expected"
    done
done
chunk=$("$INSPECT" "$store" --replay 1:2 $options 2>/dev/null)
isolated=$("$INSPECT" "$store" --replay 1:2 --isolate $options 2>/dev/null)
[ "$chunk" = "$isolated" ] || fail "isolated: $isolated, not $chunk"
[ "$chunk" != "$("$INSPECT" "$store" --replay 1:3 $options 2>/dev/null)" ] || fail "two chunks are equal"
# A damaged tree is damage to the helper of a sample as well, though LMDB reads behind the file there: a leaf's first entry.
{ printf '\0\0\010\003\0\0\0\024\0\0\0\010\0\0\0\010' && head -c 1280 /dev/zero; } >"$place/idx3"
{ printf '\0\0\010\001\0\0\0\024' && head -c 20 /dev/zero; } >"$place/idx1"
"$PACK" --source idx "$place/idx3" "$place/idx1" --out "$place/tree.lmdb" >/dev/null 2>&1
printf '\000\360' | dd of="$place/tree.lmdb" bs=1 seek=$((2 * 4096 + 16)) conv=notrunc 2>/dev/null
small='--size 8 --total-batch 20 --micro-batch 20 --crop none --jitter none --pca-sigma 0'
damaged=$("$INSPECT" "$place/tree.lmdb" --replay 0 $small 2>/dev/null)
isolated=$("$INSPECT" "$place/tree.lmdb" --replay 0 --isolate $small 2>"$place/tree.log")
[ "$damaged" = "$isolated" ] || fail "isolated: $isolated, not $damaged"
grep -q 'damaged database page' "$place/tree.log" || fail "isolated: $(cat "$place/tree.log")"
for what in 1:999 x 1: -1 1:2:3; do
    status=0
    "$INSPECT" "$store" --replay="$what" $options >/dev/null 2>"$place/refused" || status=$?
    [ $status -eq 2 ] || fail "--replay $what: status $status"
    grep -q -- "--replay" "$place/refused" || fail "--replay $what: $(cat "$place/refused")"
done
