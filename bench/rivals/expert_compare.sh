#!/bin/sh
# SPDX-License-Identifier: MIT
# An expert layer with LoRA in hanmix and in kt-kernel, in one run: CSV rows of both and the ratios of their medians.
#   expert_compare.sh BUILD [TOKENS ...]
# BUILD: hanmix' build folder; PYTHON: an interpreter with torch and kt-kernel (see expert_kt.py). Leave the machine alone meanwhile.
set -eu
[ $# -ge 1 ] || { sed -n '3,5s/^# //p' "$0" >&2; exit 2; }
build=$1
shift
here=$(cd "$(dirname "$0")" && pwd)
rows=$(mktemp)
trap 'rm -f "$rows"' EXIT
[ $# -gt 0 ] || set -- 512 2048
for tokens; do
    OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive "$build/bench/expert_layer" --tokens "$tokens" | tail -n 2
    "${PYTHON:-python3}" "$here/expert_kt.py" "$tokens" AMXBF16_SFT 2> /dev/null | grep '^kt-kernel'
    "${PYTHON:-python3}" "$here/expert_kt.py" "$tokens" AMXINT8_SFT 2> /dev/null | grep '^kt-kernel'
done > "$rows"
awk -F, 'BEGIN { print "program,tokens,rank,threads,pass,median_s,gflops,best_gflops,times_slower_than_hanmix" }
    /^hanmix/ { ours[$2 "," $5] = $6 }
    { printf "%s,%.2f\n", $0, $6 / ours[$2 "," $5] }' "$rows"
