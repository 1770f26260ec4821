#!/bin/sh
# SPDX-License-Identifier: MIT
# docs/RECIPES.md is what the tables of the stages say now.
. "$(dirname "$0")/lib.sh"
expect 0 "$HANMIX" help --markdown
if ! diff -u "$SOURCE/docs/RECIPES.md" out; then
    fail "docs/RECIPES.md is stale: hanmix help --markdown > docs/RECIPES.md"
fi
finish
