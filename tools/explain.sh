# SPDX-License-Identifier: Apache-2.0
# Read by the scripts beside it, first thing: with --help they print the comment at their own top and end.
explain() {
    awk 'NR > 2 && !/^#/ { exit } NR > 2 { sub(/^# ?/, ""); print }' "$0"
}
case ${1:-} in
--help | -h)
    explain
    exit 0
    ;;
esac
