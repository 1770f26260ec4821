#!/bin/sh
# SPDX-License-Identifier: MIT
# bench/vocab_scale at a small size: the same merges within and without a memory limit, rows that exist are passed over, the fit is told.
. "$(dirname "$0")/lib.sh"
: "${VOCAB_SCALE:?the bench program}"
text=$SOURCE/examples/quickstart/text/zh.valid.jsonl.zst
mkdir spill
rows="$VOCAB_SCALE $text --csv rows.csv --dir spill --sizes 3,6 --limits 0,0.05 --merges 1000"
expect 0 $rows --threads 2
[ "$(sed 1d rows.csv | wc -l)" -eq 4 ] || fail "not 4 rows"
[ "$(sed 1d rows.csv | sed 's/.*,//' | sort -u | wc -l)" -eq 2 ] || fail "not one list for each size"
cp rows.csv before
expect 0 $rows; same rows.csv before
sed -n '1p;2p' before >rows.csv
expect 0 $rows --threads 1
[ "$(sed 's/.*,//' rows.csv)" = "$(sed 's/.*,//' before)" ] || fail "another list with another number of threads"
expect 0 "$VOCAB_SCALE" "$text" --fit --sizes 0.1
[ "$(grep -c '^real,\|^generated,' out)" -eq 2 ] || fail "the fit has not two rows"
expect 2 "$VOCAB_SCALE" "$text"
finish
