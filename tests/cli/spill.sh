#!/bin/sh
# SPDX-License-Identifier: MIT
# vocab.train within a memory limit: runs go to the disk, the files are those of a run without a limit. Killed in any pass, stopped,
# or with a full disk, the same command ends with the same files and leaves no scratch.
. "$(dirname "$0")/lib.sh"
command="vocab.train in.text=$SOURCE/examples/quickstart/text/zh.jsonl.zst set.pieces=4000 set.max_piece_chars=8"
# like OUT: the files of the whole run, no scratch
like() {
    for file in tokenizer.model pieces.tsv; do same "whole/$file" "$1/$file"; done
    [ "$(ls -A "$1" | wc -l)" -eq "$(ls -A whole | wc -l)" ] || fail "$1 holds other files"
    gone "$1.partial"
}
expect 0 "$HANMIX" stage $command --out whole --quiet
hasnt whole/stage.json spilled_bytes
# refused before any work below what counting and training need; what is named does, within set.memory
for pieces in 2000 20000; do
    little="vocab.train in.text=$SOURCE/examples/quickstart/text/zh.jsonl.zst set.pieces=$pieces"
    expect 3 "$HANMIX" stage $little set.memory=34M --out little --quiet
    has err "set.memory: 34.0 MiB are too little for $pieces pieces"; one_sentence; gone little little.partial
    least=$(sed -n 's/.*; set.memory=\([0-9]*\)M will do.*/\1/p' err)
    expect 0 env HM_PROGRESS_SECONDS=0 "$HANMIX" stage $little set.memory=${least}M --out little
    looks=$(grep -c "looking through the text" err)
    [ "$looks" -le 16 ] || fail "$pieces pieces: $looks looks through the text, set.memory=${least}M"
    for what in planned_bytes peak_rss_bytes; do
        bytes=$(sed -n "s/.*\"$what\": *\([0-9]*\).*/\1/p" little/stage.json | head -n 1)
        [ -n "$bytes" ] || fail "stage.json has no $what"
        [ "$SANITIZE" != none ] || [ "$bytes" -le $((least << 20)) ] || fail "$what is $bytes, set.memory=${least}M"
    done
    rm -rf little
done
# where it goes on, for few characters or beside a base that has the pieces, the plan knows
for more in "set.pieces=2000 set.singles=100" "set.pieces=3000 in.base=whole"; do
    expect 0 "$HANMIX" stage ${command% set.pieces*} $more --out more --quiet
    bytes() { sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p" more/stage.json | head -n 1; }
    [ "$SANITIZE" != none ] || [ "$(bytes planned_bytes)" -ge "$(bytes peak_rss_bytes)" ] ||
        fail "$more: planned $(bytes planned_bytes) bytes, took $(bytes peak_rss_bytes)"
    rm -rf more
done
# vocab.sweep: what its counts take is told as well
sweep="vocab.sweep in.text=$SOURCE/examples/quickstart/text/zh.jsonl.zst in.held_out=$SOURCE/examples/quickstart/text/zh.jsonl.zst"
sweep="$sweep set.pieces=$(seq -s, 83 83 7968)"
expect 3 "$HANMIX" stage $sweep set.memory=64M --out swept --quiet
has err "set.memory: 64.0 MiB are too little for counts of candidates"; one_sentence; gone swept swept.partial
least=$(sed -n 's/.*; set.memory=\([0-9]*\)M will do.*/\1/p' err)
expect 0 "$HANMIX" stage $sweep set.memory=${least}M --out swept --quiet
bytes=$(sed -n 's/.*"peak_rss_bytes": *\([0-9]*\).*/\1/p' swept/stage.json | head -n 1)
[ "$SANITIZE" != none ] || [ "$bytes" -le $((least << 20)) ] || fail "vocab.sweep takes $bytes, set.memory=${least}M"
[ "$(wc -l <swept/alp.csv)" -eq 97 ] || fail "alp.csv has not 96 rows"
there swept/alp.svg
command="$command set.memory=60M"
expect 0 "$HANMIX" stage $command --out spilled --quiet
has spilled/stage.json '"spilled_bytes"'
like spilled

# killed SIGNAL FILE: once FILE is there; 1 when it was too late
killed() {
    rm -rf cut cut.partial
    "$HANMIX" stage $command --out cut --quiet >/dev/null 2>&1 &
    pid=$!
    while kill -0 $pid 2>/dev/null && [ ! -e "cut.partial/$2" ]; do :; done
    kill -"$1" $pid 2>/dev/null
    wait $pid 2>/dev/null
    [ -e "cut.partial/stage.json" ]
}
for file in stage.json counting.runs counting.json counting.cut.0000 counting.cut.json; do
    for signal in KILL TERM; do
        for try in 1 2 3 4 5; do killed $signal $file && break; done
        said=""
        [ ! -e cut.partial/stage.json ] || said="unfinished, starts over"
        [ ! -e cut.partial/counting.runs ] || said="which starts over"
        [ ! -e cut.partial/counting.json ] || said="continues with the text that was counted before"
        [ ! -e cut.partial/report.json ] || said="complete but for its name"
        expect 0 "$HANMIX" stage $command --out cut
        like cut
        [ ! "$said" ] || has err "$said"
    done
done
# killed in a pass, with other threads and another limit for the rest: the same files
for file in counting.runs counting.json counting.cut.0000 counting.cut.json; do
    for rest in "set.memory=60M --threads 1" "set.memory=75M --threads 5" ""; do
        for try in 1 2 3 4 5; do killed KILL $file && break; done
        expect 0 "$HANMIX" stage ${command% set.memory=*} $rest --out cut --quiet
        for name in tokenizer.model pieces.tsv; do same "whole/$name" "cut/$name"; done
        rm -rf cut
    done
done
# stopped by hand: between two passes or within one, resumable; two runs in one folder: the second says so
stopped=0
for try in 1 2 3 4 5; do
    rm -rf cut cut.partial
    "$HANMIX" stage $command --out cut --quiet >/dev/null 2>err &
    pid=$!
    wait_for 20 test -e cut.partial/counting.runs -o -e cut
    if [ -e cut.partial/counting.runs ]; then
        "$HANMIX" stage $command --out cut --quiet >/dev/null 2>second
        second=$?
        kill -TERM $pid 2>/dev/null
        wait $pid
        [ $? -eq 75 ] && [ $second -eq 6 ] && stopped=1 && break
    fi
    wait $pid 2>/dev/null
done
[ $stopped -eq 1 ] || { fail "no exit code 75 when stopped, or no refusal of a second run ($second)"; cat err second; }
[ "$(wc -l <second)" -eq 1 ] || { fail "a second run in one folder: not one sentence"; cat second; }
expect 0 "$HANMIX" stage $command --out cut
like cut
if [ "$SANITIZE" = none ]; then # a preloaded library comes before the sanitizer's runtime
    for bytes in 65536 3000000; do
        expect 6 env LD_PRELOAD="$WRITE_FAULT" HM_FULL_PATH="/full.partial/counting" HM_FULL_BYTES=$bytes \
            "$HANMIX" stage $command --out full --quiet
        has err "cannot write 'full.partial/"; has err "No space left on device"; has err "run the same command again"
        one_sentence
        gone full
    done
    expect 0 "$HANMIX" stage $command --out full --quiet
    like full
fi
finish
