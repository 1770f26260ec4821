#!/bin/sh
# SPDX-License-Identifier: MIT
# set.state=file: what is trained lives in a scratch file. The bytes are those of a run in memory, also continued after kill -9,
# with 8-bit moments, and from an adapter; nothing is left of the file; a disk without room is said before the first step.
. "$(dirname "$0")/lib.sh"
golden=$SOURCE/tests/golden/data
expect 0 "$MAKE_MODEL" --out small --preset small --layers 3 --vocab 4000
ids="in.model=small in.ids=$golden/train/batches.safetensors set.steps=3 set.rank=64 set.train_embeddings=all set.train_head=all"
number() { grep -o "\"$2\": [0-9]*" "$1" | head -n 1 | tr -dc 0-9; }
adapter() { cat "$1/adapter/adapter_model.safetensors"; }
alike() { [ "$(adapter "$1" | cksum)" = "$(adapter "$2" | cksum)" ] || fail "$1 and $2 differ"; }

# --- the same bytes in less memory ---
for optimizer in adamw adamw8bit; do
    expect 0 "$HANMIX" stage qlora.train $ids set.optimizer=$optimizer --out heap.$optimizer
    expect 0 "$HANMIX" stage qlora.train $ids set.optimizer=$optimizer set.state=file --out file.$optimizer
    alike heap.$optimizer file.$optimizer
    cmp heap.$optimizer/state-3/state.safetensors file.$optimizer/state-3/state.safetensors || fail "$optimizer: states differ"
    gone file.$optimizer/state.scratch
done
[ "$(adapter file.adamw | cksum)" != "$(adapter file.adamw8bit | cksum)" ] || fail "adamw8bit trains as adamw does"
heap=$(number heap.adamw/stage.json peak_rss_bytes) file=$(number file.adamw/stage.json peak_rss_bytes)
state=$(($(number heap.adamw/report.json trainable_parameters) * 16))
[ -n "$SANITIZE" ] && [ "$SANITIZE" != none ] || [ $((file + state / 2)) -le "$heap" ] ||
    fail "peak $file with the state in a file, $heap in memory, of $state bytes of state"
planned=$(number file.adamw/stage.json planned_bytes)
[ -n "$SANITIZE" ] && [ "$SANITIZE" != none ] || [ "$file" -le "$planned" ] || fail "peak $file, planned $planned"

# --- disk: values, gradients and moments take 16 bytes a value, a state 12, the adapter 4 ---
printf 'stages:\n  - {id: lora, stage: qlora.train, in: {model: %s, ids: %s}, set: {steps: 3, rank: 64, train_embeddings: all, train_head: all, state: file}}\n' \
    "$PWD/small" "$golden/train/batches.safetensors" >plan.yaml
disk() { expect 0 "$HANMIX" plan plan.yaml "$@" --json >/dev/null; number out disk_bytes; }
values=$((state / 16))
once=$(disk lora.set.save_every=0) each=$(disk lora.set.save_every=1)
[ "$once" -eq $((20 * values)) ] || fail "planned disk of one state: $once, expected values, state and adapter: $((20 * values))"
[ "$each" -eq $((44 * values)) ] || fail "planned disk of three states: $each, expected $((44 * values))"

# --- killed and continued; the place of the state may change between ---
expect 0 "$HANMIX" stage qlora.train $ids set.steps=8 --out whole
"$HANMIX" stage qlora.train $ids set.steps=8 set.save_every=2 set.state=file --out cut >cut.out 2>cut.err &
pid=$!
wait_for 100 test -e cut.partial/state-2/DONE
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
gone cut.partial/state.scratch
[ -e cut ] || expect 0 "$HANMIX" stage qlora.train $ids set.steps=8 set.save_every=2 --out cut
alike whole cut

# --- from an adapter ---
expect 0 "$HANMIX" stage qlora.train $ids in.adapter=heap.adamw/adapter --out more.heap
expect 0 "$HANMIX" stage qlora.train $ids in.adapter=heap.adamw/adapter set.state=file --out more.file
alike more.heap more.file

# --- no room: a file size limit stands for a full disk ---
(ulimit -f 2000; "$HANMIX" stage qlora.train $ids set.state=file --out full --quiet >out 2>err </dev/null)
code=$?
[ $code -eq 6 ] || fail "no room: exit $code, expected 6"
has err "state.scratch' needs"; has err "free some, or keep them in memory"; one_sentence; gone full
finish
