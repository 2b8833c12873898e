# SPDX-License-Identifier: Apache-2.0
# Sourced by the tests that run commands of the documentation, so that a page and what it promises cannot come apart.
# Needs $source and $build, gives a temporary folder $work, which is the current one, with the programs on PATH.
work=$(mktemp -d /tmp/satchel-XXXXXX)
mkdir "$work/build"
for folder in tools loader trainer; do
    mkdir "$work/build/$folder"
    ln -s "$build/$folder"/satchel-* "$work/build/$folder/"
done
ln -s "$source/recipes" "$work/recipes"
PATH=$work/build/tools:$work/build/loader:$work/build/trainer:$PATH
cd "$work" || exit 1

# blocks FILE SCRIPT: the lines of FILE's blocks that are marked as run by SCRIPT.
blocks() {
    awk -v marker="<!-- run by $2 -->" '/^<!-- / { marked = $0 == marker } /^```/ { inside = marked && !inside; marked = inside; next }
        inside' "$source/$1"
}

fail() {
    echo "$@" >&2
    exit 1
}
