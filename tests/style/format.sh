#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# All sources are formatted by .clang-format (clang-format 14), end with a newline and have no trailing blanks.
set -u
cd "$1" || exit 1
tool=$(command -v clang-format-14 || command -v clang-format) || {
    echo "skipped: no clang-format 14 on this machine"
    exit 77
}
"$tool" --version | grep -q 'version 14' || {
    echo "skipped: $tool is not version 14, whose output differs"
    exit 77
}
files=$(git ls-files '*.c' '*.h' '*.cu' 2>/dev/null)
[ -n "$files" ] || files=$(find common proto datasets loader trainer tools tests -name '*.[ch]')
status=0
# shellcheck disable=SC2086 # a list of files
"$tool" --dry-run -Werror $files || status=1
# shellcheck disable=SC2046
if grep -nE '[[:blank:]]+$' $files $(git ls-files '*.build' '*.sh' '*.proto' '*.ini' 2>/dev/null) /dev/null; then
    echo "trailing blanks" >&2
    status=1
fi
exit $status
