#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The per-sample path beside DALI, torchvision, FFCV and libjpeg-turbo on the same JPEGs, in one run on one core; prints a table.
#   tools/bench/peers.sh IMAGES_FOLDER [BUILD_FOLDER]     class folders of JPEGs; a release build (default: build)
#   tools/bench/peers.sh --install                        installs the others and measures nothing
# Installs the others from PyPI into two throw-away virtual environments (about 10 GB) under ${TMPDIR:-/tmp}/satchel-peers, which
# stay, with the packs, for the next run: SATCHEL_PEERS=FOLDER puts them elsewhere. FFCV is built from source and needs Debian's
# libopencv-dev, libturbojpeg0-dev and pkg-config; where its build fails it is left out. SATCHEL_ALONE: a command in front of the
# measurement (taskset, a lock).
set -eu
. "$(dirname "$0")/../explain.sh"
here=$(dirname "$0")
case ${1-} in
    --install) [ $# -eq 1 ] ;;
    '' | -*) false ;;
    *) [ $# -le 2 ] ;;
esac || { explain >&2; exit 2; }
work=${SATCHEL_PEERS:-${TMPDIR:-/tmp}/satchel-peers}

# venv NAME PACKAGE...
venv() {
    name=$work/$1
    shift
    [ ! -e "$name/ready" ] || return 0
    python3 -m venv "$name" && "$name/bin/pip" install -q "$@" >&2 && touch "$name/ready"
}

# pack NAME OPTION...
pack() {
    name=$work/$1.lmdb
    shift
    rm -f "$name"
    "$build/tools/satchel-pack" --source folder "$images" --out "$name" "$@" >&2
}

mkdir -p "$work"
venv dali torch torchvision pillow numpy nvidia-dali-cuda130
ffcv=
if venv ffcv wheel setuptools ffcv pillow opencv-python-headless torchvision tqdm psutil; then
    ffcv=$work/ffcv/bin/python
else
    echo "peers.sh: FFCV does not build here and is left out" >&2
fi
[ "$1" != --install ] || exit 0

images=$(realpath "$1")
build=$(realpath "${2:-$here/../../build}")
pack original
pack long500 --resize-long 500 --quality 90
pack short256 --resize-short 256 --quality 90
ls -l "$work"/*.lmdb >&2

core=$(($(nproc) - 1))
lscpu | sed -n 's/^Model name: *//p' | head -1
date -u +%F
export OMP_NUM_THREADS=1
# shellcheck disable=SC2086 # words
${SATCHEL_ALONE-} taskset -c "$core" "$work/dali/bin/python" "$here/peers.py" "$images" "$work" "$build" $ffcv
