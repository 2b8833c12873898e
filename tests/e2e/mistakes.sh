#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What users do wrong: each command ends with the right status, and one line that names the thing and the way out; nothing is lost.
#   mistakes.sh SOURCE_ROOT BUILD_ROOT
set -u
source=$1 build=$2
. "$source/tests/e2e/pages.sh"
loader=
trap '[ -z "$loader" ] || kill $loader; wait; rm -rf "$work"' EXIT
failed=0

# wrong STATUS WORDS COMMAND...: the last line on stderr has the words.
wrong() {
    status=$1 words=$2
    shift 2
    got=0
    "$@" >out 2>err </dev/null || got=$?
    tail -n 1 err >last
    if [ $got != "$status" ] || ! grep -qF -- "$words" last; then
        echo "$*: status $got, not $status, or not '$words':" >&2
        cat last >&2
        failed=1
    fi
}

mkdir pictures pictures/a pictures/b others others/c empty keys keys/none
for class in pictures/a pictures/b others/c; do cp "$source"/tests/golden/loader/4??.jpg $class/; done
satchel-pack --source folder pictures --out two.lmdb >log 2>&1 || fail "$(cat log)"
rm -r pictures/b
satchel-pack --source folder pictures --out one.lmdb >log 2>&1 || fail "$(cat log)"
satchel-keygen keys me >log 2>&1 || fail "$(cat log)"
small="--model resnet8d --size 32 --total-batch 2 --micro-batch 2 --threads 1"
satchel-trainer --loaders synthetic $small --max-steps 1 --json --out run >json 2>log || fail "$(cat log)"
[ "$(cat json)" = '{"samples":0}' ] || fail "--json without an evaluation: '$(cat json)'"
weights=run/last.safetensors
head -c 5000 two.lmdb >cut.lmdb
head -c 5000 $weights >cut.safetensors
echo hello >hello.txt

# Nothing of the log or the results gets into a file when standard descriptors are closed.
satchel-pack --source folder pictures --out one2.lmdb <&- >&- 2>&- && fail "results went nowhere, status 0"
cmp -s one.lmdb one2.lmdb || fail "the store has other bytes when standard descriptors are closed"
wrong 1 'standard output: No space left' sh -c 'satchel-inspect one.lmdb >/dev/full'
wrong 1 'standard output: No space left' sh -c 'satchel-preview one.lmdb --size 32 --total-batch 2 --micro-batch 2 --out x.png >/dev/full'
wrong 1 'standard output: No space left' sh -c 'satchel-pack --help >/dev/full'

wrong 2 'too few arguments' satchel-pack
wrong 2 "is not one of imagenet-tar|" satchel-pack --source fodler pictures --out x.lmdb
wrong 2 "did you mean '--source'?" satchel-pack --sorce folder pictures --out x.lmdb
wrong 1 'nowhere: No such file' satchel-pack --source folder nowhere --out x.lmdb
wrong 1 'holds no class folders' satchel-pack --source folder empty --out x.lmdb
wrong 1 'cannot make nowhere/x.lmdb.partial' satchel-pack --source folder pictures --out nowhere/x.lmdb
wrong 2 'exists already' satchel-pack --source folder pictures --out two.lmdb
wrong 1 '--split chooses train or t10k' satchel-pack --source idx empty --out x.lmdb
wrong 1 'a folder, not a regular file' satchel-pack --source rec pictures --out x.lmdb
wrong 1 "cannot read 'nowhere.csv'" satchel-pack --source folder pictures --labels nowhere.csv --out x.lmdb
wrong 1 'class b holds no files' satchel-pack --source folder pictures --classes-of two.lmdb --out x.lmdb
wrong 1 'train and val must have the same' satchel-pack --source folder others --classes-of two.lmdb --out x.lmdb
wrong 1 'not a Satchel store' satchel-inspect hello.txt
wrong 1 'copy or pack it again' satchel-inspect cut.lmdb
wrong 2 'the last one is 7' satchel-inspect two.lmdb --extract 8
wrong 2 'is the store itself' satchel-inspect two.lmdb --extract 0 --out ./two.lmdb
wrong 2 'belongs to --replay' satchel-inspect two.lmdb --isolate
wrong 2 'no result to tell by --json' satchel-inspect two.lmdb --extract 0 --json
wrong 2 'must end in .png or .npz' satchel-preview two.lmdb --out x.jpg
wrong 2 'resize-short 8 is less than eval-size 32' satchel-preview two.lmdb --eval-size 32 --resize-short 8 --out x.png
wrong 2 'has no chunk 9' satchel-preview two.lmdb --chunk 9 --out x.png
wrong 2 'shipped are: ' satchel-preview two.lmdb --recipe nowhere --out x.png
wrong 2 "'keys/me.pub' exists" satchel-keygen keys me

wrong 2 '--bind ENDPOINT is missing' satchel-loader --data train=two.lmdb
wrong 2 'expected NAME=FILE.lmdb' satchel-loader --data two.lmdb --bind ipc://l
wrong 2 'an endpoint is tcp://HOST:PORT or ipc://PATH' satchel-loader --data train=two.lmdb --bind 127.0.0.1:5555
wrong 2 'give keys' satchel-loader --data train=two.lmdb --bind 'tcp://*:5555'
wrong 1 'this host has no such address' satchel-loader --data train=two.lmdb --bind tcp://192.0.2.1:5555 --insecure
wrong 1 'this host has no such address' satchel-loader --data train=two.lmdb --bind tcp://nowhere.invalid:5555 --insecure
wrong 2 'two stores of the name train' satchel-loader --data train=two.lmdb train=one.lmdb --bind ipc://l
wrong 2 'a file of that name is there' satchel-loader --data train=two.lmdb --bind ipc://two.lmdb
wrong 2 'is the store itself' satchel-loader --data train=two.lmdb --bind ipc://l --ready-file ./two.lmdb
wrong 2 'is the store itself' satchel-loader --data train=two.lmdb --bind ipc://l --metrics-file two.lmdb
wrong 2 '--secret-key FILE goes with --allow DIR' satchel-loader --data train=two.lmdb --bind ipc://l --secret-key keys/me.key
wrong 1 'holds a public key, the secret one is expected' satchel-loader --data train=two.lmdb --bind ipc://l --secret-key keys/me.pub --allow keys
chmod 644 keys/me.key
wrong 1 'chmod 600 it' satchel-loader --data train=two.lmdb --bind ipc://l --secret-key keys/me.key --allow keys
chmod 600 keys/me.key

# Of the trainer, what is found before a loader is there, then with one.
try="satchel-trainer --loaders ipc://$work/l $small --out new"
wrong 2 '--loaders is missing' satchel-trainer
wrong 2 "unknown model 'resnet51'" $try --model resnet51
wrong 1 "--init: cannot open 'nowhere'" $try --init nowhere
wrong 1 "--teacher: cannot open 'nowhere'" $try --teacher nowhere
wrong 2 'is not divisible by' $try --total-batch 3
wrong 2 'is not empty' $try --out run
wrong 1 'is a file: give a directory' $try --out hello.txt
wrong 2 'use the recipe.ini beside it' satchel-trainer --loaders synthetic $small --max-steps 1 --out run --resume --epochs 3
wrong 2 'needs weights' $try --eval-only
wrong 1 '(--stall-limit)' $try --stall-limit 0.2
satchel-loader --data train=two.lmdb --bind "ipc://$work/l" --ready-file ready 2>loader.log &
loader=$!
until [ -e ready ]; do kill -0 $loader || fail "$(cat loader.log)"; done
wrong 1 'another program uses it' satchel-loader --data train=two.lmdb --bind "ipc://$work/l"
wrong 2 'less than one --total-batch' $try --total-batch 64
wrong 1 'it does not use keys' $try --secret-key keys/me.key --server-keys keys
wrong 1 "there is no key; copy the loaders' .pub there" $try --secret-key keys/me.key --server-keys keys/none
wrong 1 "start them with --data val=FILE.lmdb" $try --eval-only --init $weights
[ ! -e new/last.safetensors ] || fail "a run that was refused left weights"

wrong 2 'give image files or --data' satchel-predict $weights
wrong 1 'is no safetensors file' satchel-predict hello.txt hello.txt
wrong 1 'cut short' satchel-predict cut.safetensors hello.txt
wrong 1 "cannot read 'nowhere.jpg'" satchel-predict $weights nowhere.jpg
wrong 1 'none of the images could be read' satchel-predict $weights hello.txt
wrong 2 'classes, the network of' satchel-predict $weights pictures/a/444.jpg --classes-of two.lmdb
satchel-predict $weights pictures/a/444.jpg --eval-size 1024 >log 2>&1 || fail "$(cat log)"
wrong 2 'nothing to write' satchel-export $weights
cp $weights before
wrong 2 'is the checkpoint itself' satchel-export $weights --timm run/../$weights
wrong 2 'give them two names' satchel-export $weights --timm x --onnx x
wrong 2 'is the file of weights itself' satchel-predict $weights pictures/a/444.jpg --csv $weights
wrong 2 'is one of the images itself' satchel-predict $weights pictures/a/444.jpg --logits ./pictures/a/444.jpg
wrong 2 'is the store itself' satchel-predict $weights --data two.lmdb --csv two.lmdb
wrong 2 'give them two names' satchel-predict $weights --data two.lmdb --csv x --logits x
wrong 2 'is a file of the run itself' satchel-report run --out run/last.safetensors
cmp -s before $weights || fail "the checkpoint is another"
wrong 1 'is not the directory of a run' satchel-report empty
wrong 1 "cannot write 'nowhere/r.html'" satchel-report run --out nowhere/r.html
exit $failed
