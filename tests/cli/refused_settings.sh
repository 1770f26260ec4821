#!/bin/sh
# SPDX-License-Identifier: MIT
# Settings of the real stages that have no effect or contradict an input are refused by name, before anything is trained.
. "$(dirname "$0")/lib.sh"
golden=$SOURCE/tests/golden/data
base=$SOURCE/examples/quickstart/base
ids="in.model=$golden/mixtral/model in.ids=$golden/train/batches.safetensors set.steps=1"
text=$SOURCE/examples/quickstart/text/zh.valid.jsonl.zst
train() { expected=$1; shift; rm -rf t t.partial; expect "$expected" "$HANMIX" stage qlora.train $ids "$@" --out t; }
refused() { what=$1; shift; train 2 "$@"; has err "$what"; one_sentence; gone t t.partial; }

refused "set.shuffle goes with packed data" set.shuffle=true
refused "set.attention=document goes with packed data" set.attention=document
refused "set.eval_every is 3" set.eval_every=3
refused "set.micro_batch is 3, the micro-batches of the ids file have 2 rows" set.micro_batch=3
refused "t.set.steps: 0 is out of range" set.steps=0
refused "only one of set.steps, set.epochs and set.tokens" set.epochs=1
refused "set.rank: train_all" set.train_all=true set.rank=4
refused "set.weight_decay applies to lora_A and lora_B" set.train_all=true set.weight_decay=0.1
refused "the key 'w9' of rank_pattern" set.rank_pattern.w9=4
refused "the key 'w1' of rank_pattern" "set.targets=[q_proj]" set.alpha_pattern.w1=4
refused "target 'nothing' matches no linear" "set.targets=[nothing]"
refused "trains nothing" "set.targets=[]"
refused "hold none beyond the old vocabulary" set.train_embeddings=new
train 3 set.memory=1M; has err "set.memory allows"
train 3 set.ram=1K; has err "set.ram allows"
train 0 set.shuffle=false set.attention=causal set.micro_batch=2 set.eval_every=0 set.rank_pattern.w1=4 set.memory=1G

# a run that starts from an adapter: what is written beside it agrees, or is refused
from="in.adapter=$golden/train/initial_adapter"
refused "its rank at 'model.layers.0.self_attn.q_proj' is 8, the settings ask for 16" "$from" set.rank=16
refused "its scale (alpha over rank)" "$from" set.rslora=true
refused "which the settings do not adapt" "$from" "set.targets=[q_proj]"
refused "it holds 'model.embed_tokens' in full" "$from" set.train_embeddings=none
refused "set.rank: train_all" "$from" set.train_all=true set.rank=8
refused "train_all does not start from in.adapter" "$from" set.train_all=true
train 0 "$from" set.rank=8 set.alpha=16 "set.targets=[q_proj,k_proj,v_proj,o_proj,w1,w2,w3]" set.train_embeddings=all set.train_head=true set.dropout=0.1
has t/adapter/hanmix.json '"dropout": 0.1'
expect 2 "$HANMIX" stage qlora.train "in.model=$golden/llama/untied-model" "in.ids=$golden/llama/untied.batch.safetensors" set.steps=1 set.aux_coef=0.1 --out d
has err "set.aux_coef weighs the loss of routers"

expect 0 "$HANMIX" stage corpus.pack "in.text=$text" "in.tokenizer=$base" set.seq_len=64 set.sample_bytes=20K --out packed
expect 2 "$HANMIX" stage eval.loss "in.model=$base" in.packed=packed set.window=32 --out l; has err "set.window: in.packed holds windows"
expect 2 "$HANMIX" stage eval.loss "in.model=$base" in.packed=packed set.max_bad_lines=3 --out l; has err "set.max_bad_lines: in.packed"
expect 2 "$HANMIX" stage eval.loss "in.model=$base" in.packed=packed "in.tokenizer=$base" --out l; has err "in.tokenizer goes with in.text"
expect 0 "$HANMIX" stage corpus.pack "in.text=$text" "in.tokenizer=$golden/tokenizers/models/mistral-v1-32000.model" set.seq_len=64 set.sample_bytes=20K --out other
expect 4 "$HANMIX" stage eval.loss "in.model=$base" in.packed=other --out l; has err "was packed with another tokenizer"
expect 4 "$HANMIX" stage qlora.train "in.model=$base" in.data=other --out l; has err "was packed with another tokenizer"; gone l.partial
expect 4 "$HANMIX" stage qlora.train "in.model=$base" in.data=packed in.valid=other set.steps=1 --out l; has err "was packed with another tokenizer"; gone l.partial
expect 2 "$HANMIX" stage corpus.pack "in.text=$text" "in.tokenizer=$base" set.shuffle_buffer=5 --out p; has err "set.shuffle_buffer has no effect"
expect 2 "$HANMIX" stage corpus.pack "in.text=$text" "in.tokenizer=$base" set.set_field=source --out p; has err "set.set_field: this stage takes all text as one"
expect 2 "$HANMIX" stage vocab.train "in.text=$text" set.set_field=source --out p; has err "set.set_field: this stage"
measure() { what=$1; shift; expect 2 "$HANMIX" stage vocab.measure "in.tokenizers=$base" "$@" --out p; has err "$what"; one_sentence; gone p p.partial; }
measure "set.context: 0 is not between 1 and" "in.text=$text" set.context=0
measure "set.parity: 'zh' is not a pair of sets" "in.text=$text" set.parity=zh
measure "set.parity names 'xx', but in.text has no set 'xx'" "in.text.zh=$text" set.parity=zh/xx
sweep() { what=$1; shift; expect 2 "$HANMIX" stage vocab.sweep "in.text=$text" "in.held_out=$text" "$@" --out p; has err "$what"; one_sentence; gone p p.partial; }
sweep "set.singles: 'some' is neither" set.singles=some
sweep "set.singles: 900 single characters are more than 800 pieces" set.pieces=800,1600 set.singles=900
sweep "set.pieces: 800 stands there twice" set.pieces=800,900,800
expect 2 "$HANMIX" stage vocab.train "in.text.zh.files=$text" in.text.zh.weight=2 --out p; has err "'weight' of set p.in.text.zh: this input is read whole"
expect 2 "$HANMIX" stage vocab.check "in.old=$base" "in.new=$base" "in.text.zh.files=$text" in.text.zh.epochs=2 --out p; has err "'epochs' of set p.in.text.zh"
expect 2 "$HANMIX" stage vocab.resize "in.model=$base" "in.old=$base" "in.new=$base" set.init=zero set.noise=0.1 --out p; has err "set.noise is added by init=mean, weighted and copy"
expect 2 "$HANMIX" stage qlora.merge "in.model=$golden/mixtral/model" "in.adapter=$golden/peft/adapter" set.onto=dequantised --out p; has err "set.onto=dequantised needs a 4-bit model"
expect 3 "$HANMIX" generate --model "$base" --prompt Tom --ram 100K; has err "--ram"; one_sentence
expect 0 "$HANMIX" generate --model "$base" --prompt Tom --ram 1G --max-tokens 2
expect 4 "$HANMIX" stage import.llama2c "in.file=$golden/models/stories260K.bin" "in.tokenizer=$golden/tokenizers/models/mistral-v1-32000.model" --out i; has err "vocabulary of 32000 pieces, the model embeds 512"
finish
