#!/bin/sh
# SPDX-License-Identifier: MIT
# The verbs that work on files: encode, decode, generate, inspect, doctor; what they print and how they refuse.
. "$(dirname "$0")/lib.sh"
golden=$SOURCE/tests/golden/data
models=$golden/models
tok=$models/tok512.model
quick=$SOURCE/examples/quickstart

# encode, decode
printf 'Once upon a time\n\n春天 a\n' >text
"$HANMIX" encode --tokenizer "$tok" <text >ids || fail encode
[ "$(sed -n 1p ids)" = "403 407 261 378" ] || fail "ids: $(sed -n 1p ids)"
[ -z "$(sed -n 2p ids)" ] || fail "an empty line has ids"
"$HANMIX" decode --tokenizer "$tok" <ids >back || fail decode
same text back
# any bytes of UTF-8 come back, lines that are empty, end in CR, hold NUL or have no end
printf 'a\n\n\r\nx\r\n\0\n\0\0 y\0\n  two\n \n\ttab \n<s>中\360\240\200\200\177</s>\n\nlast' >odd
: >empty; printf '\n' >newline; printf x >unended; printf 'x\n\n\n' >blank; cat "$SOURCE/README.zh-CN.md" "$SOURCE/cli/cmd_encode.c" >source
for file in odd empty newline unended blank source; do
    "$HANMIX" encode --tokenizer "$quick/base" <$file | "$HANMIX" decode --tokenizer "$quick/base" | cmp - $file || fail "$file did not come back"
done
"$HANMIX" encode --bos --tokenizer "$tok" <text >out; [ "$(sed -n 1p out)" = "1 403 407 261 378" ] || fail "--bos"
"$HANMIX" encode --pieces --tokenizer "$quick/base" <text >out; [ "$(sed -n 1p out)" = "▁Once ▁upon ▁a ▁time" ] || fail "--pieces: $(sed -n 1p out)"
cat >bytes.json <<'END'
{"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}, "added_tokens": [{"id": 5, "content": "<s>", "special": true}],
 "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "\u0120": 3, "\u00e4": 4}, "merges": ["a b"]}}
END
[ "$(printf 'ab ba<s>\na\n' | "$HANMIX" encode --tokenizer bytes.json)" = "$(printf '2 3 1 0 5\n0')" ] || fail "ids of a tokenizer.json"
[ "$(echo '2 3 1 5' | "$HANMIX" decode --tokenizer bytes.json)" = "ab b<s>" ] || fail "text of a tokenizer.json"
[ "$(printf 'b \303\244' | "$HANMIX" encode --pieces --tokenizer bytes.json)" = 'b \x20' ] || fail "pieces of a tokenizer.json"
echo 6 | "$HANMIX" decode --tokenizer bytes.json 2>err >out; [ $? = 4 ] || fail 'an id too large'; has err "'6' is not a token id: 0 to 5"
expect 2 "$HANMIX" encode --bos --tokenizer bytes.json; has err "names no beginning-of-sentence token"
expect 2 "$HANMIX" encode; has err "--tokenizer FILE is missing"
expect 2 "$HANMIX" encode --tokenizer none; one_sentence
echo x >bad.model; expect 4 "$HANMIX" encode --tokenizer bad.model; one_sentence
expect 4 sh -c 'echo "1 2 9999" | "$0" decode --tokenizer "$1"' "$HANMIX" "$tok"; has err "line 1: '9999' is not a token id"
expect 4 sh -c 'echo "1 x" | "$0" decode --tokenizer "$1"' "$HANMIX" "$tok"; has err "'x' is not a token id"

# generate: the recorded greedy continuations
for model in stories260K-llama-hf stories260K-mixtral-hf; do
    expect 0 "$HANMIX" generate --model "$models/$model" --tokenizer "$tok" --prompt "Lily and Tom went to the park. They saw" --max-tokens 40
    has out "Lily and Tom went to the park. They saw a big"
done
expect 0 "$HANMIX" generate --model "$models/stories260K-llama-hf" --tokenizer "$tok" --prompt "Once upon a time" --max-tokens 120
cat >wanted <<'END'
Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. She wanted to play with it, but it was too high.
Lily's mom said, "Lily, let's go to the park." Lily was sad and didn't know what to do. She said, "I want to play with your ball, but I can'
END
same out wanted
printf 'Once upon a time' >prompt
expect 0 "$HANMIX" generate --model "$models/stories260K-llama-hf" --tokenizer "$tok" --prompt-file prompt --max-tokens 120 --threads 1; same out wanted
sample() { "$HANMIX" generate --model "$quick/base" --prompt Tom --max-tokens 20 --temperature 1 --top-p 0.9 --quiet "$@"; }
sample --seed 7 >one; sample --seed 7 --threads 1 >two; sample --seed 8 >three
same one two
cmp -s one three && fail "another seed, the same text"
for compute in f32 bf16; do
    expect 0 "$HANMIX" generate --model "$models/stories260K-mixtral-hf" --tokenizer "$tok" --prompt "Lily and Tom went to the park. They saw" --max-tokens 40 \
        --compute $compute
    has out "Lily and Tom went to the park. They saw a big"
done
has err "prompt: 15 tokens, "; has err "; generated: 40 tokens, "; one_sentence
# --json: the same text and ids as are printed while they are made
tale() { expect 0 "$HANMIX" generate --model "$models/stories260K-llama-hf" --tokenizer "$tok" --prompt "Once upon a time" "$@"; }
for how in "" "--temperature 1 --top-k 5 --seed 3"; do
    tale --max-tokens 60 --quiet $how; mv out streamed
    [ -s err ] && fail "--quiet, and standard error has $(cat err)"
    tale --max-tokens 60 --json --threads 1 $how
    printf '%b\n' "$(sed -n 's/^  "text": "\(.*\)",$/\1/p' out)" >whole
    same whole streamed
    has out '"prompt_tokens": 5'; has out '"finish": "max_tokens"'; has out '"logprobs": ['; has out '"tokens_per_s": '
    [ "$(sed -n '/"ids"/,/]/p' out | grep -c '^    [0-9]')" -eq 60 ] || fail "not 60 ids"
done
tale --max-tokens 60 --temperature 1 --top-k 1 --quiet; mv out narrow
tale --max-tokens 60 --quiet; same narrow out
tale --max-tokens 507
expect 2 "$HANMIX" generate --model "$models/stories260K-llama-hf" --tokenizer "$tok" --prompt "Once upon a time" --max-tokens 508
has err "a prompt of 5 tokens and 508 new ones do not fit the model's 512 positions (max_position_embeddings); --max-tokens: at most 507"; one_sentence
for i in 1 2 3 4 5 6 7 8 9 10 11 12; do printf 'Once upon a time, there was a little girl. She was happy. They ran and ran and ran until they saw the big red ball. Tom had a dog. '; done >long
expect 2 "$HANMIX" generate --model "$models/stories260K-llama-hf" --tokenizer "$tok" --prompt-file long
has err "the model 512 positions (max_position_embeddings)"; one_sentence
expect 2 "$HANMIX" generate --model "$quick/base" --prompt x --top-k 5000000000; has err "--top-k: at most"
expect 2 "$HANMIX" generate --model "$quick/base" --prompt x --compute f16; has err "--compute: 'f16' is neither bf16 nor f32"
expect 2 "$HANMIX" generate --prompt x; has err "--model DIR is missing"
expect 2 "$HANMIX" generate --model "$quick/base"; has err "--prompt"
expect 2 "$HANMIX" generate --model "$quick/base" --prompt x --temperature -1; has err "--temperature"
expect 2 "$HANMIX" generate --model none --prompt x; one_sentence
expect 2 "$HANMIX" generate --model "$models/stories260K-llama-hf" --prompt x; one_sentence # no tokenizer in that folder
expect 4 "$HANMIX" generate --model "$quick/base" --adapter "$golden/peft/adapter" --prompt x; one_sentence

# inspect
expect 0 "$HANMIX" inspect "$quick/base"; has out mixtral; hasnt out tensor_list
expect 0 "$HANMIX" inspect "$quick/base" --json --tensors; has out '"name": "model.embed_tokens.weight"'; has out '"experts": 4'
expect 0 "$HANMIX" inspect "$quick/base/model.safetensors" --tensors; has out "lm_head.weight  BF16  shape [512, 64]"
expect 0 "$HANMIX" inspect "$golden/peft/adapter_rslora" --json; has out '"use_rslora": true'; has out '"kind": "adapter"'
expect 0 "$HANMIX" inspect "$golden/bnb4bit/dq_gate16bit"; has out nf4
expect 0 "$HANMIX" inspect "$tok" --json; has out '"pieces": 512'; has out '"kind": "tokenizer"'
# who encodes, and why it is the library
expect 0 "$HANMIX" inspect "$golden/tokenizers/models/mistral-v3-32768.model" --json; has out '"encoder": "hanmix"'; hasnt out encoder_reason
expect 0 "$HANMIX" inspect "$golden/tokenizers/models/chinese-llama-chinese_sp-20000.model" --json; has out '"encoder": "libsentencepiece"'; has out '"encoder_reason": "the model is not BPE"'
pack() { "$HANMIX" stage corpus.pack in.text="$quick/text/zh.valid.jsonl.zst" set.seq_len=64 set.verify=3 "$@"; }
expect 0 pack in.tokenizer="$quick/base" set.bpe_dropout=0.2 --out own; hasnt err libsentencepiece
grep -q '"encoder": "hanmix"' own/stage.json || fail "own/stage.json does not say who encodes"
expect 0 pack in.tokenizer="$golden/tokenizers/models/chinese-llama-chinese_sp-20000.model" --out theirs; has err "tokenizer: encoded by libsentencepiece, for the model is not BPE"
grep -q '"reason": "the model is not BPE"' theirs/stage.json || fail "theirs/stage.json does not say why"
expect 2 pack in.tokenizer="$golden/tokenizers/models/chinese-llama-chinese_sp-20000.model" set.bpe_dropout=0.2 --out none; has err bpe_dropout
expect 0 "$HANMIX" stage eval.loss in.model="$quick/base" in.text="$quick/sample.txt" set.verify=1 --out loss
expect 0 "$HANMIX" stage vocab.measure in.text="$quick/text/zh.valid.jsonl.zst" in.tokenizers.a="$quick/base" in.tokenizers.b="$golden/tokenizers/models/chinese-llama-chinese_sp-20000.model" set.verify=1 --out measured
grep -q '"reason": "the model is not BPE"' measured/stage.json || fail "measured/stage.json does not say why"
expect 0 "$HANMIX" stage vocab.check in.text="$quick/text/zh.valid.jsonl.zst" in.old="$quick/base" in.new="$quick/base" set.verify=1 --out checked
grep -Eq '"verified_documents": [1-9]' checked/report.json || fail "checked/report.json counts no verified documents"
expect 2 "$HANMIX" inspect none; one_sentence
expect 2 "$HANMIX" inspect "$SOURCE/README.md"; has err "not known by its ending"
expect 2 "$HANMIX" inspect .; one_sentence
head -c 100 "$quick/base/model.safetensors" >cut.safetensors; expect 4 "$HANMIX" inspect cut.safetensors; one_sentence
mkdir half; cp "$quick/base/config.json" half; expect 4 "$HANMIX" inspect half; one_sentence
expect 0 env HM_CPU=ref "$HANMIX" doctor --json
for key in cores isa memory_limit_bytes disk_read_bytes_per_s gemm_gflops nf4_decode_gvalues_per_s; do has out "\"$key\""; done
has out '"kernels": "ref"'; has out '"kernels_reason"'; has out '"name": "portable"'; has out '"amx": "'
expect 0 "$HANMIX" doctor; has out "cores"; has out "GFLOP/s"; has out "amx      "
case $(uname -m) in
x86_64)
    for path in avx2 avx512 avx512bf16 amx; do has out "         $path "; done
    grep -q " avx512_bf16 " /proc/cpuinfo && expect 0 env HM_CPU=avx512bf16 "$HANMIX" doctor && has out "kernels  avx512bf16: "
    grep -q " amx_bf16 " /proc/cpuinfo || { expect 0 env HM_CPU=amx "$HANMIX" doctor; has out "amx      not in this CPU"; } ;;
esac
expect 2 env HM_CPU=fast "$HANMIX" doctor; one_sentence
finish
