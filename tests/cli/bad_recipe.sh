#!/bin/sh
# SPDX-License-Identifier: MIT
# Bad recipes and command lines with the real stages: file, line, key and what would be right; nothing is begun.
. "$(dirname "$0")/lib.sh"
base=$SOURCE/examples/quickstart/base
cp "$base/tokenizer.model" t.model; printf '中文 text 中文字\n' >a.txt
zh="{id: zh, stage: vocab.train, in: {text: a.txt}, set: {pieces: 4, singles: all}}"

# wrong TEXT LINES: a recipe of these lines (printf escapes) is refused with the text, by every verb
wrong() {
    printf '%b' "$2" >r.yaml
    for verb in validate plan run; do
        expect 2 "$HANMIX" "$verb" r.yaml; one_sentence; has err "$1"
    done
    gone runs
}

# --- the file ---
wrong "r.yaml: a recipe is a map with 'stages', this is empty" ''
wrong "this is empty" '# nothing\n'
wrong "this is one value" 'stages\n'
wrong "this is a list" '- a\n'
wrong "r.yaml:2: not valid YAML: found character that cannot start any token" 'stages:\n\t- {id: a}\n'
wrong "r.yaml:1: anchors and aliases (&name, *name) are not used in recipes" 'about: &a 3\nstages: []\n'
wrong "r.yaml:1: anchors and aliases" 'stages: *a\n'
wrong "put quotes around a value that begins with * or &" 'stages:\n - {id: a, stage: vocab.train, in: {text: *.txt}}\n'
wrong "r.yaml:2: key 'seed' is given twice" "seed: 1\nseed: 2\nstages: [$zh]\n"
wrong "r.yaml:2: key 'stage' is given twice" 'stages:\n - {id: a, stage: vocab.train, stage: vocab.train}\n'
wrong "unknown key of a stage '<<'" 'stages:\n - {<<: {id: a}, stage: vocab.train}\n'
wrong "r.yaml:1: tags (!name) are not used in recipes" 'stages: !!python/object:os.system [x]\n'
wrong "r.yaml:2: a second document begins here" "stages: [$zh]\n---\nstages: []\n"
wrong "r.yaml:2: not valid YAML" 'stages: [{id: a\n'
wrong "r.yaml:1: a value holds a NUL byte" 'stages: [{id: "a\\0b"}]\n'
wrong "r.yaml:1: not valid UTF-8 text: control characters" 'stages: \0\n'
wrong "r.yaml:1: not valid UTF-8 text" 'about: caf\0351\n'
wrong "r.yaml:1: not valid UTF-8 text" '\0377\0376s\0t\0'
wrong "values lie more than 16 levels deep" "a: $(printf '[%.0s' $(seq 100))\n"
head -c 2000000 /dev/zero | tr '\0' ' ' >r.yaml; expect 2 "$HANMIX" validate r.yaml; has err "'r.yaml' has 2000000 bytes"; one_sentence
printf '\357\273\277seed: 1\r\nstages:\r\n  - %s\t\r\n' "$zh" >r.yaml; expect 0 "$HANMIX" validate r.yaml

# --- keys and values ---
wrong "r.yaml:1: seed: '-1' is not a count" "seed: -1\nstages: [$zh]\n"
wrong "r.yaml:1: seed: '1.5' is not a count" "seed: 1.5\nstages: [$zh]\n"
wrong "r.yaml:1: seed: 18446744073709551615 is out of range" "seed: 18446744073709551615\nstages: [$zh]\n"
wrong "r.yaml:1: seed must be one value, it is a list" "seed: [1]\nstages: [$zh]\n"
wrong "r.yaml:1: unknown key of a recipe 'stage'; did you mean 'stages'?" "stage: 3\nstages: [$zh]\n"
wrong "the name of the run folder is empty" "run_dir: \"\"\nstages: [$zh]\n"
wrong "r.yaml: 'stages' must be a list of 1 to 1000 stages" 'stages: {a: b}\n'
wrong "r.yaml:1: a stage must be {id, stage, in, set}, it is one value" 'stages: [x]\n'
wrong "r.yaml:2: a stage needs 'id'" 'stages:\n - {stage: vocab.train}\n'
wrong "r.yaml:2: a stage needs 'stage'" 'stages:\n - {id: a}\n'
for id in '""' 'a b' 'a/b' '..' '中' '$a' manifest.json; do wrong "must be 1 to 64 letters, digits, _ or -" "stages:\n - {id: $id, stage: vocab.train, in: {text: a.txt}}\n"; done
wrong "stage id 'zh' is used twice, first in line 2" "stages:\n - $zh\n - $zh\n"
wrong "r.yaml:2: unknown stage 'vocab.trian'; did you mean 'vocab.train'?" 'stages:\n - {id: a, stage: vocab.trian}\n'
# one KEY VALUE: a stage of vocab.train with that
one() { wrong "r.yaml:2: $1" "stages:\n - {id: a, stage: vocab.train, $2}\n"; }
one "'in' must be a map, it is a list" 'in: [x]'
one "'set' must be a map, it is a list" 'in: {text: a.txt}, set: [x]'
one "unknown input of vocab.train in a.in: 'txt'; did you mean 'text'?" 'in: {txt: a.txt}'
one "unknown key in a.set of vocab.train: 'peices'; did you mean 'pieces'?" 'in: {text: a.txt}, set: {peices: 3}'
one "a.set.pieces: must be one value (count), it is a list" 'in: {text: a.txt}, set: {pieces: [1, 2]}'
one "a.set.pieces: must be one value (count), it is a map" 'in: {text: a.txt}, set: {pieces: {a: 1}}'
one "a.set.pieces: '' is not a count" 'in: {text: a.txt}, set: {pieces: ""}'
one "a.set.pieces: '-3' is not a count" 'in: {text: a.txt}, set: {pieces: -3}'
one "a.set.pieces: 0 is out of range: from 1 to 4000000" 'in: {text: a.txt}, set: {pieces: 0}'
one "a.set.pieces: '1e30' is not a count" 'in: {text: a.txt}, set: {pieces: 1e30}'
one "a.set.dedup: '3' is not one of: off, on, count" 'in: {text: a.txt}, set: {dedup: 3}'
one "a.set.sample_bytes: '2X' is not a size" 'in: {text: a.txt}, set: {sample_bytes: 2X}'
one "a.set.script: 'latin' is not one of: han" 'in: {text: a.txt}, set: {script: latin}'
one "a.set.singles: 'none.txt' does not exist" 'in: {text: a.txt}, set: {singles: none.txt}'
one "a.set.singles: '.' is a folder" 'in: {text: a.txt}, set: {singles: .}'
one "stage 'a' (vocab.train): input 'text' (text) is missing" 'set: {pieces: 3}'
one "a.in.text: an empty path" 'in: {text: ""}'
one "a.in.text must be a path, a list of paths, or named sets, it is an empty list" 'in: {text: []}'
one "a.in.text must be a list whose items are paths, it is a list" 'in: {text: [[a.txt]]}'
one "unknown key of a set 'wieght'; did you mean 'weight'?" 'in: {text: {zh: {files: a.txt, wieght: 1}}}'
one "a.in.text: 'none.txt' does not exist" 'in: {text: none.txt}'

pack() { wrong "r.yaml:2: $1" "stages:\n - {id: a, stage: corpus.pack, in: {tokenizer: t.model, text: $2}}\n"; }
pack "set a.in.text.zh has no 'files'" '{zh: {weight: 1}}'
pack "weight: '-1' must be above 0" '{zh: {files: a.txt, weight: -1}}'
pack "epochs: 'nan' is not a finite number" '{zh: {files: a.txt, epochs: nan}}'
pack "a.in.text: the name of a set has 1 to 64 bytes" '{"": a.txt}'

# --- references ---
merge() { wrong "$1" "stages:\n - $zh\n - {id: a, stage: vocab.merge, in: {base: t.model, extra: $2}}\n"; }
merge "r.yaml:3: unknown stage id 'zg'; did you mean 'zh'?" '$zg'
merge "r.yaml:3: a cycle: a needs a" '$a'
merge "r.yaml:3: a.in.extra: '\$zh/../x' leaves the folder of stage 'zh'" '$zh/../x'
merge "r.yaml:3: a.in.extra: '\$zh//etc' leaves the folder" '$zh//etc'
wrong "r.yaml:3: a.in.model must be of type model, but stage 'zh' (vocab.train) makes tokenizer; to name one of its files write \$zh/FILE" "stages:\n - $zh\n - {id: a, stage: qlora.quantize, in: {model: \$zh}}\n"
wrong "a cycle: " 'stages:\n - {id: a, stage: vocab.merge, in: {base: t.model, extra: $b}}\n - {id: b, stage: vocab.merge, in: {base: t.model, extra: $a}}\n'
wrong "r.yaml:1: unknown key of an external path 'wat'; did you mean 'what'?" "external: {x: {wat: y}}\nstages: [$zh]\n"
printf 'stages:\n - %s\n - {id: a, stage: vocab.merge, in: {base: t.model, extra: $zh/none.model}}\n' "$zh" >r.yaml
expect 2 "$HANMIX" run r.yaml --run-dir o --quiet; one_sentence; has err "stage 'zh' (vocab.train) has not made 'o/zh/none.model'"; there o/zh/report.json; gone o/a o/a.partial

# --- the command line ---
printf 'stages:\n - %s\n' "$zh" >g.yaml
# said CODE TEXT WORDS...
said() { said_code=$1 said_text=$2; shift 2; expect "$said_code" "$HANMIX" "$@"; has err "$said_text"; one_sentence; gone runs; }
said 2 "unknown verb ''" ''
said 2 "unknown verb 'runn'; did you mean 'run'?" runn
said 2 "unknown verb '--bogus'" --bogus
said 2 "'' does not exist" run ''
said 2 "'.' is a folder, not a regular file" run .
said 2 "'/dev/zero' is a device or pipe" run /dev/zero
said 2 "run: something is missing; usage: hanmix run RECIPE" run
said 2 "--run-dir needs a value" run g.yaml --run-dir
said 2 "the name of the run folder is empty" run g.yaml --run-dir ''
said 2 "'a.txt' is a file, a folder is needed" run g.yaml --run-dir a.txt
said 2 "'a.txt' is a file, a folder is needed" run g.yaml --run-dir a.txt/x
said 2 "--threads: 'x' is not a count" run g.yaml --threads x
said 2 "--threads 99999: at most 4096" run g.yaml --threads 99999
said 2 "unknown stage id ''; valid: zh" run g.yaml --until ''
said 2 "exclude each other" run g.yaml --only zh --until zh
said 2 "'extra' is not STAGE.in.KEY=VALUE or STAGE.set.KEY=VALUE" run g.yaml extra
for word in = =x zh=3 zh.=3 zh.set=3 zh.set.=3; do said 2 "'$word' is not STAGE.in.KEY=VALUE" run g.yaml $word; done
said 2 "no value after 'zh.set.pieces='; write ~ for the default" run g.yaml zh.set.pieces=
said 2 "command line: not valid YAML" run g.yaml 'zh.set.pieces=[1'
said 2 "unknown key of a set 'files.b'" run g.yaml zh.in.text.a.files.b=x
said 2 "' is not UTF-8" run g.yaml --run-dir "$(printf 'o\351')"
said 2 "is not UTF-8 text" run g.yaml "zh.set.field=$(printf 'o\351')"
said 2 "' is not STAGE.in.KEY=VALUE" run g.yaml "zh.set.$(head -c 5000 /dev/zero | tr '\0' a)=3"
said 2 "9' is not a count: expected a whole number" run g.yaml "zh.set.pieces=$(head -c 9000 /dev/zero | tr '\0' 9)" # the end of the sentence is kept
said 6 "aaa': File name too long" run g.yaml --run-dir "$(head -c 300 /dev/zero | tr '\0' a)"
said 2 "'-1' is not a size" plan g.yaml --memory -1
said 2 "'bogus' is not in.KEY=VALUE or set.KEY=VALUE" stage vocab.train in.text=a.txt bogus --out x
said 2 "unknown stage 'bogus'" stage bogus --out x
for out in '' / . .. x/..; do said 2 "'$out' is no name of a new folder" stage vocab.train in.text=a.txt --out "$out"; done
said 2 "'a.txt' exists and was not made by a stage" stage vocab.train in.text=a.txt --out a.txt
said 2 "' is not UTF-8" stage vocab.train in.text=a.txt --out "$(printf 'o\351')"
said 2 "'none' is no run folder" status none
said 2 "'a.txt' is no run folder" verify a.txt
said 2 "unknown recipe '../x'" recipes show ../x
said 2 "'a.txt' is not known by its ending" inspect a.txt
said 2 "--bos takes no value" encode --tokenizer t.model --bos=1
said 2 "'' does not exist" encode --tokenizer ''
said 2 "'/dev/zero' is a device or pipe" generate --model "$base" --prompt-file /dev/zero
said 2 "--max-tokens: '-1' is not a count" generate --model "$base" --prompt x --max-tokens -1
said 2 "--temperature: 'nan' is not a finite number" generate --model "$base" --prompt x --temperature nan
said 2 "--top-p: above 0 and at most 1" generate --model "$base" --prompt x --top-p 0
expect 0 "$HANMIX" run g.yaml zh.set.pieces=~ zh.set.pieces=4 --run-dir 'r 中/文' --quiet; there 'r 中/文/zh/report.json'
expect 0 "$HANMIX" status 'r 中/文'; expect 0 "$HANMIX" verify 'r 中/文'

# --- a run folder whose records are damaged ---
ruin() { rm -rf b; cp -r 'r 中/文' b; printf "$2" >b/manifest.json; expect 4 "$HANMIX" "$3" b; has err "$1"; one_sentence; }
for verb in status verify; do
    ruin "'b/manifest.json': not JSON" '{' $verb
    ruin "b/manifest.json" '[]' $verb
    ruin "b/manifest.json" '' $verb
done
ruin "a file without path or sha256" '{"stages": [{"id": "zh", "files": [{"path": "../../etc/passwd", "sha256": "x"}]}]}' verify
for text in '{}' '{"stages": 3}' '{"stages": [3, null, {"id": 3}]}' '{"recipe": 3, "stages": [{"id": "\\u001b[31m", "stage": 1, "state": []}]}'; do
    printf '%s' "$text" >b/manifest.json; "$HANMIX" status b >out 2>err; code=$?
    [ $code -eq 0 ] || [ $code -eq 4 ] || fail "status of $text: exit $code"
    hasnt out "$(printf '\033')"
    expect 0 "$HANMIX" run g.yaml --run-dir b --quiet zh.set.pieces=4 # what is damaged is made anew
done
finish
