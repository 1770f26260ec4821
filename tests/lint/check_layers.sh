#!/bin/sh
# SPDX-License-Identifier: MIT
# check_layers.sh ROOT: every #include obeys layers.txt: modules include only the public headers of modules
# below them, private headers stay in their module, and some system headers belong to one file.
set -u
root=${1:?usage: check_layers.sh ROOT}
rules=$root/tests/lint/layers.txt
modules=$(sed -n 's/^\([a-z]*\):.*/\1/p' "$rules")
[ -n "$modules" ] || { echo "no rules in $rules"; exit 2; }

cd "$root" || exit 2
for module in $modules; do
    find "$module" "include/hanmix/$module" -name '*.[ch]' -o -name '*.cc' 2>/dev/null |
        xargs -r grep -HE '^[[:space:]]*#[[:space:]]*include' /dev/null |
        sed "s/^/$module /"
done | awk -v rules="$rules" '
BEGIN {
    while ((getline line < rules) > 0) {
        if (line ~ /^#/ || line == "") continue
        split(line, half, ": *")
        if (line ~ /^only /) { sub(/^only /, "", half[1]); only[half[1]] = half[2]; continue }
        known[half[1]] = 1
        allowed[half[1], half[1]] = 1
        n = split(half[2], name, " ")
        for (i = 1; i <= n; i++) allowed[half[1], name[i]] = 1
    }
}
{
    module = $1
    sub(/^[^ ]+ /, "")
    colon = index($0, ":")
    file = substr($0, 1, colon - 1)
    if (!match($0, /["<][^">]+[">]/)) next
    target = substr($0, RSTART + 1, RLENGTH - 2)
    quoted = substr($0, RSTART, 1) == "\""
    n = split(target, part, "/")
    if (part[1] == "hanmix") {
        if (!(part[2] in known)) bad("unknown module " part[2])
        else if (!((module, part[2]) in allowed)) bad(module " may not include " part[2])
    } else if (quoted) {
        for (i = 1; i < n; i++)
            if ((part[i] in known) && part[i] != module) bad("a private header of " part[i])
    }
    if ((part[n] in only) && only[part[n]] != file) bad("only " only[part[n]] " may include it")
}
function bad(why) { print file ": includes " target ": " why; failed = 1 }
END { exit failed }
'
