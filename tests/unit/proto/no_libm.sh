#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The stream's draws must not call libm's transcendental functions, whose bits depend on the processor.
#   no_libm.sh NM LIBRARY: every symbol that the draw objects leave undefined is one that we know.
set -u
symbols=$("$1" "$2") || exit 1
foreign=$(printf '%s\n' "$symbols" | awk '
    /^[^ ]*\.o:$/ || /^[^ ]*\[.*\.o\]:$/ { object = $1; next }
    object ~ /(draw|draw_math|order|philox|chunk)\.c\.o/ && $1 == "U" { print object, $2 }' |
    grep -vE ' (philox|draw_[a-z_0-9]+|spec_mixes|err_set|sqrt|memcpy|memset|_GLOBAL_OFFSET_TABLE_|__stack_chk_fail|__(asan|ubsan)_.*|__tsan_.*|__sanitizer_.*)$')
# The awk must have seen the objects at all.
printf '%s\n' "$symbols" | grep -q 'T draw_log$' || {
    echo "no draw_log in $2" >&2
    exit 1
}
[ -z "$foreign" ] || {
    echo "undefined symbols that the stream may not use:" >&2
    echo "$foreign" >&2
    exit 1
}
