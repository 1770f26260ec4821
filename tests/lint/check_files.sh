#!/bin/sh
# SPDX-License-Identifier: MIT
# check_files.sh ROOT: sources open with the licence line, have at most 600 lines and functions of at most 80, and
# unique stems within the library (kernels/ref and kernels/x86 share theirs on purpose); a second comment says what a
# file owns, and that of a public header its thread class; no file names a folder of one machine.
set -u
root=${1:?usage: check_files.sh ROOT}
cd "$root" || exit 2
list=$(mktemp) && trap 'rm -f "$list" "$list.bad"' EXIT
modules=$(sed -n 's/^\([a-z]*\):.*/\1/p' tests/lint/layers.txt)
find $modules include tests bench examples \( -name '*.[ch]' -o -name '*.cc' \) 2>/dev/null | sort >"$list"
[ -s "$list" ] || { echo "no sources below $root"; exit 2; }
: >"$list.bad"

while read -r file; do
    [ "$(head -n 1 "$file")" = "/* SPDX-License-Identifier: MIT */" ] ||
        echo "$file: the first line must be /* SPDX-License-Identifier: MIT */"
    [ "$(head -n 2 "$file" | tail -n 1)" = "/*" ] || echo "$file: the second line must begin the comment on what it owns"
    case $file in include/*) grep -q 'Thread class:' "$file" || echo "$file: no 'Thread class:' in its comment" ;; esac
    lines=$(wc -l <"$file")
    [ "$lines" -le 600 ] || echo "$file: $lines lines, at most 600"
    awk -v file="$file" '/^{/ { first = NR } /^}/ { if (first && NR - first - 1 > 80)
        print file ":" first ": a function of " NR - first - 1 " lines, at most 80"; first = 0 }' "$file"
done <"$list" >>"$list.bad"

grep -E '\.(c|cc)$' "$list" | grep -vE '^(tests|bench|examples|include|kernels/(ref|x86))/' |
    awk -F/ '{
        stem = $NF; sub(/\.[a-z]+$/, "", stem)
        if (stem in seen) print $0 ": its stem is also that of " seen[stem]
        seen[stem] = $0
    }' >>"$list.bad"

grep -rnIE --exclude=.git --exclude-dir=.git --exclude-dir='build*' --exclude-dir='.venv*' --exclude-dir=data --exclude-dir=runs \
    '(^|[^A-Za-z0-9_.$}>-])/(home|Users|root|work)/[a-z]' . |
    grep -v '^./tests/lint/' | sed 's/$/   <- a path of one machine/' >>"$list.bad"

cat "$list.bad"
[ ! -s "$list.bad" ]
