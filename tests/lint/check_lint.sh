#!/bin/sh
# SPDX-License-Identifier: MIT
# check_lint.sh ROOT: the lint scripts themselves: each must fail, naming the file, on a small tree with one
# fault, and pass on the same tree without it.
set -u
lint=${1:?usage: check_lint.sh ROOT}/tests/lint
tree=$(mktemp -d) && trap 'rm -rf "$tree"' EXIT
failed=0

fresh() {
    rm -rf "$tree"/* && mkdir -p "$tree/base" "$tree/kernels" "$tree/vocab" "$tree/include/hanmix/base" "$tree/tests/lint"
    printf 'base:\nkernels: base\nvocab: base\nonly cblas.h: kernels/blas.c\n' >"$tree/tests/lint/layers.txt"
    for file in base/one.c kernels/blas.c vocab/two.c include/hanmix/base/one.h; do
        printf '/* SPDX-License-Identifier: MIT */\n/*\n * Thread class: pure.\n */\n' >"$tree/$file"
    done
    echo '#include "hanmix/base/one.h"' >>"$tree/vocab/two.c"
    echo '#include <cblas.h>' >>"$tree/kernels/blas.c"
}
# expect NAME SCRIPT FILE: the script must fail and name the file
expect() {
    if "$lint/$2" "$tree" >"$tree/out" 2>&1; then
        echo "$1: $2 passed"; failed=1
    elif ! grep -q "$3" "$tree/out"; then
        echo "$1: $2 does not name $3:"; cat "$tree/out"; failed=1
    fi
}

fresh
for script in check_layers.sh check_files.sh; do
    "$lint/$script" "$tree" >"$tree/out" 2>&1 || { echo "clean tree: $script failed:"; cat "$tree/out"; failed=1; }
done
fresh; echo '#include "hanmix/vocab/x.h"' >>"$tree/base/one.c"; expect "upward include" check_layers.sh base/one.c
fresh; echo '#include "hanmix/vocab/x.h"' >>"$tree/include/hanmix/base/one.h"
expect "upward include in a header" check_layers.sh include/hanmix/base/one.h
fresh; echo '#include "../base/internal.h"' >>"$tree/vocab/two.c"; expect "private header" check_layers.sh vocab/two.c
fresh; echo '#include <cblas.h>' >>"$tree/vocab/two.c"; expect "reserved header" check_layers.sh vocab/two.c
fresh; echo 'int x;' >"$tree/base/one.c"; expect "no licence line" check_files.sh base/one.c
fresh; yes '' | head -n 601 >>"$tree/base/one.c"; expect "too long" check_files.sh base/one.c
fresh; { echo 'int f(void)'; echo '{'; yes '' | head -n 81; echo '}'; } >>"$tree/base/one.c"
expect "long function" check_files.sh base/one.c:6
fresh; sed -i 2,4d "$tree/base/one.c"; expect "no opening comment" check_files.sh base/one.c
fresh; sed -i 3d "$tree/include/hanmix/base/one.h"; expect "no thread class" check_files.sh include/hanmix/base/one.h
fresh; cp "$tree/base/one.c" "$tree/vocab/one.c"; expect "same stem" check_files.sh vocab/one.c
fresh; echo 'see /home/somebody/notes' >"$tree/README.md"; expect "developer path" check_files.sh README.md
if command -v clang-format-14 >/dev/null; then
    fresh; cp "$lint/../../.clang-format" "$tree"
    "$lint/check_format.sh" "$tree" >"$tree/out" 2>&1 || { echo "clean tree: check_format.sh failed:"; cat "$tree/out"; failed=1; }
    echo 'int  x;' >>"$tree/base/one.c"; expect "layout" check_format.sh base/one.c
fi
exit $failed
