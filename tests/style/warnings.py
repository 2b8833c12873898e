#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every warning that a program can print is explained in docs/warnings.md: its longest stretch of fixed words stands there.

warnings.py SOURCE_ROOT [--list]
"""
import pathlib
import re
import sys

root = pathlib.Path(sys.argv[1])
page = " ".join((root / "docs/warnings.md").read_text().split()) if "--list" not in sys.argv else ""
call = re.compile(r'\blog_warn\(\s*((?:"(?:[^"\\]|\\.)*"|PRI\w+|\s)+)')
missing = found = 0
for folder in ("common", "proto", "datasets", "loader", "trainer", "tools"):
    for path in sorted((root / folder).rglob("*.c")):
        for match in call.finditer(path.read_text()):
            text = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"|PRI', match.group(1)))
            words = max(re.split(r"%[-+.*0-9a-z]*[a-zA-Z]?", text), key=len).strip(" ,:;()'\"")
            if len(words) < 8:
                continue  # "%s": what stands there comes from elsewhere
            found += 1
            if words not in page:
                missing += 1
                print(f"{path.relative_to(root)}: not in docs/warnings.md: {words}" if page else f"{path.relative_to(root)}: {text}")
if found < 40:
    sys.exit(f"only {found} warnings found: this test does not understand the sources")
sys.exit(1 if missing and page else 0)
