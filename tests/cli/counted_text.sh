#!/bin/sh
# SPDX-License-Identifier: MIT
# Counted text, lines of text, tab, count: the merges of sentencepiece from it, however it is cut into files; the same as text that repeats; bad lines.
. "$(dirname "$0")/lib.sh"
bpe=$SOURCE/tests/golden/data/bpe
merges() { sed 1d x/pieces.tsv | head -n "$1" | cut -f 2,3; }
for name in repeats ties; do
    case $name in repeats) characters=7 ;; ties) characters=24 ;; esac
    n=$(wc -l <"$bpe/$name.merges.tsv")
    learn="vocab.train set.pieces=$((n + characters)) set.singles=all"
    fine $learn in.text="$bpe/$name.tsv"
    merges "$n" >ours
    same ours "$bpe/$name.merges.tsv"
    cp x/pieces.tsv whole
    for shards in 3 7; do
        rm -f part*.tsv
        awk -v n="$shards" '{ print >("part" NR % n ".tsv") }' "$bpe/$name.tsv"
        fine $learn in.text="part*.tsv"
        same x/pieces.tsv whole
    done
    # the same runs written out as often as they count, as text, and half of them so
    awk -F '\t' '{ for (i = 0; i < $2; i++) print $1 "，x" }' "$bpe/$name.tsv" >all.txt
    fine $learn in.text=all.txt
    same x/pieces.tsv whole
    mkdir -p half
    awk -F '\t' 'NR % 2 { for (i = 0; i < $2; i++) print $1 }' "$bpe/$name.tsv" >half/a.txt
    awk 'NR % 2 == 0' "$bpe/$name.tsv" >half/b.tsv
    fine $learn in.text="half/*"
    same x/pieces.tsv whole
done
# more than Han in a line: cut as documents are
printf '春天来了，春天ok走了\t4\n' >mixed.tsv
printf '春天来了\t4\n春天\t4\n走了\t4\n' >apart.tsv
fine vocab.train set.pieces=7 set.singles=all in.text=mixed.tsv; cp x/pieces.tsv whole
has x/report.json '"runs": 12'; has x/report.json '"lines": 1'
fine vocab.train set.pieces=7 set.singles=all in.text=apart.tsv; same x/pieces.tsv whole

bad() { printf '%b\n' "$1" >bad.tsv; refused 4 "'bad.tsv': the line" vocab.train set.pieces=3 set.singles=all in.text=bad.tsv; }
bad '春天'; bad '春天\t'; bad '\t3'; bad '春天\t0'; bad '春天\t-1'; bad '春天\t3\t4'; bad '春天\t3x'; bad '春天\t99999999999999999999'
bad '春天\t281474976710657'
printf '春天\t2\n春\n天\t\n' >bad.tsv
refused 4 "2 bad lines where max_bad_lines allows 1" vocab.train set.pieces=3 set.singles=all set.max_bad_lines=1 in.text=bad.tsv
fine vocab.train set.pieces=3 set.singles=all set.max_bad_lines=2 in.text=bad.tsv; has x/report.json '"bad_lines": 2'
printf '春天\t281474976710656\n%s\t281474976710656\n' "$(head -c 60000 /dev/zero | sed 's/\x0/春/g')" >huge.tsv
refused 4 "are the counts right?" vocab.train set.pieces=3 set.singles=all in.text=huge.tsv
refused 2 "set.sample_bytes: 'apart.tsv' is counted text" vocab.train set.sample_bytes=1K in.text=apart.tsv
refused 2 "set.dedup: 'apart.tsv' is counted text" vocab.train set.dedup=true in.text=apart.tsv
refused 2 "is not a text file: it must end with" corpus.pack in.tokenizer="$SOURCE/examples/quickstart/base" set.seq_len=16 in.text=apart.tsv
finish
