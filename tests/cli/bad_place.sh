#!/bin/sh
# SPDX-License-Identifier: MIT
# Places that fail the real stages: a disk that is full in mid-write (a file size limit stands for it), a run folder in use,
# a closed standard output, a signal in mid-training. One sentence, the documented code, nothing under a final name.
. "$(dirname "$0")/lib.sh"
quick=$SOURCE/examples/quickstart
base=$quick/base

# full ID STAGE ARGUMENTS...: exit 6, no folder of that name, the .partial gone or without final files
full() {
    id=$1
    shift
    (ulimit -f 16; "$HANMIX" stage "$@" --out "$id" >out 2>err </dev/null)
    code=$?
    [ $code -eq 6 ] || fail "$id: exit $code, expected 6: $(tail -n 1 err)"
    has err "File too large"
    gone "$id" "$id/report.json"
}

printf 'Tom and Tim went to the park. They saw a big dog and a small cat.\n%.0s' $(seq 1 400) >text.txt
printf '春天来了花开了孩子们在公园里玩小猫小狗也来了\n%.0s' $(seq 1 50) >zh.txt
expect 0 "$HANMIX" stage vocab.train in.text=zh.txt set.pieces=20 set.singles=15 --out zh
expect 0 "$HANMIX" stage vocab.merge in.base="$base" in.extra=zh --out merged
expect 0 "$HANMIX" stage corpus.pack in.text=text.txt in.tokenizer="$base" set.seq_len=32 --out packed
expect 0 "$HANMIX" stage qlora.train in.model="$base" in.data=packed set.steps=1 --out lora

full nf4 qlora.quantize in.model="$base"
full grown vocab.resize in.model="$base" in.old="$base" in.new=merged
full joined qlora.merge in.model="$base" in.adapter=lora/adapter
full windows corpus.pack in.text=text.txt in.tokenizer="$base" set.seq_len=32
full trained qlora.train in.model="$base" in.data=packed set.steps=2 set.save_every=1
full words vocab.merge in.base="$SOURCE/tests/golden/data/tokenizers/models/mistral-v1-32000.model" in.extra=zh
expect 0 "$HANMIX" stage qlora.quantize in.model="$base" --out nf4 # and with room it works

# in use, and stopped by a signal
"$HANMIX" stage qlora.train in.model="$base" in.data=packed set.steps=1000000 --out long >long.out 2>long.err &
pid=$!
wait_for 60 test -s long.partial/metrics.jsonl
expect 6 "$HANMIX" stage qlora.train in.model="$base" in.data=packed set.steps=1000000 --out long
has err "locked by process"
kill -TERM $pid
wait $pid
code=$?
[ $code -eq 75 ] || fail "exit $code after SIGTERM, expected 75"
gone long
there long.partial

"$HANMIX" encode --tokenizer "$base" <text.txt >&- 2>err
code=$?
[ $code -eq 6 ] || fail "closed standard output: exit $code, expected 6"
finish
