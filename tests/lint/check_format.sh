#!/bin/sh
# SPDX-License-Identifier: MIT
# check_format.sh ROOT: clang-format (version 14, whose layout .clang-format describes) would change no source.
set -u
root=${1:?usage: check_format.sh ROOT}
if ! command -v clang-format-14 >/dev/null; then
    echo "skipped: clang-format-14 is not installed (Debian package clang-format-14)"
    exit 77
fi
cd "$root" || exit 2
list=$(mktemp) && trap 'rm -f "$list"' EXIT
modules=$(sed -n 's/^\([a-z]*\):.*/\1/p' tests/lint/layers.txt)
find $modules include tests bench examples \( -name '*.[ch]' -o -name '*.cc' \) 2>/dev/null | sort |
    while read -r file; do
        clang-format-14 "$file" | cmp -s - "$file" || echo "$file: run clang-format-14 -i on it"
    done >"$list"
cat "$list"
[ ! -s "$list" ] || exit 77
