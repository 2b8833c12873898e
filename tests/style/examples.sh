#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The scripts under docs/examples parse, are named in docs/operations.md, use options and recipes that there are, and have a total batch
# that their ranks can share.
#   examples.sh SOURCE_ROOT TRAINER
set -u
cd "$1" || exit 1
help=$("$2" --help) || exit 1
status=0
complain() {
    echo "$*" >&2
    status=1
}
# number KEY: what the file says on its command line, or else its recipe
number() {
    sed -n "/^#/d; s/.*--$1 \([0-9]*\).*/\1/p" "$file" | grep . || sed -n "s/^$1 = //p" "recipes/$recipe.ini"
}
ranks_of() { # of mpirun, or of Slurm's nodes
    sed -n 's/.*mpirun -n \([0-9]*\).*/\1/p' "$file" | grep . ||
        echo $(($(sed -n 's/^#SBATCH --nodes=//p' "$file") * $(sed -n 's/^#SBATCH --ntasks-per-node=//p' "$file")))
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
        total=$(number total-batch) micro=$(number micro-batch) ranks=$(ranks_of)
        [ $((total % (ranks * micro))) -eq 0 ] || complain "$file: a total batch of $total for $ranks ranks of micro-batch $micro"
    done
    grep -q "examples/$(basename "$file")" docs/*.md || complain "$file is named nowhere in docs/"
done
exit $status
