#!/bin/sh
# SPDX-License-Identifier: MIT
# A run folder through its life: skipping and why not, --only, failed checks, errors and their codes, locks, kills, full disks.
. "$(dirname "$0")/lib.sh"
cat >r.yaml <<'END'
run_dir: o
stages:
  - {id: zh, stage: test.make, set: {bytes: 1000}}
  - {id: lora, stage: test.train, in: {tokenizer: $zh}, set: {steps: 30}}
  - {id: use, stage: test.use, in: {tokenizer: $zh, adapter: $lora}}
END
expect 2 "$HANMIX" run r.yaml --only lora; has err "stage 'zh', which it needs, has not finished"
expect 0 "$HANMIX" run r.yaml
has out "o/report.md"; has err "[1/3] zh (test.make): starts"
there o/zh/stage.json o/zh/report.json o/lora/adapter/adapter_config.json o/use/used.txt o/manifest.json o/report.md o/index.html
gone o/zh.partial o/lora.partial
for key in peak_rss_bytes planned_bytes wall_seconds memory_peak_bytes config_digest throughput kernel; do has o/zh/stage.json "\"$key\""; done
has o/use/report.json '"o/lora/adapter"'
expect 0 "$HANMIX" status o; has out "done"; hasnt out waiting
expect 0 "$HANMIX" status o --json; has out '"state": "done"'; has out '"step 30, loss'
expect 0 "$HANMIX" verify o; has out "0 differ, 0 missing"

# the same again: skipped; threads and neutral fields do not count
cp o/manifest.json before.json
expect 0 "$HANMIX" run r.yaml --threads 1 zh.set.slow_ms=1; has err "zh (test.make): already done"; hasnt err starts
has o/manifest.json '"zh.set.slow_ms=1"'
expect 0 "$HANMIX" plan r.yaml; has out "nothing to run: every stage is finished"
# a changed key: it and what depends on it run, and only when its output differs
expect 0 "$HANMIX" plan r.yaml lora.set.lr=2e-4; has out "zh (test.make): skip"; has out "lora (test.train): run; set.lr: 0.0001 -> 0.0002"; has out "use (test.use): wait"
expect 0 "$HANMIX" run r.yaml zh.set.share=0.25
has err "zh (test.make): starts; set.share: 0.5 -> 0.25"; has err "lora (test.train): already done"
expect 0 "$HANMIX" run r.yaml zh.set.share=0.25 zh.set.bytes=1001
has err "set.bytes: 1000 -> 1001"; has err "lora (test.train): starts; in.tokenizer has changed"; has err "use (test.use): starts; in.tokenizer has changed"
expect 0 "$HANMIX" run r.yaml zh.set.share=0.25 zh.set.bytes=1001 seed=2 --until zh; has err "seed: 1 -> 2"
# quiet
expect 0 "$HANMIX" run r.yaml --quiet; [ ! -s err ] && [ ! -s out ] || fail "--quiet speaks"

# a file that changed behind our back
expect 0 "$HANMIX" verify o
echo x >>o/use/used.txt
expect 1 "$HANMIX" verify o; has err "o/use/used.txt"; has out "1 differ"
rm o/use/used.txt
expect 1 "$HANMIX" verify o; has err "is missing"
expect 2 "$HANMIX" verify .; has err "no manifest.json"

# a failed check completes its folder and stops the run; it is tried again
rm -rf o
expect 1 "$HANMIX" run r.yaml zh.set.fail=check; one=$(grep -c . err); has err "stage 'zh' (test.make): the check failed as asked"
there o/zh/report.json o/manifest.json o/report.md; has o/zh/stage.json '"state": "failed"'; gone o/lora o/zh.partial
expect 0 "$HANMIX" status o; has out failed; has out waiting
expect 1 "$HANMIX" run r.yaml zh.set.fail=check; has err "its check failed before"
expect 5 "$HANMIX" run r.yaml zh.set.fail=numeric; has err "step 3: the loss is not finite"; gone o/zh.partial
there o/zh/report.json # the older result is still there
expect 0 "$HANMIX" run r.yaml

# threads of one stage are for it alone
expect 0 env OMP_NUM_THREADS=3 "$HANMIX" run r.yaml --run-dir t zh.set.threads=1; has t/zh/stage.json '"threads": 1'; has t/lora/stage.json '"threads": 3'
expect 0 "$HANMIX" run r.yaml --run-dir t2 zh.set.threads=1 --threads 2; has t2/zh/stage.json '"threads": 1'; has t2/lora/stage.json '"threads": 2'

# a foreign folder in the way is not touched
mkdir -p p/zh && echo mine >p/zh/mine
expect 2 "$HANMIX" run r.yaml --run-dir p; has err "was not made by a stage"; there p/zh/mine

# in use by another process
"$HANMIX" run r.yaml --run-dir l zh.set.slow_ms=20000 2>busy.err & pid=$!
wait_for 10 test -e l/zh.partial/tokenizer.model
expect 6 "$HANMIX" run r.yaml --run-dir l; one_sentence; has err "is locked by process $pid"
expect 0 "$HANMIX" status l; has out "running now"; has out "running"
kill -TERM $pid; wait $pid; code=$?
[ $code -eq 75 ] || fail "SIGTERM: exit $code"
has busy.err "zh: stopped; the same command starts it over"
gone l/zh.partial l/zh
expect 0 "$HANMIX" run r.yaml --run-dir l

# resumable: stopped, then continued; settings changed: started over
for signal in INT TERM USR1; do
    "$HANMIX" run r.yaml --run-dir "s$signal" lora.set.slow_ms=100 2>stop.err & pid=$!
    wait_for 10 grep -q '"step": 2' "s$signal/lora.partial/metrics.jsonl"
    kill -$signal $pid; wait $pid; code=$?
    [ $code -eq 75 ] || { fail "SIG$signal: exit $code"; cat stop.err; }
    has stop.err "lora: stopped; the same command continues it"
    expect 0 "$HANMIX" status "s$signal"; has out stopped; has out "step"
    expect 0 "$HANMIX" plan r.yaml --run-dir "s$signal" lora.set.slow_ms=1; has out "lora (test.train): continue; it was stopped"
done
expect 0 "$HANMIX" run r.yaml --run-dir sINT; has err "lora (test.train): continues"; hasnt sINT/lora/report.json '"resumed_from": 0'
[ "$(grep -c step sINT/lora/metrics.jsonl)" -eq 30 ] || fail "not 30 steps after continuing"
expect 0 "$HANMIX" run r.yaml --run-dir sTERM lora.set.lr=1e-3; has err "unfinished, starts over: set.lr: 0.0001 -> 0.001"; has sTERM/lora/report.json '"resumed_from": 0'

# killed at once, at several moments: the next run ends with the same files
expect 0 "$HANMIX" run r.yaml --run-dir whole
for moment in l0.partial zh.partial zh lora.partial/metrics.jsonl; do
    rm -rf k
    "$HANMIX" run r.yaml --run-dir k zh.set.slow_ms=150 lora.set.slow_ms=50 2>kill.err & pid=$!
    [ $moment = l0.partial ] || wait_for 10 test -e k/$moment
    kill -KILL $pid; wait $pid 2>/dev/null
    if [ -d k/zh ]; then expect 0 "$HANMIX" status k; hasnt out running; fi
    expect 0 "$HANMIX" run r.yaml --run-dir k
    same k/zh/tokenizer.model whole/zh/tokenizer.model; same k/use/used.txt whole/use/used.txt
    same k/lora/metrics.jsonl whole/lora/metrics.jsonl
    expect 0 "$HANMIX" verify k
done
# killed between the last byte and the rename
mv k/zh k/zh.partial; rm -rf k/use
expect 0 "$HANMIX" run r.yaml --run-dir k; has err "zh (test.make): continues; complete but for its name"; there k/zh/report.json; expect 0 "$HANMIX" verify k

# no room: a file size limit stands for a full disk
limited() { (ulimit -f 20; exec "$@"); }
expect 6 limited "$HANMIX" run r.yaml --run-dir f zh.set.bytes=100K; has err "stage 'zh' (test.make)"; has err "tokenizer.model"
gone f/zh f/zh.partial
expect 0 "$HANMIX" run r.yaml --run-dir f zh.set.bytes=100K
expect 3 "$HANMIX" run r.yaml --run-dir f2 zh.set.bytes=900G; has err "free disk space"; gone f2

# a folder that may not be written
mkdir ro && chmod 555 ro
if [ "$(id -u)" -eq 0 ]; then
    if command -v setpriv >/dev/null; then
        chmod 755 "$dir"; mkdir -m 777 w
        expect 6 setpriv --reuid=65534 --clear-groups "$HANMIX" run r.yaml --run-dir ro/x; one_sentence; has err "ro/x"
    fi
else
    expect 6 "$HANMIX" run r.yaml --run-dir ro/x; one_sentence; has err "ro/x"
fi

# a run folder whose own files are broken
rm -rf b && expect 0 "$HANMIX" run r.yaml --run-dir b
echo '{' >b/.digests.json; expect 0 "$HANMIX" run r.yaml --run-dir b; hasnt err starts
echo '{' >b/zh/stage.json; expect 4 "$HANMIX" run r.yaml --run-dir b; one_sentence; has err "remove the folder to make it anew"
echo '{' >b/manifest.json; expect 4 "$HANMIX" status b; one_sentence
finish
