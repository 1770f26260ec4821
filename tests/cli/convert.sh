#!/bin/sh
# SPDX-License-Identifier: MIT
# Quantising and merging that are killed in the middle, or whose disk is full: the same command continues with what is not whole
# on the disk, files and report are those of one run; other settings and other inputs start over.
. "$(dirname "$0")/lib.sh"
golden=$SOURCE/tests/golden/data
"$MAKE_MODEL" --preset tiny --dtype bf16 --out model >/dev/null || fail make_model
expect 0 "$HANMIX" stage qlora.train in.model=model in.ids="$golden/train/batches.safetensors" set.steps=1 --out trained --quiet
journal=.whole.journal
quantize="qlora.quantize in.model=model set.shard_size=1M"
merge="qlora.merge in.model=model in.adapter=trained/adapter set.shard_size=1M"

# killed OUT ARGUMENTS...: kill -9 once the first shard is recorded; 1 when it was too late, and OUT is removed
killed() {
    out=$1
    shift
    "$HANMIX" stage "$@" --out "$out" --quiet >/dev/null 2>&1 &
    pid=$!
    while kill -0 $pid 2>/dev/null && [ ! -s "$out.partial/$journal" ]; do :; done
    kill -KILL $pid 2>/dev/null
    wait $pid 2>/dev/null
    [ -s "$out.partial/$journal" ] && return 0
    rm -rf "$out" "$out.partial"
    return 1
}
# killed_early OUT ARGUMENTS...: tries until a kill came in time
killed_early() {
    for try in 1 2 3 4 5 6 7 8 9 10; do killed "$@" && return 0; done
    fail "$1: never killed in time"
}
# like WHOLE CONTINUED: the same files, the record of the run aside, and no journal
like() {
    gone "$2/$journal" "$2.partial"
    for file in "$1"/*; do
        name=${file##*/}
        [ "$name" = stage.json ] || same "$file" "$2/$name"
    done
    [ "$(ls "$1" | wc -l)" -eq "$(ls "$2" | wc -l)" ] || fail "$1 and $2 hold other files"
}
# continued WHOLE OUT ARGUMENTS...: the command goes on with OUT.partial and ends as WHOLE
continued() {
    continued_whole=$1 continued_out=$2
    shift 2
    expect 0 "$HANMIX" stage "$@" --out "$continued_out"
    has err continues
    like "$continued_whole" "$continued_out"
}
# full BYTES OUT ARGUMENTS...: the disk takes that many bytes of OUT: exit 6, one sentence
full() {
    full_bytes=$1 full_out=$2
    shift 2
    expect 6 env LD_PRELOAD="$WRITE_FAULT" HM_FULL_PATH="/$full_out.partial/" HM_FULL_BYTES="$full_bytes" \
        "$HANMIX" stage "$@" --out "$full_out" --quiet
    has err "cannot write '$full_out.partial/"; has err "No space left on device"
    one_sentence
    gone "$full_out"
}

for stage in quantize merge; do
    eval "command=\$$stage"
    expect 0 "$HANMIX" stage $command --out $stage --quiet
    expect 0 "$HANMIX" stage $command --out $stage
    has err "already done" # by the digests of the inputs
    killed_early $stage.cut $command
    continued $stage $stage.cut $command
    if [ "$SANITIZE" = none ]; then # a preloaded library comes before the sanitizer's runtime
        size=$(cat $stage/*.safetensors | wc -c)
        full $((size / 2)) $stage.full $command
        there $stage.full.partial/$journal
        continued $stage $stage.full $command
        full 65536 $stage.none $command # before anything is whole: nothing is left
        gone $stage.none.partial
    fi
done

# --- other settings, other inputs: from the start ---
sleep 1.1 # from here on large inputs are old enough not to be digested ahead of the stage
killed_early other $quantize
expect 0 "$HANMIX" stage $quantize set.double_quant=false --out other
hasnt err "; it was stopped"
gone "other/$journal"
for stage in quantize merge; do
    eval "command=\$$stage"
    killed_early $stage.changed $command
    cp model/model.safetensors kept
    spoil model/model.safetensors -2 '\0\0'
    expect 0 "$HANMIX" stage $command --out $stage.changed
    hasnt err "; it was stopped"; has err "in.model has changed"
    mv kept model/model.safetensors
done

# --- digests that are taken while the stage reads: stage.json says the same as when all is digested ahead ---
record() { sed -n '/"inputs"/,/"config_digest"/p' "$1/stage.json" | grep -vF '"path"'; }
sleep 1.1
for stage in quantize merge; do
    eval "command=\$$stage"
    killed_early $stage.later $command
    has $stage.later.partial/stage.json '"unread"'
    continued $stage $stage.later $command
    expect 0 "$HANMIX" stage $command --out $stage.once --quiet
    record $stage >ahead
    for out in $stage.later $stage.once; do
        hasnt $out/stage.json '"unread"'
        record $out >beside
        same ahead beside
    done
    expect 0 "$HANMIX" stage $command --out $stage.once
    has err "already done"
done
finish
