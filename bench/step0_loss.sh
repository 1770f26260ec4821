#!/bin/sh
# SPDX-License-Identifier: MIT
# Loss of the quickstart model right after its vocabulary has grown, by the rule for new rows, and after some steps of training.
# step0_loss.sh HANMIX WORK_DIR [STEPS]     from the source tree; one CSV row a rule: bits per byte of held-out Chinese and
# English text, nats per token of Chinese, new embedding rows equal to an earlier one, bits per byte after STEPS (60) steps
# of the quickstart's training. `copy` moves rows from the vocabulary of 2,000 pieces, grown by mean, to that of 4,000; elsewhere it is mean.
set -eu
hanmix=$1 work=$2 steps=${3:-60}
quick=examples/quickstart
base=$quick/base
stage() { "$hanmix" stage "$@" --quiet; }
mkdir -p "$work"
for pieces in 4000 2000; do
    stage vocab.train in.text=$quick/text/zh.jsonl.zst in.base=$base set.pieces=$pieces --out "$work/zh$pieces"
    stage vocab.merge in.base=$base in.extra="$work/zh$pieces" --out "$work/vocab$pieces"
done
# value FILE KEY NUMBER: the NUMBERth value of a key in a report
value() { grep -o "\"$2\": [0-9.e-]*" "$1" | sed -n "$3s/.*: //p"; }
# loss MODEL [SETTING]: its report of both held-out texts is $at
loss() {
    stage eval.loss in.model="$1" ${2:-} in.text.zh=$quick/text/zh.valid.jsonl.zst in.text.en=$quick/text/en.valid.jsonl.zst set.window=256 --out "$work/loss"
    at=$work/loss/report.json
}
# row NAME MODEL
row() {
    loss "$2"
    printf '%s,%.4f,%.4f,%.4f' "$1" "$(value "$at" bits_per_byte 1)" "$(value "$at" bits_per_byte 2)" "$(value "$at" nats_per_token 1)"
    [ "$2" != $base ] || { echo ,,,; return 0; }
    stage qlora.train in.model="$2" in.data="$work/packed" set.steps="$steps" set.rank=16 set.alpha=32 set.train_embeddings=new set.train_head=new \
        set.lr=5e-3 set.micro_batch=8 --out "$work/lora"
    loss "$2" in.adapter="$work/lora/adapter"
    printf ',%s,%.4f,%.4f\n' "$(value "$2/report.json" duplicate_rows 1)" "$(value "$at" bits_per_byte 1)" "$(value "$at" bits_per_byte 2)"
}
grow() { stage vocab.resize in.model=$base in.old=$base in.new="$work/vocab4000" --out "$work/grown" "$@"; }
stage corpus.pack in.text.zh=$quick/text/zh.jsonl.zst in.text.en=$quick/text/en.jsonl.zst in.tokenizer="$work/vocab4000" set.seq_len=256 \
    set.shuffle=true --out "$work/packed"
echo "init,zh_bits_per_byte,en_bits_per_byte,zh_nats_per_token,duplicate_rows,zh_after,en_after"
row "old vocabulary" $base
for rule in "mean set.noise=0" "mean" "mean set.noise=0.1" "weighted set.noise=0" "weighted" "mean_upstream" "normal" "normal set.scale=1" "zero"; do
    grow set.init=$rule
    row "$rule" "$work/grown"
done
stage vocab.resize in.model=$base in.old=$base in.new="$work/vocab2000" --out "$work/half"
stage vocab.resize in.model="$work/half" in.old="$work/vocab2000" in.new="$work/vocab4000" set.init=copy --out "$work/grown"
row "copy from 2000 pieces" "$work/grown"
