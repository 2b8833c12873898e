#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs what the build, the tests and the demo need from Debian 12. Needs root only when something is missing.
#   tools/deps.sh          build and demo
#   tools/deps.sh --test   and what only the tests need
#   tools/deps.sh --deb    and what tools/deb.sh needs
set -eu
. "$(dirname "$0")/explain.sh"
packages="
    gcc libc6-dev pkg-config meson ninja-build protobuf-c-compiler
    libjpeg62-turbo-dev liblmdb-dev libzmq3-dev libprotobuf-c-dev libarchive-dev libspng-dev libxxhash-dev
    libcjson-dev libinih-dev libdnnl-dev libopenmpi-dev openmpi-bin libcmocka-dev dataset-fashion-mnist"
[ "${1-}" != --test ] || packages="$packages clang-format-14 binutils g++ python3 python3-lmdb python3-numpy python3-protobuf
    python3-xxhash python3-zmq"
[ "${1-}" != --deb ] || packages="$packages dpkg-dev"

missing=
for package in $packages; do
    case "$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null)" in
    *"ok installed") ;;
    *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

echo "deps.sh: installing$missing" >&2
as_root=
if [ "$(id -u)" != 0 ]; then
    as_root=$(command -v sudo) || {
        echo "deps.sh: not root and no sudo here; as root run: apt-get install$missing" >&2
        exit 1
    }
fi
# Lists may be absent or stale on a fresh machine; installing may still work when only the update fails.
$as_root apt-get update -q >&2 || echo "deps.sh: apt-get update failed, trying with the lists at hand" >&2
# shellcheck disable=SC2086 # a list of words
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing >&2
