#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every header of the project compiles alone, every file says what it is about, and all respect the house: who may include what.
#   headers.sh SOURCE_ROOT COMPILER...
set -u
cd "$1" || exit 1
shift
status=0
complain() {
    echo "$*" >&2
    status=1
}

for header in $(git ls-files '*.h' 2>/dev/null || find common proto datasets loader trainer tests -name '*.h'); do
    [ -f "$header" ] || continue
    case $header in trainer/cuda/* | trainer/mpi/* | tests/vgpu/*) continue ;; esac # need CUDA, MPI
    case $header in *_vector.h | *avx512_by_halves.h) continue ;; esac # for the file of one instruction set
    # GOLDEN_FOLDER: the build tells tests where the golden files are.
    "$@" -std=gnu11 -D_GNU_SOURCE -DGOLDEN_FOLDER='""' -Wall -Wextra -Wno-missing-field-initializers -Wno-unused-function -Wno-unused-parameter -Werror -fsyntax-only -I. \
        -include "$header" -x c /dev/null || complain "$header does not compile alone"
done

# The second line of every file says what it is about; a source beside its header may leave that to it.
for file in $(git ls-files '*.[ch]' '*.cu' '*.cpp' 2>/dev/null || find common proto datasets loader trainer tools tests -name '*.[ch]'); do
    [ -f "$file" ] || continue
    sed -n 2p "$file" | grep -q '^/[*/]\|^#include "' || complain "$file does not say what it is about"
done

# forbid PATTERN WHERE REASON: no #include matching PATTERN in the files of WHERE.
forbid() {
    # shellcheck disable=SC2086 # a list of folders
    found=$(grep -rnE "^ *# *include *[<\"]$1" --include='*.[ch]' --include='*.cu' $2 2>/dev/null)
    [ -z "$found" ] || complain "$3:
$found"
}
forbid 'trainer/' 'common proto datasets loader' 'only the trainer and tools include trainer/'
forbid 'loader/' 'common proto datasets trainer' 'only the loader and tools include loader/'
forbid '(proto|loader|trainer)/' 'datasets' 'datasets/ stands on common/ alone'
forbid 'datasets/' 'trainer' 'the trainer knows no stores'
forbid 'tools/' 'common proto datasets loader trainer' 'nothing includes tools/'
forbid 'lmdb\.h' 'common proto loader trainer tools' 'only datasets/ touches LMDB'
forbid 'zmq\.h' 'common datasets loader trainer tools' 'only proto/ touches ZeroMQ'
forbid '(oneapi|dnnl)' 'common proto datasets loader tools trainer/model trainer/ref' 'only trainer/dnnl/ sees oneDNN'
forbid '(cuda|cudnn|cublas|nccl)' 'common proto datasets loader tools trainer/model trainer/ref trainer/dnnl trainer/mpi' \
    'only trainer/cuda/ and trainer/nccl/ see CUDA'
forbid 'mpi\.h' 'common proto datasets loader tools trainer/cuda trainer/dnnl trainer/model trainer/ref' \
    'only trainer/mpi/ sees MPI'
forbid '(datasets|loader|trainer)/' 'common proto' 'common/ and proto/ stand below everything'
forbid '(proto|datasets|loader|trainer)/' 'common' 'common/ stands alone'
exit $status
