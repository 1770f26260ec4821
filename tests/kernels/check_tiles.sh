#!/bin/sh
# check_tiles.sh LIBRARY: the kernels of AMX are built from the true tile instructions.
set -eu
objdump=$(command -v objdump || command -v llvm-objdump) || { echo "skipped: no objdump here" >&2; exit 77; }
code=$("$objdump" -d --no-show-raw-insn "$1")
for word in ldtilecfg tilezero tileloadd tdpbf16ps tilestored tilerelease; do
    case $code in
    *"$word"*) ;;
    *"(bad)"*) echo "skipped: this objdump does not know the tile instructions" >&2; exit 77 ;;
    *) echo "no $word in $1" >&2; exit 1 ;;
    esac
done
