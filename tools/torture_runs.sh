#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The long forms of a run's tests: kill -9 at random instants through loaders and wire, each time gone on with, until the
# run's files are equal in every byte to those of a run that nothing disturbed; and the save path killed before every
# system call, with every call on a file failing.
#   tools/torture_runs.sh --build DIR [--kills N]      N: 50
set -eu
. "$(dirname "$0")/explain.sh"
[ $# -gt 0 ] || { explain >&2; exit 2; }
cd "$(dirname "$0")/.."
build=build kills=50
while [ $# -gt 0 ]; do
    case $1 in
    --build) build=$2; shift 2 ;;
    --kills) kills=$2; shift 2 ;;
    *) echo "torture_runs.sh: no option $1 (see --help)" >&2; exit 2 ;;
    esac
done
"$build/tests/fault/test_save" 2>/dev/null
SATCHEL_LOADER=$build/loader/satchel-loader SATCHEL_TRAINER=$build/trainer/satchel-trainer SATCHEL_KILLS=$kills \
    "$build/tests/e2e/test_train"
