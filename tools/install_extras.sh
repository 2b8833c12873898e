#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Run by `meson install`: a manual page for every program, by itself; completion for bash under every program's name.
set -eu
bin=$MESON_INSTALL_DESTDIR_PREFIX/$1 man=$MESON_INSTALL_DESTDIR_PREFIX/$2/man1
completions=$MESON_INSTALL_DESTDIR_PREFIX/$3/bash-completion/completions
mkdir -p "$man" "$completions"
file=$completions/satchel
for program in "$bin"/satchel-*; do
    name=$(basename "$program")
    "$program" --man >"$man/$name.1"
    ln -sf satchel "$completions/$name"
done
{
    cat "$(dirname "$0")/completion.bash"
    printf 'complete -F _satchel'
    for program in "$bin"/satchel-*; do printf ' %s' "$(basename "$program")"; done
    echo
} >"$file"
