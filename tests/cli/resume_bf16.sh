#!/bin/sh
# SPDX-License-Identifier: MIT
# Training in bf16, the default, killed with -9 and continued, on one thread and on two, without dropout and with it: the adapter
# is that of an unbroken run to the byte. Sequences and heads are such that attention computes in bf16, too.
. "$(dirname "$0")/lib.sh"
base=$SOURCE/examples/quickstart/base
expect 0 "$MAKE_MODEL" --out small --preset small --layers 2 --vocab 512
cp "$base"/tokenizer* "$base/special_tokens_map.json" small/
seq 1 2000 | sed 's/.*/Tom & and Tim went to the park. They saw a big dog and a small cat./' >text.txt
expect 0 "$HANMIX" stage corpus.pack in.text=text.txt in.tokenizer="$base" set.seq_len=96 --out packed
train="qlora.train in.model=small in.data=packed set.steps=6 set.save_every=1 set.micro_batch=2 set.rank=4"

for dropout in 0 0.1; do
    expect 0 "$HANMIX" stage $train set.dropout=$dropout set.threads=1 --out "whole$dropout" --quiet
    for threads in 1 2; do
        out=t$dropout.$threads
        "$HANMIX" stage $train set.dropout=$dropout set.threads=$threads --out "$out" --quiet >/dev/null 2>&1 &
        pid=$!
        wait_for 60 test -e "$out.partial/state-2/DONE"
        kill -KILL $pid
        wait $pid 2>/dev/null
        gone "$out"
        expect 0 "$HANMIX" stage $train set.dropout=$dropout set.threads=$threads --out "$out"
        has err continues
        same "whole$dropout/adapter/adapter_model.safetensors" "$out/adapter/adapter_model.safetensors"
    done
done
cmp -s whole0/adapter/adapter_model.safetensors whole0.1/adapter/adapter_model.safetensors && fail "dropout does nothing"
has whole0/stage.json '"compute": "bf16"'
expect 0 "$HANMIX" stage $train set.compute=f32 --out f32 --quiet
cmp -s whole0/adapter/adapter_model.safetensors f32/adapter/adapter_model.safetensors && fail "bf16 computes as f32 does"
finish
