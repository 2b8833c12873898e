#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The loader's systemd unit: systemd understands every line of it, and finds it as confined as docs/operations.md says.
#   unit.sh UNIT
set -u
command -v systemd-analyze >/dev/null || {
    echo "skipped: no systemd-analyze on this machine"
    exit 77
}
systemd-analyze security --help | grep -q -- --offline || {
    echo "skipped: this systemd-analyze cannot look at a file"
    exit 77
}
# Of a program that is not installed it says so; anything else is a mistake in the unit.
said=$(systemd-analyze verify --man=no "$1" 2>&1 | grep "$(basename "$1")" | grep -v 'is not executable')
[ -z "$said" ] || {
    echo "$said" >&2
    exit 1
}
systemd-analyze security --offline=true --no-pager --threshold=20 "$1" >/dev/null || {
    systemd-analyze security --offline=true --no-pager "$1" | grep -v '^✓' >&2
    exit 1
}
