#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The scripts under docs/examples parse, are named in docs/operations.md, and use options and recipes that there are.
#   examples.sh SOURCE_ROOT TRAINER
set -u
cd "$1" || exit 1
help=$("$2" --help) || exit 1
status=0
complain() {
    echo "$*" >&2
    status=1
}
for file in docs/examples/*; do
    case $file in
    *.sh | *.sbatch)
        bash -n "$file" || complain "$file does not parse"
        for option in $(sed -n '/satchel-trainer/,$p' "$file" | grep -v '^ *#' | grep -oE ' --[a-z][a-z-]+' | sort -u); do
            case $option in --nv | --mpi | --host | --bind-to | --kill-on-bad-exit) continue ;; esac # not ours
            printf '%s' "$help" | grep -q -- "$option\b" || complain "$file: the trainer has no $option"
        done
        ;;
    esac
    for recipe in $(sed -n 's/.*RECIPE:-\([a-z0-9-]*\)}.*/\1/p; s/.*--recipe \([a-z][a-z0-9-]*\).*/\1/p' "$file"); do
        [ -f "recipes/$recipe.ini" ] || complain "$file: there is no recipe $recipe"
    done
    grep -q "examples/$(basename "$file")" docs/*.md || complain "$file is named nowhere in docs/"
done
exit $status
