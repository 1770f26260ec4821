#!/bin/sh
# SPDX-License-Identifier: MIT
# set.ram: weights larger than memory may be. The bytes are those of a run without it, the process stays within it, too little is
# said before the start, and a file that shrinks in use ends the run with its name, the tensor's and exit 4.
. "$(dirname "$0")/lib.sh"
golden=$SOURCE/tests/golden/data
expect 0 "$MAKE_MODEL" --out small --preset small --layers 5 --vocab 4000
ids="in.model=small in.ids=$golden/train/batches.safetensors set.steps=2"
number() { grep -o "\"$2\": [0-9]*" "$1" | head -n 1 | tr -dc 0-9; }
within() { [ "$(number "$1/stage.json" peak_rss_bytes)" -le "$2" ] || fail "$1: peak $(number "$1/stage.json" peak_rss_bytes), allowed $2"; }
same() { cmp "$1" "$2" || fail "$1 differs from $2"; }

# --- the same bytes within the limit ---
expect 0 "$HANMIX" stage qlora.train $ids --out free
for ram in 225 240; do
    expect 0 "$HANMIX" stage qlora.train $ids "set.ram=${ram}M" --out "t$ram"
    same free/adapter/adapter_model.safetensors "t$ram/adapter/adapter_model.safetensors"
    [ -n "$SANITIZE" ] && [ "$SANITIZE" != none ] || within "t$ram" "$((ram << 20))"
done
expect 0 "$HANMIX" stage eval.logits in.model=small "in.ids=$golden/train/batches.safetensors" --out logits
expect 0 "$HANMIX" stage eval.logits in.model=small "in.ids=$golden/train/batches.safetensors" set.ram=360M --out bound
same logits/logits.safetensors bound/logits.safetensors

# --- killed while weights are read, and continued with another limit ---
expect 0 "$HANMIX" stage qlora.train $ids set.steps=5 --out free5
"$HANMIX" stage qlora.train $ids set.steps=5 set.save_every=1 set.ram=225M --out killed >/dev/null 2>&1 &
pid=$!
wait_for 60 test -e killed.partial/state-1/DONE
kill -KILL $pid
wait $pid 2>/dev/null
gone killed
expect 0 "$HANMIX" stage qlora.train $ids set.steps=5 set.save_every=1 set.ram=240M --out killed
has err continues
same free5/adapter/adapter_model.safetensors killed/adapter/adapter_model.safetensors

# --- below the least, and at it ---
expect 3 "$HANMIX" stage qlora.train $ids set.ram=100M --out little
has err "set.ram allows 100.0 MiB, at least"; has err "raise set.ram to"; one_sentence; gone little little.partial
least=$(grep -o 'raise set.ram to [0-9]*M' err | tr -dc 0-9)
expect 0 "$HANMIX" stage qlora.train $ids "set.ram=${least}M" --out least
same free/adapter/adapter_model.safetensors least/adapter/adapter_model.safetensors

# --- the weights' file is cut while in use: its name, and the state saved before is there ---
cut() {
    name=$1 settings=$2
    rm -rf victim; cp -r small victim; half=$(($(wc -c <victim/model.safetensors) * 3 / 5))
    "$HANMIX" stage qlora.train in.model=victim "in.ids=$golden/train/batches.safetensors" set.steps=100000 set.save_every=1 $settings --out "$name" >out 2>err &
    pid=$!
    n=0
    while ! ls "$name".partial/state-*/DONE >/dev/null 2>&1 && [ "$n" -lt 600 ]; do sleep 0.1; n=$((n + 1)); done
    truncate -s "$half" victim/model.safetensors
    wait "$pid"
    code=$?
    [ "$code" -eq 4 ] || { fail "cut in use ($settings): exit $code, expected 4"; sed 's/^/  err: /' err | tail -n 5; }
    has err "victim/model.safetensors' was cut"
    ls -d "$name".partial/state-*/DONE >/dev/null || fail "$name: no state is left"
}
cut mapped "" && has err ", at tensor 'model.layers."
cut streamed set.ram=225M
finish
