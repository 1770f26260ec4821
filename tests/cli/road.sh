#!/bin/sh
# SPDX-License-Identifier: MIT
# The real stages, end to end on very little: every stage runs, writes what it says, is skipped the second time, and
# continues after kills with the same bytes; plans are never below what was measured.
. "$(dirname "$0")/lib.sh"
tiny="$SOURCE/tests/cli/tiny.yaml base_dir=$SOURCE/examples/quickstart"
expect 0 "$HANMIX" validate $tiny; has out "OK: 9 stages"
expect 0 "$HANMIX" run $tiny || finish
for file in zh/tokenizer.model zh/pieces.tsv merged/tokenizer.json merged/added_pieces.tsv merged/dropped_pieces.tsv eff/efficiency.csv eff/efficiency.svg \
    eff/efficiency.md grown/model.safetensors grown/hanmix.json nf4/config.json pack/train.hmp pack/valid.hmp lora/adapter/adapter_model.safetensors \
    lora/metrics.jsonl out/model.safetensors out/digests.tsv out/tokenizer.model report.md index.html manifest.json; do there o/$file; done
# threads take memory of their own
expect 0 "$HANMIX" stage corpus.pack in.text="$SOURCE/examples/quickstart/text/zh.valid.jsonl.zst" in.tokenizer=o/merged set.seq_len=32 set.threads=1000 --out o/wide --quiet
for stage in zh merged same eff grown nf4 pack lora out wide; do
    there o/$stage/stage.json o/$stage/report.json
    peak=$(sed -n 's/.*"peak_rss_bytes": \([0-9]*\).*/\1/p' o/$stage/stage.json)
    planned=$(sed -n 's/.*"planned_bytes": \([0-9]*\).*/\1/p' o/$stage/stage.json)
    [ "$SANITIZE" != none ] || [ "$planned" -ge "$peak" ] || fail "$stage: planned $planned bytes, took $peak"
done
rm -r o/wide
has o/same/report.json '"differing": 0'
has o/lora/stage.json '"kernel'
[ "$(grep -c '"loss"' o/lora/metrics.jsonl)" -eq 40 ] || fail "not 40 steps in metrics.jsonl"
for folder in o/grown o/nf4 o/out o/lora/adapter o/pack o/merged o; do expect 0 "$HANMIX" inspect $folder; done
expect 0 "$HANMIX" inspect o/nf4 --json; has out '"quantized"'
expect 0 "$HANMIX" generate --model o/out --prompt 'Tom' --max-tokens 4
expect 0 "$HANMIX" generate --model o/nf4 --adapter o/lora/adapter --prompt 'Tom' --max-tokens 4
# an adapter beside its base says what a merged model says; f32 keeps the sum of both
expect 0 "$HANMIX" stage qlora.merge in.model=o/grown in.adapter=o/lora/adapter set.dtype=f32 --out one
said() { to=$1; shift; expect 0 "$HANMIX" generate --prompt 'Tom and' --max-tokens 24 --compute f32 --json "$@"; sed -n '/"ids"/,/]/p' out >"ids.$to"; sed -n '/"logprobs"/,/]/p' out | grep '[0-9]' | tr -d ' ,' >"lp.$to"; }
said merged --model one; said beside --model o/grown --adapter o/lora/adapter; said base --model o/grown
same ids.merged ids.beside
[ "$(wc -l <lp.merged)" -gt 0 ] || fail "no log-probabilities"
far() { paste "$1" "$2" | awk '{ d = $1 - $2; if (d < 0) d = -d; if (d > most) most = d } END { print (most > 1e-3) }'; }
[ "$(far lp.merged lp.beside)" -eq 0 ] || fail "log-probabilities with the adapter beside its base and merged are not those"
[ "$(far lp.merged lp.base)" -eq 1 ] || fail "the adapter changes nothing"
expect 0 "$HANMIX" verify o
expect 0 "$HANMIX" run $tiny; hasnt err starts
expect 0 "$HANMIX" plan $tiny lora.set.rank=3; has out "lora (qlora.train): run; set.rank: 2 -> 3"; has out "nf4 (qlora.quantize): skip"; has out "out (qlora.merge): wait"
# one stage alone makes the same bytes as in the recipe, with any number of threads
expect 0 "$HANMIX" stage vocab.merge in.base="$SOURCE/examples/quickstart/base" in.extra=o/zh --out merged2 --threads 1; same merged2/tokenizer.model o/merged/tokenizer.model
expect 0 "$HANMIX" stage qlora.quantize in.model=o/grown --out nf4b --threads 1; same nf4b/model.safetensors o/nf4/model.safetensors
expect 0 "$HANMIX" stage qlora.merge in.model=o/grown in.adapter=o/lora/adapter --out out2 --threads 1; same out2/digests.tsv o/out/digests.tsv

# training killed at once or stopped, at several steps: continued to the same adapter
whole=o/lora/adapter/adapter_model.safetensors
for case in KILL:1:1 KILL:6:2 TERM:3:1 USR1:9:2; do
    signal=${case%%:*}; step=${case#*:}; threads=${step#*:}; step=${step%:*}
    for try in 1 2 3 4 5; do # the signal may come after the last step
        rm -rf k; cp -r o k; rm -rf k/lora k/out
        "$HANMIX" run $tiny --run-dir k --threads "$threads" 2>killed & pid=$!
        wait_for 60 sh -c "[ -e k/lora ] || grep -q '\"step\": $step,' k/lora.partial/metrics.jsonl"
        kill -$signal $pid 2>/dev/null; wait $pid 2>/dev/null; code=$?
        [ -e k/lora ] || break
    done
    [ $signal = KILL ] || [ $code -eq 75 ] || { fail "SIG$signal: exit $code"; cat killed; }
    expect 0 "$HANMIX" run $tiny --run-dir k
    has err "lora (qlora.train): continues"
    same k/lora/adapter/adapter_model.safetensors $whole
    same k/out/digests.tsv o/out/digests.tsv
    [ "$(grep -c '"loss"' k/lora/metrics.jsonl)" -eq "$(grep -c '"loss"' o/lora/metrics.jsonl)" ] || fail "$case: other lines in metrics.jsonl"
done
finish
