#!/bin/sh
# SPDX-License-Identifier: MIT
# Text to ids in hanmix, gigatoken and sentencepiece, in one run: CSV rows of all, with the ratio of hanmix to each and whether the ids agree.
#   encode_compare.sh BUILD MODEL BYTES FILE...
# BUILD: hanmix' build folder; PYTHON: an interpreter with numpy, gigatoken and sentencepiece. Leave the machine alone meanwhile.
set -eu
[ $# -ge 4 ] || { sed -n '3,5s/^# //p' "$0" >&2; exit 2; }
build=$1 model=$2 bytes=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd)
rows=$(mktemp)
trap 'rm -f "$rows"' EXIT
for threads in 1 2; do
    OMP_WAIT_POLICY=passive "$build/bench/encode" --model "$model" --bytes "$bytes" --threads "$threads" "$@" |
        awk -F, 'NR > 1 { print "hanmix," $1 "," $2 "," $4 "," $5 "," $6 "," $7 "," $8 }'
    for tool in gigatoken sentencepiece; do
        "${PYTHON:-python3}" "$here/encode_tools.py" "$model" "$bytes" "$threads" "$tool" "$@" 2> /dev/null
    done
done > "$rows"
awk -F, 'BEGIN { OFS = ","; print "program,file,model,threads,bytes,mb_s,ids,hanmix_is_faster_by,same_ids" }
    { for (i = 2; i <= 3; i++) { n = split($i, path, "/"); $i = path[n] } }
    $1 == "hanmix" { rate[$2, $4] = $6; hash[$2, $4] = $8 }
    { print $1, $2, $3, $4, $5, $6, $7, sprintf("%.2f", rate[$2, $4] / $6), $8 == hash[$2, $4] ? "yes" : "NO" }' "$rows"
