#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The documentation against the tree: every block names its language; every block of commands (sh) says in the line above which
# script runs it, "<!-- run by SCRIPT -->", or why none does, "<!-- not run by a test: REASON -->"; programs have the options
# that are written behind them; files, folders and headings that are named exist; tools/*.sh answer --help.
#   docs.sh SOURCE_ROOT FOLDER_OF_PROGRAMS...
set -u
cd "$1" || exit 1
shift
status=0
complain() {
    echo "$*" >&2
    status=1
}
pages="README.md clients/python/README.md $(echo docs/*.md)"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Blocks and their markers.
for page in $pages; do
    awk -v page="$page" '
        /^```/ && !inside { inside = 1; kind = substr($0, 4)
            if (kind == "") print page ":" FNR ": a block without a language"
            if (kind == "sh" && marker !~ /^<!-- (run by [^ ]+|not run by a test: .+) -->$/) print page ":" FNR ": commands that nothing runs"
            next }
        /^```/ { inside = 0; next }
        inside && kind != "sh" && /^ *(satchel-[a-z]+|tools\/[a-z_]+\.sh) / && kind != "text" { print page ":" FNR ": a command in a block that is not sh" }
        { marker = $0 }' "$page" >"$work/found"
    [ ! -s "$work/found" ] || complain "$(cat "$work/found")"
    sed -n 's/^<!-- run by \(.*\) -->$/\1/p' "$page" | sort -u | while read -r script; do
        grep -q "$(basename "$page")\|$(basename "$page" .md)" "$script" || echo "$page: $script does not run it"
    done >"$work/found"
    [ ! -s "$work/found" ] || complain "$(cat "$work/found")"
done

# Commands, one a line: those of sh blocks, with continued lines joined, and those between backticks.
for page in $pages; do
    awk -v page="$page" '
        /^```/ { inside = !inside; kind = substr($0, 4); next }
        inside && kind == "sh" { text = text $0; if (sub(/\\$/, " ", text)) next; print page ": " text; text = ""; next }
        !inside { paragraph = $0; while (match(paragraph, /`[^`]+`/)) {
            print page ": " substr(paragraph, RSTART + 1, RLENGTH - 2); paragraph = substr(paragraph, RSTART + RLENGTH) } }' "$page"
done | sed 's/  *#.*//; s/\$(.*)//' >"$work/commands"
for folder; do
    for program in "$folder"/satchel-*; do
        [ -f "$program" ] && [ -x "$program" ] || continue
        name=$(basename "$program")
        case $name in *.so | satchel-bench-decode) continue ;; esac
        "$program" --help >"$work/help" || complain "$name --help"
        "$program" --help | grep -oE '^  --[a-z0-9-]+' | tr -d ' ' >"$work/options"
        grep -oE "^[^ ]+|\b$name [^|;&]*" "$work/commands" | awk -v name="$name" '
            / / && index($0, name) == 1 { n = split($0, words, /[ =\[\]()]/); for (i = 2; i <= n; i++) if (words[i] ~ /^--[a-z]/) print page, words[i]; next }
            { page = $0 }' | sort -u >"$work/used"
        while read -r page option; do
            grep -qx -- "$option" "$work/options" || [ "$option" = --isolated-sample ] || complain "$page $name has no $option"
        done <"$work/used"
        echo "$name" >>"$work/names"
        cat "$work/options" >>"$work/all"
    done
done

# Options by themselves are some program's, or a tool's own.
grep -oE '^[^ ]+ --[a-z][a-z0-9-]+' "$work/commands" | sort -u | while read -r page option; do
    case $option in --kill-on-bad-exit | --oversubscribe | --signal | --user | --isolated-sample) continue ;; esac # of others; the loader's to itself
    grep -qx -- "$option" "$work/all" || grep -qe "$option\b" tools/*.sh || echo "$page no program has $option"
done >"$work/found"
[ ! -s "$work/found" ] || complain "$(cat "$work/found")"

# Files and folders.
sed 's/: /\n/; s/NAME\|TARGET/*/g' "$work/commands" | grep -oE '(^|[ `("])(common|proto|datasets|loader|trainer|tools|clients|recipes|tests|docs|systemd)/[A-Za-z0-9_./*-]*' |
    tr -d ' `("' | sort -u | while read -r path; do
        # shellcheck disable=SC2086 # a pattern
        ls -d ${path%.} >/dev/null 2>&1 || echo "the documentation names $path, which is not there"
    done >"$work/found"
[ ! -s "$work/found" ] || complain "$(cat "$work/found")"
anchors() { # FILE: what its headings are called in links
    grep '^#' "$1" | sed 's/^#* //' | tr '[:upper:]' '[:lower:]' | sed 's/[^a-z0-9 _-]//g; s/ /-/g'
}
for page in $pages; do
    grep -oE '\]\([^)#: ]+[)#]' "$page" | sed 's/^](//; s/.$//' | while read -r link; do
        [ -e "$(dirname "$page")/$link" ] || echo "$page: link to $link, which is not there"
    done
    grep -oE '\]\([^) :]*#[^)]+\)' "$page" | sed 's/^](//; s/)$//' | while read -r link; do
        file=${link%%#*}
        anchors "${file:+$(dirname "$page")/}${file:-$page}" | grep -qxF -- "${link#*#}" || echo "$page: link to $link, a heading that is not there"
    done
done >"$work/found"
[ ! -s "$work/found" ] || complain "$(cat "$work/found")"

# Scripts explain themselves.
for script in tools/*.sh tools/bench/*.sh; do
    case $script in */explain.sh | */start_loader.sh | */install_extras.sh | */torture_peers.sh) continue ;; esac # for others to use
    timeout 10 "$script" --help </dev/null >"$work/help" 2>&1 && grep -q "$(basename "$script")" "$work/help" || complain "$script --help does not explain it"
done
exit $status
