#!/bin/sh
# SPDX-License-Identifier: MIT
# plan --bench on the tiny road: keys and numbers before anything has run and afterwards, nothing left behind, stop, refusals.
. "$(dirname "$0")/lib.sh"
tiny="$SOURCE/tests/cli/tiny.yaml base_dir=$SOURCE/examples/quickstart"
# number FILE KEY: the first number of that key
number() { sed -n "s/.*\"$2\": \([-0-9.e+]*\).*/\1/p" "$1" | head -n 1; }
# positive FILE KEY
positive() { case "$(number "$1" "$2")" in '' | 0 | 0.0 | -*) fail "$2 is '$(number "$1" "$2")'" ;; esac; }
only_recipe() { for name in .[!.]* *; do case "$name" in out | err | '.[!.]*') ;; o) [ "$1" = ran ] || fail "$name is there" ;; *) fail "$name is left" ;; esac; done; }

expect 0 "$HANMIX" plan $tiny --bench --json
for key in gemm_gflops disk_read_bytes_per_s disk_write_bytes_per_s estimated_seconds seconds_per_step memory_bytes disk_bytes; do positive out $key; done
has out '"estimated_finish"'; has out '"how": "5 of 5 layers, 1 x 24 of 1 x 24 tokens, '; has out '"what": "save"'; has out '"what": "digest"'
# stages that read text are rehearsed, those that convert follow from the disk: the whole recipe has a finish
has out '"how": "run once"'; has out '"how": "by the rates of the disk"'; has out '"unpredicted_stages": 0'
has err 'lora: timing 1 of 5 layers'
only_recipe fresh
expect 0 "$HANMIX" plan $tiny --bench lora.set.rank_pattern.layers.4.self_attn.q_proj=3 --quiet; has out 'begun now, finished about'; has out '    step '
[ ! -s err ] || fail "--quiet is not quiet"
expect 2 "$HANMIX" plan $tiny --bench --ranks 2; has err 'without MPI'; one_sentence
expect 3 "$HANMIX" plan $tiny --bench --memory 10M; has err "of memory"; hasnt out 'begun now'
only_recipe fresh

# what would make it fit, tried before it is told
lora="lora.set.recompute=false lora.set.micro_batch=64"
expect 3 "$HANMIX" plan $tiny --memory 10M; has err "no change of settings known here would suffice"; one_sentence
expect 0 "$HANMIX" plan $tiny $lora --json
whole=$(number out memory_bytes)
expect 3 "$HANMIX" plan $tiny $lora --memory $((whole - 4194304)); has err "it would fit with lora.set."; one_sentence
change=$(sed 's/.*it would fit with //' err)
expect 0 "$HANMIX" plan $tiny $lora --memory $((whole - 4194304)) $change
expect 3 "$HANMIX" plan $tiny lora.set.memory=1M; has err "set.memory allows 1.0 MiB"
expect 3 "$HANMIX" run $tiny lora.set.memory=1M; has err "set.memory allows 1.0 MiB"; gone o
expect 0 "$HANMIX" plan $tiny --json; positive out read_bytes; has out '"read_bytes_per_step": 0'; has out '"write_bytes_per_step": 0'
expect 0 "$HANMIX" plan $tiny --json lora.set.state=file
written=$(sed -n '/"id": "lora"/,/"work_unit"/s/.*"write_bytes_per_step": \([0-9]*\).*/\1/p' out)
[ "${written:-0}" -gt 0 ] || fail "a state in a file writes '$written' bytes in a step"

# windows are foretold from a sample of the text: an epoch has steps before anything is packed
expect 0 "$HANMIX" plan $tiny --json lora.set.steps=~; has out '"work_unit": "steps"'
steps=$(sed -n '/"id": "lora"/,/"work_unit"/s/.*"work": \([0-9]*\).*/\1/p' out)
[ "${steps:-0}" -gt 50 ] || fail "an epoch of the text to be packed has $steps steps"

# stopped: code 75, nothing left
"$HANMIX" plan $tiny --bench lora.set.micro_batch=512 lora.set.accumulate=1 >out 2>err & pid=$!
wait_for 60 grep -q 'timing 1 of' err; kill -INT $pid; wait $pid; code=$?
[ $code -eq 75 ] || [ $code -eq 0 ] || fail "SIGINT: exit $code"
only_recipe fresh

# what has run is measured with its own weights and data; a stopped run counts the steps that are left
expect 0 "$HANMIX" run $tiny --until lora --quiet
expect 0 "$HANMIX" plan $tiny --bench --json lora.set.steps=80; positive out seconds_per_step; has out '"times": 80.0'
expect 0 "$HANMIX" plan $tiny --bench; hasnt out 'lora: about'
expect 75 "$HANMIX" run $tiny --until lora --quiet lora.set.steps=100000 lora.set.time_limit=1
expect 0 "$HANMIX" plan $tiny --bench --json lora.set.steps=100000 lora.set.time_limit=1
has out '"decision": "continue"'; hasnt out '"times": 100000.0'
only_recipe ran
finish
