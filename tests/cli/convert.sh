#!/bin/sh
# SPDX-License-Identifier: MIT
# Quantising that is killed in the middle: the same command continues with what is not whole on the disk, files and report are
# those of one run; other settings start over. (Merging is killed in tests/unit/qlora/test_adapter_merge.c.)
. "$(dirname "$0")/lib.sh"
"$MAKE_MODEL" --preset tiny --dtype bf16 --out model >/dev/null || fail make_model
journal=.whole.journal

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

expect 0 "$HANMIX" stage qlora.quantize in.model=model set.shard_size=1M --out whole --quiet
killed_early nf4 qlora.quantize in.model=model set.shard_size=1M
expect 0 "$HANMIX" stage qlora.quantize in.model=model set.shard_size=1M --out nf4
has err continues
like whole nf4
killed_early other qlora.quantize in.model=model set.shard_size=1M
expect 0 "$HANMIX" stage qlora.quantize in.model=model set.shard_size=1M set.double_quant=false --out other
hasnt err "; it was stopped"
gone "other/$journal"
finish
