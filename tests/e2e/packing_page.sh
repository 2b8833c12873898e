#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The commands of docs/packing.md about ImageNet do what the page says, on archives of the same layout with a few small images.
#   packing_page.sh SOURCE_ROOT BUILD_ROOT
set -eu
source=$1 build=$2
. "$source/tests/e2e/pages.sh"
trap 'rm -rf "$work"' EXIT

# A tar of tars, one a class, with names like ImageNet's; a flat tar of validation images; Kaggle's csv; the synsets with other
# lines than the classes that are here.
mkdir inner val
echo 'ImageId,PredictionString' >LOC_val_solution.csv
printf '%s\n' 'n01440764 tench, Tinca tinca' 'n01443537 goldfish, Carassius auratus' 'n01484850 great white shark' >synsets.txt
n=0
for class in n01440764 n01443537; do
    mkdir $class
    for image in 420 422 440 444; do
        n=$((n + 1))
        cp "$source/tests/golden/loader/$image.jpg" $class/${class}_$n.JPEG
        cp "$source/tests/golden/loader/$image.jpg" val/ILSVRC2012_val_0000000$n.JPEG
        echo "ILSVRC2012_val_0000000$n,$class 12 13 140 150 " >>LOC_val_solution.csv
    done
    (cd $class && tar cf ../inner/$class.tar ./*)
done
(cd inner && tar cf ../ILSVRC2012_img_train.tar ./*)
(cd val && tar cf ../ILSVRC2012_img_val.tar ./*)

blocks docs/packing.md tests/e2e/packing_page.sh >page.sh
[ "$(wc -l <page.sh)" -ge 2 ] || fail "no blocks for this test"
sh -eux page.sh >log 2>&1 || { cat log >&2; exit 1; }
for split in train val; do
    satchel-inspect $split.lmdb --json --check 2>log >$split.json || { cat log >&2; exit 1; }
    grep -q '"samples":8' $split.json || fail "$split: $(cat $split.json)"
    grep -q 'goldfish, Carassius auratus' $split.json || fail "$split: no name of a class: $(cat $split.json)"
done
