# SPDX-License-Identifier: Apache-2.0
# Read by scripts that train through one loader: start_loader BUILD WORK [--data NAME=FILE] serves WORK/train.lmdb, and what else it is
# told, at ipc://WORK/loader, and returns once it is ready; its process is $loader, which stop_loader ends. Exit status 1, with what it
# said, when it does not start.
loader=
start_loader() {
    loader_program=$1/loader/satchel-loader loader_work=$2
    shift 2
    rm -f "$loader_work/ready"
    "$loader_program" --data "train=$loader_work/train.lmdb" "$@" --bind "ipc://$loader_work/loader" --workers 1 \
        --ready-file "$loader_work/ready" 2>"$loader_work/loader.log" &
    loader=$!
    until [ -e "$loader_work/ready" ]; do
        kill -0 "$loader" 2>/dev/null || { cat "$loader_work/loader.log" >&2; exit 1; }
        sleep 0.1
    done
}
stop_loader() {
    [ -z "$loader" ] || { kill "$loader" 2>/dev/null || true; wait "$loader" 2>/dev/null || true; }
}
