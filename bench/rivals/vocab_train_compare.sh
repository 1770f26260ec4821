#!/bin/sh
# SPDX-License-Identifier: MIT
# Learning merges in hanmix, sentencepiece and gigabpe, in one run, with two threads: CSV rows of all, with the ratios to hanmix.
#   vocab_train_compare.sh BUILD DIR FILE.jsonl.zst MB...
# BUILD: hanmix' build folder; DIR: kept between runs, text of MB megabytes is cut there first. PYTHON: an interpreter with sentencepiece, gigabpe,
# zstandard and torch. Every program learns PIECES (20,000) from a file: hanmix merges alone (single characters come on top), the others with their
# characters among them. Input text: whole documents (hanmix from .jsonl.zst and from lines, the others from lines); runs: Han runs, one a line,
# where the merges are compared. Leave the machine alone meanwhile.
set -eu
[ $# -ge 4 ] || { sed -n '3,8s/^# //p' "$0" >&2; exit 2; }
build=$1 dir=$2 file=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd)
pieces=${PIECES:-20000} threads=2
for mb in "$@"; do
    [ -e "$dir/$mb/runs.txt" ] || "${PYTHON:-python3}" "$here/vocab_train_tools.py" cut "$file" "$mb" "$dir/$mb"
done
[ -z "${CUT_ONLY:-}" ] || exit 0
rows=$(mktemp)
trap 'rm -f "$rows"' EXIT
ours() { # MB INPUT
    OMP_WAIT_POLICY=passive "$build/bench/vocab_train" "$dir/$1/$2" --merges "$pieces" --threads "$threads" --repeats 1 --list "$dir/$1/list.tsv" |
        awk -F, -v start="$1,hanmix,$2,$(wc -c <"$dir/$1/$2"),$threads,$pieces" 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
            { print start "," $at["total_s"] "," $at["peak_rss_mib"] "," $at["rss_bytes_per_byte"] ",yes" }'
}
theirs() { # MB INPUT TOOL [LIST]
    "${PYTHON:-python3}" "$here/vocab_train_tools.py" "$3" "$dir/$1/$2" "$pieces" "$threads" ${4:+"$4"} | sed "s/^/$1,/"
}
for mb in "$@"; do
    ours "$mb" text.jsonl.zst
    for input in text.txt runs.txt; do
        ours "$mb" "$input"
        case $input in runs.txt) list=$dir/$mb/list.tsv ;; *) list= ;; esac
        theirs "$mb" "$input" sentencepiece "$list"
        theirs "$mb" "$input" gigabpe
    done
done >"$rows"
awk -F, 'BEGIN { OFS = ","
        print "program,input,mb,bytes,threads,pieces,seconds,peak_rss_mib,rss_bytes_per_byte,hanmix_is_faster_by,hanmix_needs_less_by,same_merges" }
    { n = split($3, path, "/"); $3 = path[n] }
    $2 == "hanmix" { seconds[$1, $3] = $7; rss[$1, $3] = $8 }
    { print $2, $3, $1, $4, $5, $6, $7, $8, $9, sprintf("%.2f", $7 / seconds[$1, $3]), sprintf("%.2f", $8 / rss[$1, $3]), $10 }' "$rows"
