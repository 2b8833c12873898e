#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the packages of tools/deb.sh in a clean Debian 12 root and uses them there: pack, inspect, preview, serve,
# train, on images that it makes. Needs root and mmdebstrap.
#   tools/deb_test.sh [FOLDER_OF_PACKAGES]     (default: dist, built when empty)
set -eu
. "$(dirname "$0")/explain.sh"
cd "$(dirname "$0")/.."
packages=${1:-dist}
ls "$packages"/satchel-*.deb >/dev/null 2>&1 || tools/deb.sh "$packages"
work=$(mktemp -d)
trap 'umount "$work/root/proc" 2>/dev/null || true; rm -rf "$work"' EXIT
root=$work/root
fail() {
    echo "deb_test.sh: FAILED: $*" >&2
    exit 1
}
mmdebstrap --quiet --variant=apt --include=python3-minimal,systemd bookworm "$root" || fail "no clean root"
mount -t proc proc "$root/proc"
inside() { chroot "$root" env HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 "$@"; }
cp /etc/resolv.conf "$root/etc/resolv.conf"
inside apt-get update -q >"$work/log" 2>&1 || fail "apt-get update"
mkdir "$root/debs"

# The loader alone first: nothing of CUDA, MPI or oneDNN may come with it.
cp "$packages"/satchel-common_*.deb "$packages"/satchel-loader_*.deb "$root/debs"
inside sh -c 'apt-get install -q -y --no-install-recommends /debs/*.deb' >"$work/log" 2>&1 ||
    { tail -n 20 "$work/log" >&2; fail "the loader does not install"; }
inside dpkg-query -W -f '${Package}\n' | grep -E 'dnnl|openmpi|cuda|cudnn|nccl|cublas' && fail "the loader brought the above"
inside dpkg-query -W -f '${Package} ${Installed-Size} KiB\n' satchel-common satchel-loader

inside getent passwd satchel >/dev/null || fail "no user for the service"

# 240 images of 4 classes as raw IDX files.
inside python3 - <<'EOF'
import random, struct
random.seed(1)
images, labels = bytearray(), bytearray()
for i in range(240):
    label = i % 4
    labels.append(label)
    for y in range(16):
        for x in range(16):
            images.append(random.randrange(60) + (150 if y // 4 == label else 0))
open("/root/images", "wb").write(struct.pack(">IIII", 0x803, 240, 16, 16) + images)
open("/root/labels", "wb").write(struct.pack(">II", 0x801, 240) + labels)
EOF
inside satchel-pack --source idx /root/images /root/labels --out /root/train.lmdb >/dev/null 2>&1 || fail "pack"
inside satchel-inspect /root/train.lmdb --check >/dev/null 2>&1 || fail "inspect"
inside satchel-preview /root/train.lmdb --out /root/batch.npz --recipe fashion-mnist >/dev/null 2>&1 || fail "preview"

cp "$packages"/satchel-trainer_*.deb "$root/debs"
inside sh -c 'apt-get install -q -y --no-install-recommends /debs/*.deb' >"$work/log" 2>&1 ||
    { tail -n 20 "$work/log" >&2; fail "the trainer does not install"; }
inside dpkg-query -W -f '${Package} ${Installed-Size} KiB\n' satchel-trainer
for program in "$root"/usr/bin/satchel-*; do
    name=$(basename "$program")
    inside "/usr/bin/$name" --version >/dev/null || fail "$name --version"
    [ -s "$root/usr/share/man/man1/$name.1.gz" ] || fail "$name has no manual page"
done
inside sh -c '
    satchel-loader --data train=/root/train.lmdb --bind ipc:///root/loader.sock --workers 1 2>/root/loader.log &
    satchel-trainer --loaders ipc:///root/loader.sock --recipe fashion-mnist --size 16 --total-batch 32 --micro-batch 32 \
        --max-steps 5 --out /root/run 2>/root/trainer.log
    status=$?
    kill $!
    wait
    exit $status' || { tail -n 20 "$root/root/trainer.log" >&2; fail "training"; }
[ "$(grep -c '"event":"step"' "$root/root/run/metrics.jsonl")" = 5 ] || fail "five steps"
echo "deb_test.sh: the packages install, and train, in a clean root"
