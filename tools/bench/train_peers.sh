#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Training steps and inference on this machine's CPU beside PyTorch's and onnxruntime's; prints a table (hours for all rows).
#   tools/bench/train_peers.sh [BUILD_FOLDER [ROW...]]     a release build (default: build); rows: see train_peers.py
# Installs PyTorch and onnxruntime from PyPI into a throw-away virtual environment (about 5 GB) under ${TMPDIR:-/tmp}/satchel-torch,
# which stays for the next run: SATCHEL_TORCH=FOLDER puts it elsewhere. What was measured is kept in SATCHEL_RESULTS (default:
# ${TMPDIR:-/tmp}/satchel-peers.jsonl) and not measured again: an interrupted run goes on, and rows can be done one at a time.
# SATCHEL_ALONE: a command in front of the measurement.
set -eu
. "$(dirname "$0")/../explain.sh"
here=$(dirname "$0")
build=$(realpath "${1:-$here/../../build}")
[ $# -eq 0 ] || shift
venv=${SATCHEL_TORCH:-${TMPDIR:-/tmp}/satchel-torch}
results=${SATCHEL_RESULTS:-${TMPDIR:-/tmp}/satchel-peers.jsonl}
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/python" -c 'import torch, timm, onnx, onnxruntime, onnxscript' 2>/dev/null ||
    "$venv/bin/pip" install -q torch torchvision timm onnx onnxruntime onnxscript >&2
lscpu | sed -n 's/^Model name: *//p' | head -1
date -u +%F
"$venv/bin/python" -c 'import torch, onnxruntime; print("PyTorch", torch.__version__, "onnxruntime", onnxruntime.__version__)'
# shellcheck disable=SC2086 # words
${SATCHEL_ALONE-} "$venv/bin/python" "$here/train_peers.py" "$build" "$results" "$@"
