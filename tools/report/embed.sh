#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes a C string of a text file: embed.sh NAME FILE >OUTPUT
set -eu
printf '/* Made from %s. */\nconst char %s[] =\n' "$(basename "$2")" "$1"
sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/    "/' -e 's/$/\\n"/' "$2"
printf '    ;\n'
