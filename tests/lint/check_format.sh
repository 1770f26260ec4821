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
list=$(mktemp) && trap 'rm -f "$list" "$list.out" "$list.bad"' EXIT
modules=$(sed -n 's/^\([a-z]*\):.*/\1/p' tests/lint/layers.txt)
find $modules include tests bench examples \( -name '*.[ch]' -o -name '*.cc' \) 2>/dev/null >"$list"
[ -s "$list" ] || { echo "no sources below $root"; exit 2; }
xargs -P 2 -n 16 clang-format-14 --dry-run <"$list" >"$list.out" 2>&1 || { cat "$list.out"; exit 1; }
sed -n 's/^\([^ :]*\):[0-9]*:[0-9]*: warning:.*clang-format.*/\1: run clang-format-14 -i on it/p' "$list.out" |
    sort -u >"$list.bad"
cat "$list.bad"
[ ! -s "$list.bad" ]
