#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# docs/walkthrough.md from its first command to its last, as a newcomer would: in a clean clone of what is committed here, with every
# picture of Fashion-MNIST and the ports of the page. A few minutes; tests/e2e/walkthrough.sh is the short form.
#   tools/walkthrough.sh [FOLDER]     where the clone goes (default: a temporary folder, removed when all went well)
set -eu
. "$(dirname "$0")/explain.sh"
root=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
folder=${1:-$(mktemp -d /tmp/satchel-XXXXXX)/clone}
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
git clone -q "$root" "$folder"
cd "$folder"
awk '/^<!-- / { marked = /^<!-- run by t[a-z0-9]*\/.*walkthrough.sh -->$/ } /^```/ { inside = marked && !inside; marked = inside; next } inside' \
    docs/walkthrough.md >day.sh
cp tests/golden/loader/444.jpg photo.jpg
set -x
# shellcheck disable=SC1091
. ./day.sh
set +x
echo "walkthrough.sh: every command of docs/walkthrough.md works"
[ $# -gt 0 ] || rm -rf "$(dirname "$folder")"
