# SPDX-License-Identifier: Apache-2.0
# Completion for all satchel programs. Options and choices are read from --help, so they are always those of the program.
_satchel() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} help words
    help=$("$1" --help 2>/dev/null) || return
    if [[ $current == -* ]]; then
        words=$(grep -oE '^  --[a-z0-9-]+' <<<"$help")
    elif [[ $previous == --* ]]; then
        # "--schedule {step|cosine}", or "--device NAME  where it runs: auto|cpu|cuda (default auto)"
        words=$(grep -oE "^  $previous \{[^}]*\}" <<<"$help" | sed 's/.*{//; s/}//; s/|/ /g')
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
    [ ${#COMPREPLY[@]} -gt 0 ] || compopt -o default
}
