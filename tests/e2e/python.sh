#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# clients/python against live loaders: its receipts are those of satchel-bench-feed. Needs a Python with zmq, protobuf,
# numpy and xxhash: $PYTHON, Debian's, or the first in PATH.
python=''
for candidate in "${PYTHON:-}" /usr/bin/python3 python3; do
    [ -n "$python" ] || [ -z "$candidate" ] || ! "$candidate" -c 'import zmq, google.protobuf, numpy, xxhash' 2>/dev/null || python=$candidate
done
[ -n "$python" ] || { echo "skipped: no Python with zmq, protobuf, numpy and xxhash here"; exit 77; }
. "$(dirname "$0")/place.sh"
store=$place/train.lmdb
make_store "$store" 5
start_loader one "$store"
first=$pid
start_loader two "$store"
receipts=''
for wire in fp16 uint8; do
    "$FEED" --loaders "ipc://$place/two" --size 32 --total-batch 16 --micro-batch 8 --chunk-size 4 --mixup-alpha 0.2 --seed 3 \
        --wire $wire --epochs 2 >"$place/feed" 2>"$place/feed.log"
    receipts="$receipts $(sed -n "s/^epoch \([01]\): receipt \([0-9a-f]*\),.*/$wire:\1:\2/p" "$place/feed")"
done
# shellcheck disable=SC2086 # a list of words
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$CLIENT "$python" "$CLIENT/test_satchel_dataset.py" "$PROTO" "ipc://$place/one" \
    "ipc://$place/two" "$first" $receipts
