#!/bin/sh
# SPDX-License-Identifier: MIT
# Numbers that leave the range of bf16 and f32: weights that are finite and make activations that are not, and a training that
# grows until it does. One sentence that says where, exit 5, and the last state before it is whole.
. "$(dirname "$0")/lib.sh"
base=$SOURCE/examples/quickstart/base
expect 0 "$MAKE_MODEL" --out small --preset small --layers 2 --vocab 512
cp "$base"/tokenizer* "$base/special_tokens_map.json" small/
seq 1 500 | sed 's/.*/Tom & and Tim went to the park. They saw a big dog and a small cat./' >text.txt
expect 0 "$HANMIX" stage corpus.pack in.text=text.txt in.tokenizer="$base" set.seq_len=96 --out packed
train="qlora.train in.data=packed set.save_every=1 set.keep=99 set.lr_schedule=constant set.warmup=0 set.rank=4"

# --- weights: the first value of a norm is the largest that bf16 holds, and passes the check of what a file may hold ---
# enlarge FILE TENSOR: its first value
enlarge() {
    enlarge_header=$(od -An -tu8 -N8 "$1" | tr -d ' ')
    enlarge_at=$(head -c $((enlarge_header + 8)) "$1" | tail -c "$enlarge_header" | tr '{' '\n' |
        grep -A1 "\"$2\":\$" | tail -n 1 | sed -n 's/.*"data_offsets": *\[ *\([0-9]*\).*/\1/p')
    spoil "$1" $((8 + enlarge_header + enlarge_at)) '\177\177'
}
cp -r small huge
enlarge huge/model.safetensors model.layers.1.post_attention_layernorm.weight
for compute in bf16 f32; do
    rm -rf x x.partial
    expect 5 "$HANMIX" stage $train in.model=huge set.steps=2 set.compute=$compute --out x --quiet
    has err "step 1, micro-batch 1 of 1"; has err "the loss is not finite at row 0, position "; one_sentence; gone x
    rm -rf y y.partial
    expect 5 "$HANMIX" stage eval.loss in.model=huge in.text=text.txt set.compute=$compute --out y --quiet
    has err "not finite"; one_sentence; gone y
    expect 5 "$HANMIX" generate --model huge --prompt Tom --compute $compute
    has err "'huge': the logit of token"; has err "is not finite"; one_sentence
done

# --- a training that grows: what was saved before is what a shorter run saves, and the same command ends the same way ---
for optimizer in adamw adamw8bit; do
    wild="$train in.model=small set.lr=100 set.weight_decay=10 set.clip=0 set.optimizer=$optimizer"
    rm -rf w w.partial s s.partial
    expect 5 "$HANMIX" stage $wild set.steps=40 --out w --quiet
    has err "step "; has err "is not finite"; one_sentence; gone w
    cp err first
    last=$(ls -d w.partial/state-*/DONE | sed 's/.*state-\([0-9]*\).*/\1/' | sort -n | tail -n 1)
    [ "$last" -ge 1 ] || fail "no state was saved"
    has err "step $((last + 1))"
    expect 5 "$HANMIX" stage $wild set.steps=40 --out w --quiet
    same err first
    expect 0 "$HANMIX" stage $wild "set.steps=$last" --out s --quiet
    same "s/state-$last/state.safetensors" "w.partial/state-$last/state.safetensors"
done
finish
