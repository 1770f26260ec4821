#!/bin/sh
# SPDX-License-Identifier: MIT
# Bad models, adapters, tokenizers, packed data and ids: hostile safetensors, indexes that disagree, unsupported families, weights
# that are no numbers, and things that do not belong together.
. "$(dirname "$0")/lib.sh"
quick=$SOURCE/examples/quickstart
golden=$SOURCE/tests/golden/data
base=$quick/base
zh=$quick/text/zh.valid.jsonl.zst
quantize="qlora.quantize in.model=m"
model() { rm -rf m; cp -r "$base" m; chmod -R u+w m; }

# --- safetensors: what inspect says of the file, and a stage of the model with it ---
# st TEXT HEADER DATA_BYTES
st() { tensors t.safetensors "$2" "$3"; expect 4 "$HANMIX" inspect t.safetensors; has err "'t.safetensors': $1"; one_sentence; }
raw() { printf "$2" >t.safetensors; expect 4 "$HANMIX" inspect t.safetensors; has err "'t.safetensors': $1"; one_sentence; }
raw "0 bytes are too few" ''
raw "7 bytes are too few" 1234567
raw "the header is not '{...}'" '\0\0\0\0\0\0\0\0'
raw "the header claims 18446744073709551615 bytes" '\377\377\377\377\377\377\377\377{}'
raw "the header claims 4294967295 bytes" '\377\377\377\377\0\0\0\0{}'
raw "the header claims 3 bytes but the file holds 10" '\003\0\0\0\0\0\0\0{}'
st "the header is not '{...}'" '[1]' 8
st "tensor 'a' has no 'dtype' string" '{"a":3}' 8
st "tensor 'a' has no pair 'data_offsets'" '{"a":{"dtype":"F32","shape":[2]}}' 8
st "tensor 'a' has no pair 'data_offsets'" '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,9]}}' 8
st "tensor 'a' lies at 8..0" '{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}' 8
st "tensor 'a' lies at 0..9223372036854775807" '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,9223372036854775807]}}' 8
st "not JSON" '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]}}' 8
st "tensor 'a' has a shape or offset" '{"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}}' 8
st "tensor 'a' has a shape or offset" '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0.0,8.0]}}' 8
st "tensor 'a' has a shape or offset" '{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}' 8
st "tensor 'a' has a shape or offset" '{"a":{"dtype":"F32","shape":["2"],"data_offsets":[0,8]}}' 8
st "tensor 'a' has no 'shape' list" '{"a":{"dtype":"F32","shape":{},"data_offsets":[0,8]}}' 8
st "the shape of tensor 'a' overflows" '{"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296,0],"data_offsets":[0,0]}}' 0
st "tensor 'a' has 9 dimensions" '{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,2],"data_offsets":[0,8]}}' 8
st "tensor 'a', F32 [3], needs 12 bytes" '{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}' 8
st "tensor 'a' begins at byte 4, after" '{"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}' 12
st "tensor 'b' begins at byte 4, before" '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}' 12
st "72 bytes follow the last tensor" '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}' 80
st "tensor 'a' has the unsupported dtype 'F99'" '{"a":{"dtype":"F99","shape":[2],"data_offsets":[0,8]}}' 8
st "not JSON at column 57: duplicate object key" '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}' 8
st "not JSON" '{"a\u0000b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}' 8
st "tensor 'a [31m b', F32 [2], needs 8 bytes" '{"a\u001b[31m\nb":{"dtype":"F32","shape":[2],"data_offsets":[0,7]}}' 7
st "__metadata__ must be an object" '{"__metadata__":3}' 0
st "JSON is nested deeper than 64" "{\"a\":$(printf '[%.0s' $(seq 100))$(printf ']%.0s' $(seq 100))}" 0
tensors t.safetensors '{"a\u001b[31mb":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}' 8
expect 0 "$HANMIX" inspect t.safetensors --tensors; hasnt out "$(printf '\033')"
model; tensors m/model.safetensors '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}' 8; refused 4 "'m': tensor 'model.embed_tokens.weight' is missing" $quantize
model; : >m/model.safetensors;                              refused 4 "'m/model.safetensors': 0 bytes" $quantize
model; head -c 100000 "$base/model.safetensors" >m/model.safetensors; refused 4 "lies at 65536..131072 of a buffer of" $quantize
model; printf x >>m/model.safetensors;                      refused 4 "'m/model.safetensors': 1 bytes follow" $quantize
model; rm m/model.safetensors; mkdir m/model.safetensors;   refused 2 "'m/model.safetensors' is a folder" $quantize
model; rm m/model.safetensors; mkfifo m/model.safetensors;  refused 2 "'m/model.safetensors' is a device or pipe" $quantize
model; sed 's/"dtype":"BF16"/"dtype":"I16" /' "$base/model.safetensors" >m/model.safetensors; refused 4 "is I16 without a quant_state; F32, F16 and BF16" $quantize
model; rm m/model.safetensors;                              refused 4 "'m': neither model.safetensors nor model.safetensors.index.json" $quantize
model; ln -s .. m/up;                                       refused 4 "is there a link that leads back up?" $quantize

# --- indexes ---
model; mv m/model.safetensors m/a.safetensors
index() { echo "$2" >m/model.safetensors.index.json; refused 4 "$1" $quantize; }
index "'weight_map' is missing or empty" '{}'
index "'weight_map' is missing or empty" '[]'
index "index.json': not JSON" '{'
index "is mapped to '?'" '{"weight_map":{"model.norm.weight":3}}'
index "is mapped to '../m/a.safetensors', which names no safetensors file of the folder" '{"weight_map":{"model.norm.weight":"../m/a.safetensors"}}'
index "is mapped to '/etc/passwd'" '{"weight_map":{"model.norm.weight":"/etc/passwd"}}'
index "tensor 'lm_head.weight' lies in 'a.safetensors' but is mapped to 'no file'" '{"weight_map":{"model.norm.weight":"a.safetensors"}}'
index "'m/b.safetensors' is missing" '{"weight_map":{"model.norm.weight":"a.safetensors","lm_head.weight":"b.safetensors"}}'
cp m/a.safetensors m/b.safetensors
index "lies in 'a.safetensors' but is mapped to 'b.safetensors'" '{"weight_map":{"model.norm.weight":"a.safetensors","lm_head.weight":"b.safetensors"}}'

# --- config.json ---
# config TEXT KEY VALUE: a model whose config.json says otherwise
config() {
    model
    if grep -q "\"$2\":" m/config.json; then sed -i "s|\"$2\": [^,]*|\"$2\": $3|" m/config.json; else sed -i "0,/{/s|{|{\"$2\": $3,|" m/config.json; fi
    refused 4 "'m/config.json': $1" $quantize
}
config "the family 'MixtralForCausalLM' (model_type 'gpt2') is not supported; LlamaForCausalLM and MixtralForCausalLM are" model_type '"gpt2"'
config "'model_type' must be a string, found an integer" model_type 3
config "rope scaling ('rope_scaling' of type 'linear') is not supported" rope_scaling '{"type": "linear", "factor": 2.0}'
config "rope scaling ('rope_scaling' of type 'llama3') is not supported" rope_scaling '{"rope_type": "llama3", "factor": 8.0}'
config "rope scaling ('rope_parameters' of type 'yarn') is not supported" rope_parameters '{"rope_type": "yarn", "factor": 2.0}'
config "'hidden_act' \"gelu\" is not supported, \"silu\" is" hidden_act '"gelu"'
config "'attention_bias' true is not supported" attention_bias true
config "quantised by 'gptq' without load_in_4bit" quantization_config '{"quant_method": "gptq"}'
config "'bnb_4bit_quant_type' \"fp4\" is not supported" quantization_config '{"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "fp4"}'
config "'hidden_size' is 0, expected 1 to" hidden_size 0
config "'hidden_size' is 99999999999, expected 1 to" hidden_size 99999999999
config "'hidden_size' must be a non-negative integer, found a negative integer" hidden_size -1
config "'hidden_size' must be a non-negative integer, found a real number" hidden_size 1e30
config "'hidden_size' must be a non-negative integer, found a string" hidden_size '"64"'
config "'hidden_size' is missing" hidden_size null
config "hidden_size 65 is no multiple of num_attention_heads 8" hidden_size 65
config "num_attention_heads 8 is no multiple of num_key_value_heads 3" num_key_value_heads 3
config "'num_hidden_layers' is 4294967296, expected 1 to 4096" num_hidden_layers 4294967296
config "the head dimension is 3, expected an even number" head_dim 3
config "'num_local_experts' is 0, expected 1 to 4096" num_local_experts 0
config "'num_experts_per_tok' is 5, expected 1 to 4" num_experts_per_tok 5
config "'rms_norm_eps' is -1, expected 0 or more" rms_norm_eps -1
config "not JSON at line" rms_norm_eps 1e999
config "'rope_theta' is 0, expected more than 0" rope_theta 0
config "'sliding_window' must be a non-negative integer" sliding_window -1
config "'tie_word_embeddings' must be true or false, found a string" tie_word_embeddings '"yes"'
shape() { model; sed -i "s|\"$2\": [^,]*|\"$2\": $3|" m/config.json; refused 4 "'m': tensor '$1" $quantize; }
shape "model.layers.5.input_layernorm.weight' is missing" num_hidden_layers 6
shape "model.embed_tokens.weight' has shape [512, 64], the config needs [600, 64]" vocab_size 600
shape "model.layers.0.block_sparse_moe.gate.weight' has shape [4, 64], the config needs [3, 64]" num_local_experts 3
model; : >m/config.json;                    refused 4 "'m/config.json': not JSON" $quantize
model; echo '[]' >m/config.json;            refused 4 "'m/config.json': expected a JSON object" $quantize
model; printf '\377\376{}' >m/config.json;  refused 4 "'m/config.json': not JSON" $quantize
model; rm m/config.json;                    refused 2 "'m' is not a model folder: no config.json in it" $quantize
mkdir m/config.json;                        refused 2 "'m/config.json' is a folder" $quantize
model; echo '{' >m/hanmix.json;             refused 4 "'m/hanmix.json': not JSON" $quantize

# --- weights that are no numbers: the last values of the file belong to model.norm ---
fine corpus.pack in.text="$zh" in.tokenizer="$base" set.seq_len=16 set.sample_bytes=30K; mv x pack
fine qlora.train in.model="$base" in.data=pack set.steps=2; mv x lora
for value in '\377\177' '\200\377'; do # NaN, -Inf
    model; spoil m/model.safetensors -2 "$value"
    refused 4 "'m': tensor 'model.norm.weight' holds NaN" $quantize
    refused 4 "'m': tensor 'model.norm.weight' holds NaN" eval.loss in.model=m in.text="$quick/sample.txt" set.window=16
    refused 4 "'m': tensor 'model.norm.weight' holds NaN" qlora.train in.model=m in.data=pack set.steps=1
    refused 4 "'model.norm.weight': the model or the adapter holds NaN" qlora.merge in.model=m in.adapter=lora/adapter
    expect 4 "$HANMIX" generate --model m --prompt Tom --max-tokens 3; has err "holds NaN or infinity; the model is damaged"
done

# --- adapters ---
adapter() { rm -rf a; cp -r lora/adapter a; chmod -R u+w a; }
merge="qlora.merge in.model=$base in.adapter=a"
# adapt TEXT KEY VALUE: an adapter_config.json that says otherwise
adapt() {
    adapter
    tr '\n' ' ' <lora/adapter/adapter_config.json | sed "s|\"$2\": *\[[^]]*\]|\"$2\": $3|; t; s|\"$2\": *{[^}]*}|\"$2\": $3|; t; s|\"$2\": *[^,}]*|\"$2\": $3|; t; s|{|{\"$2\": $3, |" >a/adapter_config.json
    refused 4 "$1" $merge
}
adapter; fine $merge
adapt "peft_type is 'PREFIX_TUNING', expected LORA" peft_type '"PREFIX_TUNING"'
adapt "r is 0, expected a rank from 1 to 65536" r 0
adapt "r is 99999999999, expected a rank from 1 to 65536" r 99999999999
adapt "'r' must be a non-negative integer" r -1
adapt "is [8, 64], but the model '$base' and the configuration make it [4, 64]" r 4
adapt "alpha: found 1e+300" lora_alpha 1e300
adapt "'use_rslora' must be true or false" use_rslora '"yes"'
adapt "'use_dora' is set: this kind of adapter is not supported" use_dora true
adapt "bias 'all' is not supported, only none" bias '"all"'
adapt "init_lora_weights 'pissa' changes the base model" init_lora_weights '"pissa"'
adapt "'a': the adapter trains nothing" target_modules '["nothing"]'
adapt "pattern '(': a group is not closed" target_modules '"("'
adapt "'target_modules' must be a list of names" target_modules 3
adapt "rank_pattern: a rank is a whole number from 1 to 65536, found 0" rank_pattern '{"q_proj": 0}'
adapt "modules_to_save 'nothing' names no module of the model" modules_to_save '["nothing"]'
adapt "'lm_head' is in modules_to_save" modules_to_save '["lm_head"]'
adapter; : >a/adapter_config.json;                                     refused 4 "'a/adapter_config.json': not JSON" $merge
adapter; rm a/adapter_config.json;                                     refused 2 "'a' is not an adapter folder" $merge
adapter; rm a/adapter_model.safetensors;                               refused 2 "'a/adapter_model.safetensors' does not exist" $merge
adapter; mv a/adapter_model.safetensors a/adapter_model.bin;           refused 4 "pickled adapters are not read" $merge
adapter; head -c 3000 lora/adapter/adapter_model.safetensors >a/adapter_model.safetensors; refused 4 "it is truncated or not safetensors" $merge
adapter; spoil a/adapter_model.safetensors -4 '\0\0\300\177';         refused 4 "holds NaN or Inf" $merge
for text in 'qlora.merge in.adapter' 'eval.loss in.text='"$quick"'/sample.txt in.adapter' 'qlora.train set.steps=1 in.data=pack in.adapter'; do
    refused 4 "the adapter belongs to another model" $text="$golden/peft/adapter" in.model="$base"
done

# --- tokenizers ---
token() { expect 4 "$HANMIX" encode --tokenizer t.model; has err "'t.model'$1"; one_sentence; refused 4 "'t.model'$1" corpus.pack in.text="$zh" in.tokenizer=t.model; }
: >t.model;                                                  token " is no SentencePiece model: it holds no pieces"
head -c 4000 "$base/tokenizer.model" >t.model;               token " is no SentencePiece model: its 4000 bytes do not parse"
cp "$base/tokenizer.model" t.model; chmod u+w t.model; spoil t.model 2000 '\377\377\377\377'; token " is no SentencePiece model"
printf '\n\377\377\377\377\377\377\377\377\177' >t.model;    token " is no SentencePiece model"
cat "$base/tokenizer.model" "$base/tokenizer.model" >t.model; token ": pieces 0 and 512 are the same text '<unk>'"
refused 2 "tokenizer.json' is a tokenizer.json; what is asked for is SentencePiece's tokenizer.model" vocab.merge in.base="$base/tokenizer.json" in.extra="$base"
printf '{"model": {"vocab": {"<unk>": 0}, "merges": [], "unk_token": "<unk>", "fuse_unk": true}}' >t.json
refused 4 "'t.json': a model that leaves spaces as they are cannot be read exactly" corpus.pack in.text="$zh" in.tokenizer=t.json
expect 0 "$HANMIX" stage corpus.pack in.text="$zh" in.tokenizer="$base/tokenizer.json" set.seq_len=64 --out packed.json
refused 4 "mistral-v1-32000.model' has a vocabulary of 32000 pieces, the model embeds 512" eval.loss in.model="$base" in.text="$quick/sample.txt" in.tokenizer="$golden/tokenizers/models/mistral-v1-32000.model"
refused 4 "fewer than the 32000 pieces of the old tokenizer" vocab.resize in.model="$base" in.old="$golden/tokenizers/models/mistral-v1-32000.model" in.new="$golden/tokenizers/models/mistral-v1-32000.model"
refused 4 "fewer than the old one's" vocab.resize in.model="$base" in.old="$golden/tokenizers/models/mistral-v1-32000.model" in.new="$base"
expect 4 "$HANMIX" generate --model "$base" --tokenizer "$golden/tokenizers/models/mistral-v1-32000.model" --prompt x; has err "they do not belong together"

# --- packed data and ids ---
hmp() { cp pack/train.hmp p.hmp; chmod u+w p.hmp; spoil p.hmp "$2" "$3"; refused 4 "'p.hmp'$1" qlora.train in.model="$base" in.data=p.hmp set.steps=1; }
hmp " is not a packed token file" 0 XX
hmp ": packed format version" 8 '\377'
hmp " does not end with a footer" -8 XXXX
head -c 100 pack/train.hmp >p.hmp; refused 4 "'p.hmp' is not a packed token file: it has only 100 bytes" qlora.train in.model="$base" in.data=p.hmp set.steps=1
: >p.hmp; refused 4 "'p.hmp'" eval.loss in.model="$base" in.packed=p.hmp
cp pack/train.hmp p.hmp; chmod u+w p.hmp; spoil p.hmp 600 '\377\377'; refused 4 "p.hmp" eval.loss in.model="$base" in.packed=p.hmp
# ids TEXT HEADER BYTES DATA: the file for training and for logits
ids() {
    tensors i.safetensors "$2" "$3"
    [ $# -lt 4 ] || spoil i.safetensors -"$3" "$4"
    refused 4 "'i.safetensors'$1" qlora.train in.model="$base" in.ids=i.safetensors set.steps=1
    refused 4 "'i.safetensors'$1" eval.logits in.model="$base" in.ids=i.safetensors
}
one='"input_ids":{"dtype":"I64","shape":[1,4],"data_offsets":[0,32]}'
ids ": tensor 'input_ids' is I32, expected I64" '{"input_ids":{"dtype":"I32","shape":[1,4],"data_offsets":[0,16]}}' 16
ids ": input_ids has shape [4]; expected [rows, T]" '{"input_ids":{"dtype":"I64","shape":[4],"data_offsets":[0,32]}}' 32
ids ": input_ids has shape [0, 4]" '{"input_ids":{"dtype":"I64","shape":[0,4],"data_offsets":[0,0]}}' 0
ids " has neither a tensor input_ids nor one named ids" '{"x":{"dtype":"I64","shape":[1,4],"data_offsets":[0,32]}}' 32
ids ": input_ids holds 512 in row 0 at position 0; expected 0 to 511" "{$one}" 32 '\0\002'
ids ": input_ids holds -1 in row 0 at position 0" "{$one}" 32 '\377\377\377\377\377\377\377\377'
ids ": input_ids holds 4294967297 in row 0" "{$one}" 32 '\001\0\0\0\001'
ids ": tensor 'labels' has shape [4], expected [1, 4]" "{$one,\"labels\":{\"dtype\":\"I64\",\"shape\":[4],\"data_offsets\":[32,64]}}" 64
ids ": labels holds 512 in row 0 at position 0; expected 0 to 511 or -100" "{$one,\"labels\":{\"dtype\":\"I64\",\"shape\":[1,4],\"data_offsets\":[32,64]}}" 64 '\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\002'
ids ": attention_mask holds 7 in row 0" "{$one,\"attention_mask\":{\"dtype\":\"I64\",\"shape\":[1,4],\"data_offsets\":[32,64]}}" 64 '\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\007'

# --- training that runs away stops with what it knows ---
rm -rf x x.partial
expect 5 "$HANMIX" stage qlora.train in.model="$base" in.data=pack set.steps=60 set.lr=100 set.warmup=0 set.lr_schedule=constant set.clip=0 set.weight_decay=10 set.save_every=1 --out x --quiet
has err "stage 'x' (qlora.train): step "; has err "is not finite"; one_sentence; gone x; there x.partial/stage.json
finish
