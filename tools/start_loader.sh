# SPDX-License-Identifier: Apache-2.0
# Read by scripts that train through one loader: start_loader BUILD WORK serves WORK/train.lmdb and WORK/val.lmdb at ipc://WORK/loader and
# returns once it is ready; its process is $loader, which stop_loader ends. Exit status 1, with what it said, when it does not start.
loader=
start_loader() {
    rm -f "$2/ready"
    "$1/loader/satchel-loader" --data "train=$2/train.lmdb" --data "val=$2/val.lmdb" --bind "ipc://$2/loader" --workers 1 \
        --ready-file "$2/ready" 2>"$2/loader.log" &
    loader=$!
    until [ -e "$2/ready" ]; do
        kill -0 "$loader" 2>/dev/null || { cat "$2/loader.log" >&2; exit 1; }
        sleep 0.1
    done
}
stop_loader() {
    [ -z "$loader" ] || { kill "$loader" 2>/dev/null || true; wait "$loader" 2>/dev/null || true; }
}
