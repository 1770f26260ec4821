#!/bin/sh
# SPDX-License-Identifier: MIT
# check_symbols.sh LIBRARY...: every strong symbol that a library of ours defines begins with hm_ (compiler and
# sanitizer names, with two underscores, aside).
set -u
[ $# -gt 0 ] || { echo "usage: check_symbols.sh LIBRARY..."; exit 2; }
failed=0
for library; do
    names=$(nm -g --defined-only "$library" 2>/dev/null | awk 'NF == 3 && $2 ~ /[TDBRG]/ { print $3 }')
    [ -n "$names" ] || { echo "$library: no symbols found"; failed=1; }
    foreign=$(echo "$names" | grep -vE '^(hm_|__|$)')
    [ -z "$foreign" ] || { echo "$(basename "$library"): not prefixed hm_:" $foreign; failed=1; }
done
exit $failed
