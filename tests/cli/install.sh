#!/bin/sh
# SPDX-License-Identifier: MIT
# What is installed works by itself: the program finds its recipes, and a program built with pkg-config runs.
. "$(dirname "$0")/lib.sh"
: "${BUILD:?the build folder}" "${PREFIX:?the prefix}" "${CC:=cc}"
case $SANITIZE in none) ;; *) skip "a library with sanitizers is not what is installed" ;; esac
expect 0 meson install -C "$BUILD" --no-rebuild --quiet --destdir "$dir/root" || finish
at=$dir/root$PREFIX
there "$at/bin/hanmix" "$at/share/man/man1/hanmix.1" "$at/include/hanmix/base/status.h" "$at/share/hanmix/recipes/quickstart.yaml" "$at/share/hanmix/recipes/characters/standard-8105.txt" "$at/share/doc/hanmix/RECIPES.md"
gone "$at/bin/hanmix_test" "$at/include/hanmix/recipes/engine"
HANMIX_RECIPES=$at/share/hanmix/recipes; export HANMIX_RECIPES
expect 0 "$at/bin/hanmix" recipes; has out quickstart; has out chinese-mixtral-8x7b; has out efficiency-skypile
expect 0 "$at/bin/hanmix" validate "$at/share/hanmix/recipes/efficiency-skypile.yaml"
expect 0 "$at/bin/hanmix" recipes copy quickstart q.yaml; expect 0 "$at/bin/hanmix" validate q.yaml
pc=$(find "$at" -name hanmix.pc)
there "$pc"
sed -i "s|^prefix=.*|prefix=$at|" "$pc"
PKG_CONFIG_PATH=$(dirname "$pc"); export PKG_CONFIG_PATH
if pkg-config --exists hanmix; then
    expect 0 $CC -O1 "$SOURCE/examples/embed/count_tokens.c" $(pkg-config --cflags --libs hanmix) -o count_tokens
    q=$SOURCE/examples/quickstart
    expect 0 ./count_tokens "$q/base/tokenizer.model" "$q/text/zh.valid.jsonl.zst"; has out "documents"
    cp out installed; expect 0 "$EMBED" "$q/base/tokenizer.model" "$q/text/zh.valid.jsonl.zst"; same out installed
    expect 2 ./count_tokens none none; one_sentence
else
    fail "pkg-config does not find hanmix: $(pkg-config --print-errors --exists hanmix 2>&1)"
fi
finish
