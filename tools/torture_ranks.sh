#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The long form of tests/ranks: 20 jobs of 4 ranks each lose one by kill -9, every other one its loader too.
#   tools/torture_ranks.sh BUILD
set -eu
. "$(dirname "$0")/explain.sh"
[ $# -eq 1 ] || { explain >&2; exit 2; }
cd "$(dirname "$0")/.."
KILLS=${KILLS:-20} exec tests/ranks/ranks.sh "$1"
