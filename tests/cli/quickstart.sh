#!/bin/sh
# SPDX-License-Identifier: MIT
# The quickstart recipe with few steps, on real input: what each stage promises, what the report says, plans beside peaks,
# the same bytes after kill -9 and for another number of threads.
. "$(dirname "$0")/lib.sh"
recipe=$SOURCE/recipes/quickstart.yaml
few="lora.set.steps=12 lora.set.eval_every=6 lora.set.save_every=2 lora.set.micro_batch=4"

# number FILE KEY: the first number of that key
number() { sed -n 's/^ *"'"$2"'": \([0-9.e+-]*\),*$/\1/p' "$1" | head -n 1; }
# of_set FILE SET KEY: the key's number in the object of a named set
of_set() { sed -n '/"name": "'"$2"'"/,/}/p' "$1" | sed -n 's/^ *"'"$3"'": \([0-9.e+-]*\),*$/\1/p' | head -n 1; }
# is A OP B: compares numbers
is() { awk -v a="$1" -v b="$3" 'BEGIN { exit !(a '"$2"' b) }' || fail "$4: not $1 $2 $3"; }

expect 0 "$HANMIX" plan "$recipe" $few --run-dir run
expect 0 "$HANMIX" run "$recipe" $few --run-dir run --threads 2
has out run/report.md
there run/report.md run/index.html run/manifest.json

# plans: never below the peak, never above the larger of 1.15 times and 48 MiB more (sanitizers take memory of their own)
[ "$SANITIZE" != none ] || for id in zh merged untouched efficiency grown nf4 packed valid_zh valid_en before lora out after; do
    planned=$(number run/$id/stage.json planned_bytes)
    peak=$(number run/$id/stage.json peak_rss_bytes)
    is "$planned" ">=" "$peak" "planned bytes of $id"
    is "$planned" "<=" "$(awk -v p="$peak" 'BEGIN { a = 1.15 * p; b = p + 48 * 1048576; print (a > b ? a : b) }')" "planned bytes of $id"
done

# vocabulary
is "$(number run/merged/report.json added)" "==" 4000 "added pieces"
is "$(number run/merged/report.json vocab_size)" "==" 4512 "pieces in all"
is "$(number run/untouched/report.json differing)" "==" 0 "lines that changed"
is "$(number run/untouched/report.json lines)" ">" 10000 "lines tried"
has run/untouched/report.json '"every_new_piece_has_han": true'
is "$(wc -l <run/zh/pieces.tsv)" "==" 4001 "lines of pieces.tsv"
is "$(wc -l <run/merged/added_pieces.tsv)" "==" 4001 "lines of added_pieces.tsv"

# quantised: every expert; the report names what is not
is "$(number run/nf4/report.json quantized_tensors)" "==" 80 "4-bit tensors" # 5 layers of 4 + 4 x 3
has run/nf4/report.json lm_head
hasnt run/nf4/report.json experts

# training and gain
is "$(grep -c '"loss"' run/lora/metrics.jsonl)" "==" 12 "lines of steps"
is "$(grep -c '"eval"' run/lora/metrics.jsonl)" "==" 3 "lines of evaluations"
is "$(of_set run/after/report.json zh bits_per_byte)" "<" "$(of_set run/before/report.json zh bits_per_byte)" "Chinese bits per byte"
is "$(of_set run/after/report.json zh tokens)" "<" "$(of_set run/before/report.json zh tokens)" "Chinese tokens"
is "$(of_set run/after/report.json en tokens)" "==" "$(of_set run/before/report.json en tokens)" "English tokens"
is "$(of_set run/after/report.json zh bytes)" "==" "$(of_set run/before/report.json zh bytes)" "bytes scored"
has run/report.md "What was gained"
there run/lora/plots/expert_load.svg run/lora/plots/loss.svg run/lora/adapter/adapter_model.safetensors run/out/digests.tsv
# 16-bit rounding may send a token to another expert, so its largest difference says little; without rounding nothing differs
is "$(number run/out/report.json mean_kl)" "<" 0.002 "merged beside base + adapter"
expect 0 "$HANMIX" stage qlora.merge in.model=run/grown in.adapter=run/lora/adapter set.dtype=f32 set.verify="$SOURCE/examples/quickstart/sample.txt" --out exact
is "$(number exact/report.json max_abs_logit_difference)" "<" 1e-4 "merged in f32 beside base + adapter"

# again: nothing to do; nothing has changed
expect 0 "$HANMIX" run "$recipe" $few --run-dir run
is "$(grep -c 'already done' err)" "==" 13 "stages skipped"
expect 0 "$HANMIX" verify run
expect 0 "$HANMIX" status run
printf x >>run/out/config.json
expect 1 "$HANMIX" verify run
has err out/config.json

# kill -9 in mid-training, continued with another number of threads: the same adapter and the same merged model
mkdir again && cp -R run/zh run/merged run/untouched run/efficiency run/grown run/nf4 run/packed run/valid_zh run/valid_en run/before again
"$HANMIX" run "$recipe" $few --run-dir again --until lora --threads 1 >out 2>err &
wait_for 120 test -d again/lora.partial/state-4
kill -9 $!
wait $! 2>/dev/null
gone again/lora
expect 0 "$HANMIX" run "$recipe" $few --run-dir again --threads 1
has err "lora (qlora.train): continues"
same run/lora/adapter/adapter_model.safetensors again/lora/adapter/adapter_model.safetensors
same run/out/model.safetensors again/out/model.safetensors
same run/out/digests.tsv again/out/digests.tsv
same run/lora/plots/expert_load.csv again/lora/plots/expert_load.csv
is "$(grep -c '"loss"' again/lora/metrics.jsonl)" "==" 12 "lines of steps after the kill"

# SIGTERM: stops with 75 and goes on
mkdir third && cp -R run/zh run/merged run/grown run/nf4 run/packed run/valid_zh run/valid_en run/untouched run/efficiency run/before third
"$HANMIX" run "$recipe" $few --run-dir third --only lora >out 2>err &
pid=$!
wait_for 120 test -d third/lora.partial/state-2
kill -TERM $pid
wait $pid
code=$?
[ $code -eq 75 ] || [ -d third/lora ] || fail "exit $code after SIGTERM, expected 75"
expect 0 "$HANMIX" run "$recipe" $few --run-dir third --only lora
same run/lora/adapter/adapter_model.safetensors third/lora/adapter/adapter_model.safetensors
finish
