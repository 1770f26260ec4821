#!/bin/sh
# SPDX-License-Identifier: MIT
# vocab.train learns the same from the same documents however they are cut into files, in any order and by any number of threads: all of
# them, a sample by hash, and without duplicates. Hashes of duplicates stay within set.memory. Without a terminal every pass tells its rate.
. "$(dirname "$0")/lib.sh"
zstd -dcq "$SOURCE/examples/quickstart/text/zh.jsonl.zst" >lines || skip "zstd is needed"
cat lines lines >twice.jsonl
mkdir cut
awk 'NR % 3 == 0 { print }' twice.jsonl | sort >cut/a.jsonl
awk 'NR % 3 == 1 { print }' twice.jsonl | sort -r >cut/c.jsonl
awk 'NR % 3 == 2 { print }' twice.jsonl >cut/b.jsonl
for settings in "" "set.dedup=true" "set.sample_bytes=1M" "set.sample_bytes=1M set.dedup=true"; do
    rm -rf whole
    expect 0 "$HANMIX" stage vocab.train in.text=twice.jsonl set.pieces=2000 $settings --out whole --threads 1 --quiet
    for threads in 1 2 5; do
        fine vocab.train in.text='cut/*.jsonl' set.pieces=2000 $settings --threads $threads
        for file in tokenizer.model pieces.tsv; do same whole/$file x/$file; done
    done
done
awk '{ for (i = 0; i < 20; i++) printf "{\"text\":\"%s%d\"}\n", "\xe4\xb8\xad\xe6\x96\x87", 20 * NR + i }' lines >many.jsonl
little="vocab.train in.text=many.jsonl set.pieces=3 set.dedup=true"
if [ "$(wc -l <many.jsonl)" -gt 60000 ]; then fail "too many lines for this test"; fi
expect 3 "$HANMIX" stage $little set.memory=20M --out y --quiet
has err "set.memory"; has err "will do"; one_sentence; gone y y.partial

cat twice.jsonl twice.jsonl twice.jsonl >long.jsonl
expect 0 env HM_PROGRESS_SECONDS=0 "$HANMIX" stage vocab.train in.text=long.jsonl set.pieces=4000 set.sample_bytes=20M set.memory=82M --out told
for pass in "choose sample" "count runs" "cut runs" "merge parts" "train"; do
    grep -q "^$pass: .* of .*%), .*/s" err || { fail "$pass told no rate:"; cat err; }
done
for pass in "count runs" "train"; do grep -q "^$pass: .*/s, [0-9:]* left" err || fail "$pass told no time left"; done
finish
