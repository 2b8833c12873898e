#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every program accepts a whole recipe file and ignores keys of the others: so every option of every
# program must be in proto/recipe.c, in its table or among the foreign keys.
#   known_keys.sh SOURCE_ROOT
set -u
cd "$1" || exit 1
names=$(grep -rhoE '\{"[a-z0-9-]+", *OPT_' --include='*.c' datasets loader trainer tools proto |
    grep -oE '"[a-z0-9-]+"' | sort -u)
[ "$(printf '%s\n' "$names" | wc -l)" -ge 40 ] || {
    echo "found too few options: has the tables' form changed?" >&2
    exit 1
}
status=0
for name in $names; do
    grep -q "$name" proto/recipe.c || {
        echo "proto/recipe.c: foreign_keys lacks $name" >&2
        status=1
    }
done
exit $status
