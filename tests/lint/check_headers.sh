#!/bin/sh
# SPDX-License-Identifier: MIT
# check_headers.sh ROOT COMPILER...: every public header compiles alone and twice, as C17 and inside
# extern "C" as C++17.
set -u
root=${1:?usage: check_headers.sh ROOT COMPILER...}
shift
cd "$root/include" || exit 2
failed=0
for header in hanmix/*/*.h; do
    printf '#include "%s"\n#include "%s"\nextern int only_declaration;\n' "$header" "$header" |
        "$@" -std=c17 -Wall -Wextra -Wpedantic -Werror -D_GNU_SOURCE -I. -fsyntax-only -x c - ||
        { echo "$header: does not compile alone as C"; failed=1; }
    printf 'extern "C" {\n#include "%s"\n}\n' "$header" |
        "$@" -std=c++17 -Wall -Wextra -Werror -D_GNU_SOURCE -I. -fsyntax-only -x c++ - ||
        { echo "$header: does not compile as C++"; failed=1; }
done
exit $failed
