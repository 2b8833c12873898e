#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The per-sample path beside DALI and torchvision on the same JPEGs, in one run on one core; prints a table.
#   tools/bench/peers.sh IMAGES_FOLDER [BUILD_FOLDER]     class folders of JPEGs; a release build (default: build)
# Installs the others from PyPI into a throw-away virtual environment (about 5 GB) under ${TMPDIR:-/tmp}, which stays for the
# next run: SATCHEL_PEERS=FOLDER puts it elsewhere.
set -eu
here=$(dirname "$0")
[ $# -ge 1 ] || { echo "usage: $0 IMAGES_FOLDER [BUILD_FOLDER]" >&2; exit 2; }
images=$1
build=${2:-$here/../../build}
venv=${SATCHEL_PEERS:-${TMPDIR:-/tmp}/satchel-peers}
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/pip" install -q torch torchvision pillow numpy nvidia-dali-cuda130 >&2

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$build/tools/satchel-pack" --source folder "$images" --out "$work/store.lmdb" >&2
core=$(($(nproc) - 1))
lscpu | sed -n 's/^Model name: *//p' | head -1
date -u +%F
OMP_NUM_THREADS=1 taskset -c "$core" "$venv/bin/python" "$here/peers.py" "$images" "$work/store.lmdb" "$(realpath "$build")"
