#!/bin/sh
# SPDX-License-Identifier: MIT
# Planned peaks of training beside what a run takes: never below, at most 8 % or 48 MiB above; models of random weights
# (MAKE_MODEL makes them) at two lengths, with and without recomputation, and one of which the weights are streamed.
. "$(dirname "$0")/lib.sh"
# compare NAME: peak and plan of the finished stage x
compare() {
    peak=$(sed -n 's/.*"peak_rss_bytes": \([0-9]*\).*/\1/p' x/stage.json)
    planned=$(sed -n 's/.*"planned_bytes": \([0-9]*\).*/\1/p' x/stage.json)
    over=$((peak * 8 / 100)); [ $over -ge 50331648 ] || over=50331648
    echo "$1: peak $peak, planned $planned"
    [ "$planned" -ge "$peak" ] || fail "$1: planned $planned bytes, took $peak"
    [ "$planned" -le $((peak + over)) ] || fail "$1: planned $planned bytes, took only $peak"
}
# ids TOKENS: two samples of drawn tokens below 256
ids() {
    ids_header="{\"input_ids\":{\"dtype\":\"I64\",\"shape\":[2,$1],\"data_offsets\":[0,$((16 * $1))]}}"
    tensors ids.safetensors "$ids_header" 0
    printf "$(awk -v n=$((2 * $1)) 'BEGIN { srand(1); while (n-- > 0) printf "\\%03o\\000\\000\\000\\000\\000\\000\\000", rand() * 256 }')" >>ids.safetensors
}

expect 0 "$MAKE_MODEL" --out small --preset small
for tokens in 1024 512; do
    ids $tokens
    fine qlora.train in.model=small in.ids=ids.safetensors set.steps=2; compare "small, $tokens tokens"
done
fine qlora.train in.model=small in.ids=ids.safetensors set.steps=2 set.recompute=false; compare "small, all activations kept"
fine qlora.train in.model=small in.ids=ids.safetensors set.steps=2 set.compute=f32; compare "small, f32"
fine qlora.train in.model=small in.ids=ids.safetensors set.steps=2 set.ram=330M; compare "small within 330 MiB"
finish
