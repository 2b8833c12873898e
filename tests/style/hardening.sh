#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What the linker made of the hardening flags: position-independent, full RELRO, no executable stack, and (not with
# sanitizers, which replace them) stack protector and FORTIFY.
#   hardening.sh FORTIFY(true|false) PROGRAM...
set -u
fortify=$1
shift
command -v readelf >/dev/null || {
    echo "skipped: no readelf on this machine"
    exit 77
}
status=0
# expect WHAT TEXT PATTERN
expect() {
    printf '%s\n' "$2" | grep -qE "$3" || {
        echo "$program: $1 is missing" >&2
        status=1
    }
}
for program; do
    header=$(readelf -hW "$program")
    segments=$(readelf -lW "$program")
    dynamic=$(readelf -dW "$program")
    symbols=$(readelf --dyn-syms -W "$program")
    expect "position independence" "$header" 'Type: *DYN'
    expect "RELRO" "$segments" 'GNU_RELRO'
    expect "immediate binding, for full RELRO" "$dynamic" 'BIND_NOW|FLAGS_1.*NOW'
    expect "a stack that is not executable" "$segments" 'GNU_STACK .* RW  '
    [ "$fortify" = false ] || expect "the stack protector" "$symbols" '__stack_chk_fail'
    [ "$fortify" = false ] || expect "FORTIFY" "$symbols" '__[a-z]+_chk'
done
exit $status
