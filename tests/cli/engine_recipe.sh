#!/bin/sh
# SPDX-License-Identifier: MIT
# Recipes on the command line: mistakes with file, line and nearest name; overrides; plan, validate, dry run.
. "$(dirname "$0")/lib.sh"
mkdir r data
echo '{"text": "a"}' >data/a.jsonl; cp data/a.jsonl data/b.jsonl
cat >r/good.yaml <<'END'
seed: 3
stages:
  - {id: zh, stage: test.make, in: {text: "../data/*.jsonl"}, set: {bytes: 2K}}
  - {id: lora, stage: test.train, in: {tokenizer: $zh}}
  - {id: use, stage: test.use, in: {tokenizer: $zh, adapter: $lora, file: $zh/tokenizer.model}}
END
expect 0 "$HANMIX" validate r/good.yaml; has out "OK: 3 stages: zh, lora, use"
expect 0 "$HANMIX" plan r/good.yaml
for text in "zh (test.make): run" "program and libraries" "work" "peak memory" "file pages, may be evicted"; do has out "$text"; done
gone runs
expect 0 "$HANMIX" plan r/good.yaml --json
has out '"decision": "run"'; has out '"purpose": "activations"'
expect 3 "$HANMIX" plan r/good.yaml --memory 90M; one_sentence; has err "stage 'lora' needs"; has err "most goes to: weights 64.0 MiB"
expect 0 "$HANMIX" plan r/good.yaml --memory 1G
expect 0 "$HANMIX" run r/good.yaml --dry-run; has out "zh (test.make): run"; gone runs
expect 2 "$HANMIX" plan r/good.yaml --ranks 2; has err "MPI"
expect 0 env HM_CPU=ref "$HANMIX" plan r/good.yaml --bench; has out "GFLOP/s"; has out "lora: 2e+03 GFLOP, about"
expect 0 env HM_CPU=ref "$HANMIX" plan r/good.yaml --bench --json; has out '"estimated_seconds"'
expect 2 "$HANMIX" plan r/good.yaml --memry 3; has err "did you mean 'memory'?"
expect 2 "$HANMIX" plan r/good.yaml --memory; has err "--memory needs a value"
expect 2 "$HANMIX" plan; has err "usage: hanmix plan RECIPE"
expect 2 "$HANMIX" run r/none.yaml; one_sentence; has err "r/none.yaml"

# bad LINES TEXT: a recipe of these lines is refused with the text, by every verb
bad() {
    printf '%b' "$1" >r/bad.yaml
    for verb in validate plan run; do
        expect 2 "$HANMIX" "$verb" r/bad.yaml; one_sentence; has err "$2"
    done
    gone runs
}
bad 'stages:\n- {id: a, stage: test.make, set: {byte: 3}}\n' "r/bad.yaml:2: unknown key in a.set of test.make: 'byte'; did you mean 'bytes'?"
bad 'stages:\n- {id: a, stage: test.make}\n- {id: b, stage: test.use, in: {tokenizer: $c}}\n' "r/bad.yaml:3: unknown stage id 'c'"
bad 'stages:\n- {id: a, stage: test.train, in: {tokenizer: $b/x}}\n- {id: b, stage: test.train, in: {tokenizer: $a/x}}\n' "a cycle: b needs a needs b"
bad 'stages:\n- {id: a, stage: test.make, in: {text: none.txt}}\n' "r/bad.yaml:2: a.in.text: 'r/none.txt' does not exist"
bad 'stages:\n- {id: a, stage: test.make, in: {text: "none*.txt"}}\n' "'r/none*.txt' does not exist"
bad 'stages:\n- {id: a, stage: test.make, in: {text: ../data}}\n' "'r/../data' is a folder; name the text files in it"
bad 'stages:\n- {id: a, stage: test.make, in: {text: bad.yaml}}\n' "is not a text file"
bad 'stages:\n- {id: a, stage: test.use, in: {tokenizer: ../data}}\n' "has no tokenizer.model in it"
bad 'stages:\n- {id: a, stage: test.make}\n- {id: b, stage: test.use, in: {tokenizer: $a, models: [../data]}}\n' "is not a model folder: no config.json in it"
bad 'stages:\n- {id: a, stage: test.twice}\n- {id: b, stage: test.use, in: {tokenizer: $a}}\n' "two candidates of type tokenizer"
bad 'stages:\n- {id: a, stage: test.make, set: {flag: true, share: 0.95}}\n' "a: flag and share above 0.9 exclude each other"

# overrides are relative to the working directory, the recipe's paths to its folder
expect 0 "$HANMIX" run r/good.yaml zh.in.text.one=data/a.jsonl zh.set.word=xy zh.set.list=[p,q] --run-dir o --until zh
has o/zh/report.json '"first": "data/a.jsonl"'; has o/zh/report.json '"name": "one"'
has o/zh/stage.json '"word": "xy"'; has o/manifest.json '"zh.set.word=xy"'
[ "$(cat o/zh/tokenizer.model | wc -c)" -eq 2048 ] || fail "bytes: 2K made another size"
expect 0 "$HANMIX" run r/good.yaml zh.in.text=data/b.jsonl,data/a.jsonl --run-dir o2 --until zh; has o2/zh/report.json '"paths": 2'
expect 2 "$HANMIX" run r/good.yaml zh.set.bites=3; has err "command line: unknown key in zh.set"; gone runs
expect 2 "$HANMIX" run r/good.yaml --until no; has err "unknown stage id 'no'"

# external paths: plan without them, run not
cat >r/ext.yaml <<'END'
about: a published run
external:
  base/model: {what: "the 47 B model, 93 GB", config: config.json}
stages:
  - {id: a, stage: test.use, in: {tokenizer: base/model/tokenizer.model}}
END
echo '{"vocab_size": 32000}' >r/config.json
expect 0 "$HANMIX" validate r/ext.yaml; has out "not there yet: r/base/model/tokenizer.model: the 47 B model, 93 GB"
expect 0 "$HANMIX" plan r/ext.yaml; has out "not there yet"
expect 2 "$HANMIX" run r/ext.yaml; one_sentence; has err "must be brought along: the 47 B model"; gone runs/ext/a

# recipes that come along
HANMIX_RECIPES=$dir/r; export HANMIX_RECIPES
expect 0 "$HANMIX" recipes; has out "a published run"; has out "good"
expect 0 "$HANMIX" recipes show good; same out r/good.yaml
expect 0 "$HANMIX" recipes copy good mine.yaml; expect 0 "$HANMIX" validate mine.yaml; has mine.yaml base_dir
expect 2 "$HANMIX" recipes copy good mine.yaml; has err "exists"
expect 2 "$HANMIX" recipes show god; has err "did you mean 'good'?"
finish
