#!/bin/sh
# SPDX-License-Identifier: MIT
# The vocabulary stages with what does not fit: text, singles, bases of another kind, models and tokenizers that do not belong
# together, damaged weights; two runs in one folder, folders that cannot be written, SIGKILL in each stage.
. "$(dirname "$0")/lib.sh"
quick=$SOURCE/examples/quickstart
base=$quick/base
zh=$quick/text/zh.valid.jsonl.zst
models=$SOURCE/tests/golden/data/tokenizers/models
unigram=$models/chinese-llama-chinese_sp-20000.model
expect 0 "$HANMIX" stage vocab.train in.text="$zh" set.pieces=60 set.singles=40 --out zh --quiet
expect 0 "$HANMIX" stage vocab.merge in.base="$base" in.extra=zh --out merged --quiet

# --- text and what is wanted of it ---
train="vocab.train set.singles=2"
printf '春天来了，花开了\n春\000天来了\n春天\n' >nul.txt; printf '{"text": "春天\\u0000春天来了"}\n' >nul.jsonl
printf '春天来了\n\355\240\200春天\n' >surrogate.txt; printf '春天来了春天\n' >few.txt; echo 'english only here' >en.txt
# NUL is a character like any that is not Han: it ends a run, nothing is lost
fine vocab.train in.text=nul.txt set.pieces=8 set.singles=all; has x/pieces.tsv "天来	2"; has x/pieces.tsv "春	3"
fine vocab.train in.text=nul.jsonl set.pieces=5 set.singles=all
fine vocab.check in.old="$base" in.new=merged in.text=nul.txt; has x/report.json '"lines": 3'
for stage in "$train set.pieces=3" "vocab.check in.old=$base in.new=merged" "vocab.measure in.tokenizers=merged"; do
    refused 4 "'surrogate.txt:2': not UTF-8 at byte 0" $stage in.text=surrogate.txt
done
refused 4 "no Han characters" $train in.text=en.txt set.pieces=3
refused 4 "50 pieces are wanted, 2 of them single characters; the text yields only 1 merges" $train in.text=few.txt set.pieces=50
refused 2 "set.pieces: 0 is out of range" $train in.text=few.txt set.pieces=0
refused 2 "'-1' is not a count" $train in.text=few.txt set.pieces=-1
refused 2 "max_piece_chars: 17 is out of range" $train in.text=few.txt set.pieces=3 set.max_piece_chars=17
refused 2 "'latin' is not one of: han" $train in.text=few.txt set.pieces=3 set.script=latin
refused 2 "input 'text' (text) is missing" $train set.pieces=3

# --- singles ---
printf '春\n天\n来\n了\n' >four.list; printf '春\377\n' >bytes.list
single() { refused "$1" "$2" vocab.train in.text=few.txt set.pieces="$3" set.singles="$4"; }
single 2 "4 single characters of the list are more than pieces, 2" 2 four.list
single 4 "10 single characters are wanted, the text has 4" 20 10
single 4 "'bytes.list': the list of single characters is not UTF-8 at byte 3" 4 bytes.list
single 2 "'none.list' does not exist" 4 none.list
single 2 "'.' is a folder" 4 .
refused 2 "7 single characters are more than pieces, 2" vocab.train in.text="$zh" set.pieces=2 set.singles=7

# --- bases and extras ---
refused 4 "is no BPE vocabulary" vocab.merge in.base="$unigram" in.extra=zh
refused 4 "'few.txt' is no SentencePiece model" vocab.merge in.base="$base" in.extra=few.txt
refused 4 "'zh/pieces.tsv' is no SentencePiece model" vocab.merge in.base=zh/pieces.tsv in.extra=zh
refused 2 "input 'extra' (tokenizer) is missing" vocab.merge in.base="$base"
refused 2 "'best' is not one of: ranked, zero" vocab.merge in.base="$base" in.extra=zh set.score=best
expect 1 "$HANMIX" stage vocab.check in.old=merged in.new="$base" in.text=few.txt --out swapped --quiet
has err "the new vocabulary has 512 pieces, the old one"; one_sentence; there swapped/report.json

# --- sizes to choose from ---
sweep="vocab.sweep in.text=$zh in.held_out=$zh"
refused 2 "make 0 vocabularies" $sweep set.pieces=[] set.singles=[10]
refused 2 "20 stands there twice" $sweep set.pieces=[20,20] set.singles=[10]
refused 2 "50 single characters are more than 20 pieces" $sweep set.pieces=[20] set.singles=[50]
refused 4 "900000 pieces are wanted" $sweep set.pieces=[20,900000] set.singles=[10]
refused 4 "no Han characters" vocab.sweep in.text=en.txt in.held_out="$zh" set.pieces=[20] set.singles=[10]

# --- growing ---
resize="vocab.resize in.model=$base in.old=$base in.new=merged"
refused 2 "pad_to: 0 is out of range" $resize set.pad_to=0
refused 2 "noise: -1 is out of range" $resize set.noise=-1
refused 2 "set.noise is added by init=mean, weighted and copy, not by init=zero" $resize set.init=zero set.noise=0.1
refused 2 "set.scale is of init=normal, not of init=mean" $resize set.scale=1
refused 2 "'nan' is not a finite number" $resize set.init=normal set.scale=nan
refused 2 "'best' is not one of: mean, mean_upstream, normal, zero, weighted, copy" $resize set.init=best
refused 2 "'zh' is not a model folder: no config.json in it" vocab.resize in.model=zh in.old="$base" in.new=merged
refused 4 "the model has 512 rows, fewer than the" vocab.resize in.model="$base" in.old=merged in.new=merged
refused 4 "beside the model has 512, and piece 259 differs" vocab.resize in.model="$base" in.old=zh in.new=zh
refused 4 "beside the model has 512, and piece 259 differs" vocab.resize in.model="$base" in.old=zh in.new="$base" set.init=copy
refused 4 "piece 3 is ',' in the new tokenizer and '<0x00>' in the old one" vocab.resize in.model="$base" in.old="$base" in.new="$unigram"
fine $resize
cp -r x grown
fine vocab.resize in.model=grown in.old=merged in.new="$base" set.init=copy; same x/model.safetensors "$base/model.safetensors"
refused 4 "are they the right way round?" vocab.resize in.model=grown in.old=merged in.new="$base"

# the same before anything is read for its digest
cat >grow.yaml <<EOF
run_dir: grow
stages: [{id: g, stage: vocab.resize, in: {model: $base, old: $base, new: merged}}]
EOF
for verb in plan validate run; do
    expect 4 "$HANMIX" $verb grow.yaml g.in.old=merged g.in.new="$base"; has err "are they the right way round?"; one_sentence; gone grow/g grow/g.partial
    expect 4 "$HANMIX" $verb grow.yaml g.in.old=zh; has err "piece 259"; one_sentence
done
expect 0 "$HANMIX" plan grow.yaml g.in.old=merged g.in.new="$base" g.in.model=grown g.set.init=copy

cp -r merged stale; chmod -R u+w stale; cp "$base/tokenizer.json" stale
refused 4 "'stale/tokenizer.json': piece 512 of tokenizer.model beside it" vocab.resize in.model="$base" in.old="$base" in.new=stale
rm stale/tokenizer.json
fine vocab.resize in.model="$base" in.old="$base" in.new=stale; there x/tokenizer.json

# model DIR: the base's folder, to be spoilt
model() { rm -rf m; cp -r "$base" m; chmod -R u+w m; }
# weights of which the config knows more, or fewer; the header's length is its first two bytes
model; sed -i 's/"vocab_size": *512/"vocab_size": 600/' m/config.json
refused 4 "has shape [512, 64]" vocab.resize in.model=m in.old="$base" in.new=merged
start=$((8 + $(od -An -tu2 -N2 "$base/model.safetensors")))
# spoilt NAME ROW BYTES: a value in column 3 of the embedding (the first tensor that lies at 0) or the head
offset() { head -c "$start" "$base/model.safetensors" | tr '{' '\n' | grep -a -A1 "\"$1\"" | tr -d ' \n' | sed 's/.*data_offsets":\[\([0-9]*\),.*/\1/'; }
for init in mean normal zero mean_upstream; do
    model; spoil m/model.safetensors $((start + $(offset model.embed_tokens.weight) + 100 * 128 + 6)) '\300\177'
    refused 4 "'m/model.safetensors': tensor 'model.embed_tokens.weight' holds NaN in row 100, column 3" vocab.resize in.model=m in.old="$base" in.new=merged set.init=$init
done
model; spoil m/model.safetensors $((start + $(offset lm_head.weight) + 7 * 128 + 6)) '\200\177'
refused 4 "tensor 'lm_head.weight' holds infinity in row 7, column 3" vocab.resize in.model=m in.old="$base" in.new=merged
model; head -c 1000000 "$base/model.safetensors" >m/model.safetensors
refused 4 "of a buffer of" vocab.resize in.model=m in.old="$base" in.new=merged
model; mv m/model.safetensors m/a.safetensors
names=$(head -c "$start" m/a.safetensors | tail -c +9 | tr '{' '\n' | grep -a -o '"[^"]*weight":$' | sed 's/:$/: "a.safetensors",/' | tr -d '\n')
echo "{\"weight_map\": {$names \"more.weight\": \"b.safetensors\"}}" >m/model.safetensors.index.json
refused 4 "shard 'm/b.safetensors' is missing" vocab.resize in.model=m in.old="$base" in.new=merged

# --- places ---
: >taken
for stage in "$train in.text=few.txt set.pieces=3" "vocab.merge in.base=$base in.extra=zh" "$resize"; do
    expect 2 "$HANMIX" stage $stage --out taken/x --quiet; has err "'taken' is a file, a folder is needed"; one_sentence
done
if [ "$(id -u)" -ne 0 ]; then
    mkdir readonly; chmod a-w readonly
    for stage in "$train in.text=few.txt set.pieces=3" "vocab.merge in.base=$base in.extra=zh" "$resize"; do
        expect 6 "$HANMIX" stage $stage --out readonly/x --quiet; has err "Permission denied"; one_sentence; gone readonly/x readonly/x.partial
    done
fi

# --- two at once, and SIGKILL in each stage ---
for i in 1 2 3 4 5 6 7 8 9 10 11 12; do cat "$zh"; done >long.jsonl.zst
cat long.jsonl.zst long.jsonl.zst long.jsonl.zst >longer.jsonl.zst
killed() {
    id=$1
    shift
    "$HANMIX" stage "$@" --out "$id" --quiet >/dev/null 2>&1 &
    pid=$!
    tries=0
    while [ ! -e "$id.partial" ] && [ ! -e "$id" ] && [ $tries -lt 3000 ]; do tries=$((tries + 1)); sleep 0.002; done
    kill -STOP $pid 2>/dev/null
    if [ -e "$id.partial" ] && [ ! -e "$id" ]; then
        expect 6 "$HANMIX" stage "$@" --out "$id" --quiet; has err "locked by process $pid"; one_sentence
        caught=$((caught + 1))
    fi
    kill -KILL $pid 2>/dev/null; kill -CONT $pid 2>/dev/null
    wait $pid 2>/dev/null
    expect 0 "$HANMIX" stage "$@" --out "$id" --quiet
    expect 0 "$HANMIX" stage "$@" --out "$id.whole" --quiet
    gone "$id.partial"
    for file in "$id.whole"/*; do
        name=${file##*/}
        case $name in stage.json | report.json) ;; *) same "$id/$name" "$file" ;; esac
    done
}
caught=0
killed k1 vocab.train in.text=longer.jsonl.zst set.pieces=400
killed k2 vocab.sweep in.text="$zh" in.held_out=longer.jsonl.zst set.pieces=[20,40] set.singles=[10]
killed k3 vocab.merge in.base="$models/mistral-v1-32000.model" in.extra=zh
killed k4 vocab.check in.old="$base" in.new=merged in.text=longer.jsonl.zst
killed k5 vocab.measure in.tokenizers="$base" in.text=longer.jsonl.zst
killed k6 $resize set.pad_to=4096 set.init=normal
[ $caught -ge 4 ] || fail "only $caught of 6 stages were caught at work"
finish
