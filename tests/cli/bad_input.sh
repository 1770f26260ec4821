#!/bin/sh
# SPDX-License-Identifier: MIT
# Bad input to the real stages: one sentence, the documented exit code, nothing half-written, nothing lost.
. "$(dirname "$0")/lib.sh"
quick=$SOURCE/examples/quickstart
golden=$SOURCE/tests/golden/data
zh=$quick/text/zh.valid.jsonl.zst

# refused CODE TEXT STAGE SETTINGS...: the stage ends with that code and one line on stderr that holds TEXT, and no folder
refused() {
    code=$1 text=$2
    shift 2
    rm -rf x x.partial
    "$HANMIX" stage "$@" --out x --quiet >out 2>err </dev/null
    got=$?
    [ $got -eq "$code" ] || { fail "$*: exit $got, expected $code"; sed 's/^/  /' err | head -n 5; }
    has err "$text"
    one_sentence
    gone x x.partial x.lock
}

# --- text ---
train="vocab.train set.pieces=5 set.singles=2"
head -c 30000 "$zh" >cut.jsonl.zst;                            refused 4 cut.jsonl.zst $train in.text=cut.jsonl.zst
{ head -c 20000 "$zh"; head -c 20000 /dev/zero; } >rot.jsonl.zst; refused 4 rot.jsonl.zst $train in.text=rot.jsonl.zst
echo '{"text": "春天来了' >broken.jsonl;                       refused 4 "broken.jsonl" $train in.text=broken.jsonl
echo '{"body": "春天来了"}' >field.jsonl;                      refused 4 "field.jsonl" $train in.text=field.jsonl
printf '{"text": "春天\377"}\n' >utf8.jsonl;                   refused 4 "utf8.jsonl" $train in.text=utf8.jsonl
printf '春天\377\n' >utf8.txt;                                 refused 4 "utf8.txt" $train in.text=utf8.txt
: >empty.txt;                                                  refused 4 "" $train in.text=empty.txt
: >empty.jsonl;                                                refused 4 "" corpus.pack in.text=empty.jsonl in.tokenizer="$quick/base"
echo '春天来了' >few.txt;                                      refused 4 "" vocab.train set.pieces=500 in.text=few.txt
{ cat broken.jsonl; for i in 1 2 3 4 5 6; do echo '{"text": "春天来了，春天来了，春天走了"}'; done; } >mixed.jsonl
refused 4 "mixed.jsonl" vocab.train set.pieces=7 set.singles=all in.text=mixed.jsonl
expect 0 "$HANMIX" stage vocab.train set.pieces=7 set.singles=all set.max_bad_lines=1 in.text=mixed.jsonl --out counted
has counted/report.json '"bad_lines": 1'

# --- safetensors, model folders ---
# st FILE HEADER DATA_BYTES: a file with that header and so many zeros
st() {
    len=$(printf %s "$2" | wc -c)
    printf "\\$(printf %03o $((len % 256)))\\$(printf %03o $((len / 256 % 256)))\\0\\0\\0\\0\\0\\0%s" "$2" >"$1"
    head -c "$3" /dev/zero >>"$1"
}
model() { rm -rf m; cp -r "$quick/base" m; chmod -R u+w m; }
quantize="qlora.quantize in.model=m"
model; st m/model.safetensors '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}' 12; refused 4 "m/model.safetensors" $quantize
model; st m/model.safetensors '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}' 4;                     refused 4 "'a'" $quantize
model; st m/model.safetensors '{"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,8]}}' 8; refused 4 "'a'" $quantize
model; st m/model.safetensors '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}' 8; refused 4 "m/model.safetensors" $quantize
model; st m/model.safetensors '{"a":{"dtype":"F99","shape":[2],"data_offsets":[0,8]}}' 8;                     refused 4 "F99" $quantize
model; printf '\377\377\377\377\377\377\377\177{}' >m/model.safetensors;                                       refused 4 "m/model.safetensors" $quantize
model; st m/model.safetensors '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}' 8;                     refused 4 "" $quantize
model; rm m/model.safetensors;                                                                                 refused 4 "m" $quantize
model; mv m/model.safetensors m/model-00001-of-00002.safetensors
echo '{"metadata": {}, "weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors", "lm_head.weight": "model-00002-of-00002.safetensors"}}' >m/model.safetensors.index.json
refused 4 "model-00002-of-00002.safetensors" $quantize
echo '{"metadata": {}, "weight_map": {"model.normal.weight": "model-00001-of-00002.safetensors"}}' >m/model.safetensors.index.json; refused 4 "index.json" $quantize
# config KEY VALUE: a model whose config.json says otherwise
config() { model; sed -i "s|\"$1\": [^,]*|\"$1\": $2|" m/config.json; }
config model_type '"gpt2"';                          refused 4 "gpt2" $quantize
config hidden_size 72;                               refused 4 "" $quantize
config num_hidden_layers 6;                          refused 4 "model.layers.5" $quantize
config vocab_size 600;                               refused 4 "600" $quantize
config num_local_experts 0;                          refused 4 "num_local_experts" $quantize
model; sed -i '0,/{/s|{|{"rope_scaling": {"type": "linear", "factor": 2.0},|' m/config.json; refused 4 "rope_scaling" $quantize
model; echo '{' >m/config.json;                      refused 4 "m/config.json" $quantize

# a NaN among the weights: bf16 0x7fff at the end of the file, which is some weight
model; size=$(wc -c <m/model.safetensors); printf '\377\177' | dd of=m/model.safetensors bs=1 seek=$((size - 2)) conv=notrunc 2>/dev/null
refused 4 "" $quantize
refused 4 "" eval.loss in.model=m in.text=few.txt set.window=16

# --- things that do not belong together ---
cp -r "$golden/models/stories260K-llama-hf" dense; chmod -R u+w dense
refused 4 "" vocab.resize in.model="$quick/base" in.old="$golden/tokenizers/models/mistral-v1-32000.model" in.new="$golden/models/tok512.model"
expect 0 "$HANMIX" stage corpus.pack in.text="$zh" in.tokenizer="$quick/base" set.seq_len=16 set.sample_bytes=30K --out pack
refused 4 "" qlora.train in.model="$quick/base" in.data=pack in.adapter="$golden/peft/adapter" set.steps=1
refused 4 "" qlora.merge in.model="$quick/base" in.adapter="$golden/peft/adapter"
refused 2 "w9" qlora.train in.model="$quick/base" in.data=pack set.steps=1 set.targets=w9
refused 2 "" qlora.train in.model="$quick/base" in.data=pack set.steps=1 set.epochs=1
refused 2 "" qlora.train in.model="$quick/base" set.steps=1
refused 2 "bpe_dropout" corpus.pack in.text="$zh" in.tokenizer="$quick/base" set.bpe_dropout=1.5
refused 3 "" qlora.train in.model="$quick/base" in.data=pack set.steps=1 set.ram=64K
cp pack/train.hmp broken.hmp; chmod u+w broken.hmp; printf 'XX' | dd of=broken.hmp bs=1 seek=0 conv=notrunc 2>/dev/null
refused 4 "broken.hmp" qlora.train in.model="$quick/base" in.data=broken.hmp set.steps=1
head -c 100 pack/train.hmp >cut.hmp; refused 4 "cut.hmp" qlora.train in.model="$quick/base" in.data=cut.hmp set.steps=1

# --- no room in the middle of a write; the older result stays ---
limited() { (ulimit -f "$1"; shift; exec "$@"); }
expect 0 "$HANMIX" stage qlora.quantize in.model="$quick/base" --out q; cp q/model.safetensors before
expect 6 limited 400 "$HANMIX" stage qlora.quantize in.model="$quick/base" set.double_quant=false --out q --quiet; one_sentence; same q/model.safetensors before; gone q.partial
expect 6 limited 8 "$HANMIX" stage corpus.pack in.text="$zh" in.tokenizer="$quick/base" set.seq_len=64 --out x --quiet; one_sentence; gone x x.partial
finish
