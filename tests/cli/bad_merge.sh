#!/bin/sh
# SPDX-License-Identifier: MIT
# Vocabularies that vocab.merge and vocab.check cannot take: one sentence, exit 4, nothing left behind. And what is taken with a warning.
. "$(dirname "$0")/lib.sh"
models=$SOURCE/tests/golden/data/tokenizers/models
base=$models/mistral-v1-32000.model
unigram=$models/chinese-llama-chinese_sp-20000.model
printf '中国人民的文字\n中国人的文字\n人民的中国\n' >zh.txt
expect 0 "$HANMIX" stage vocab.train in.text=zh.txt set.pieces=10 --out zh --quiet

# grown NAME RECORDS: the base with bytes behind it (printf escapes)
grown() { cp "$base" "$1" && chmod u+w "$1" && printf "$2" >>"$1"; }
# bad NAME TEXT: the file is refused as base, as extra and as the new tokenizer of a check
bad() {
    refused 4 "$2" vocab.merge in.base="$1" in.extra=zh
    refused 4 "$2" vocab.merge in.base="$base" in.extra="$1"
    refused 4 "$2" vocab.check in.old="$base" in.new="$1" in.text=zh.txt
}

# Bases that cannot be extended.
refused 4 "is no BPE vocabulary" vocab.merge in.base="$unigram" in.extra=zh
grown nfkc.model '\032\210\010\022\205\010\000\004\000\000'
head -c 1025 /dev/zero >>nfkc.model
refused 4 "has a normaliser of its own" vocab.merge in.base=nfkc.model in.extra=zh

# Files that are no models, or broken ones.
: >empty.model
bad empty.model "no pieces"
printf 'not a model at all' >text.model
bad text.model "do not parse"
head -c 200000 "$base" >cut.model
bad cut.model "do not parse"
grown length.model '\012\377\377\377\377\017'
bad length.model "do not parse"
grown nan.model '\012\011\012\002~Q\025\000\000\300\177'
bad nan.model "piece 32000 has a score that is not finite"
grown twice.model '\012\004\012\002~Q\012\004\012\002~Q'
refused 4 "pieces 32000 and 32001 are the same text '~Q'" vocab.merge in.base=twice.model in.extra=zh
grown nopiece.model '\012\005\025\000\000\000\000'
bad nopiece.model "piece 32000 is empty"
grown utf8.model '\012\004\012\002\344x'
bad utf8.model "piece 32000 is not UTF-8"
grown nul.model '\012\005\012\003x\000y'
bad nul.model "piece 32000 holds a NUL"
grown type.model '\012\006\012\002~Q\030\011'
bad type.model "type 9"
grown unknown.model '\012\006\012\002~Q\030\002'
bad unknown.model "2 unknown pieces instead of 1"
grown byte.model '\012\006\012\002~Q\030\006'
bad byte.model "is a byte but not written <0xNN>"
grown kind.model '\022\002\030\011'
bad kind.model "model type 9"

# A file whose texts stand twice is what vocab.check looks for.
rm -rf x
expect 1 "$HANMIX" stage vocab.check in.old="$base" in.new=twice.model in.text=zh.txt --out x --quiet
has err "ids 32000 and 32001 are the same text"
has x/lint.tsv "duplicate"

# A base folder whose tokenizer.json does not fit.
folder() { rm -rf folder; mkdir folder; cp "$base" folder/tokenizer.model; printf "$1" >folder/tokenizer.json; }
json() { folder "$1"; refused 4 "$2" vocab.merge in.base=folder in.extra=zh; }
json '' "not JSON"
json '{"model": {"type": "BPE", "vocab": {' "not JSON"
json '[1, 2]' "expected an object"
json '{"model": {"type": "Unigram", "vocab": [], "merges": []}}' "no tokenizer.json of a BPE model"
json '{"model": {"type": "BPE", "byte_fallback": true, "vocab": {"of": 7}, "merges": []}}' "'of' has id 7 there"
json '{"model": {"type": "BPE", "byte_fallback": true, "vocab": {"<unk>": 0}, "merges": ["a b"]}}' "merge 0 is not two pieces"
json '{"model": {"type": "BPE", "vocab": {"<unk>": 0}, "merges": []}}' "byte_fallback"
json '{"added_tokens": [{"id": 32000, "content": "<pad>"}], "model": {"type": "BPE", "byte_fallback": true, "vocab": {"<unk>": 0}, "merges": []}}' "<pad>"
printf '\377\376' >folder/tokenizer.json
refused 4 "not JSON" vocab.merge in.base=folder in.extra=zh
folder '{"model": {"type": "BPE", "byte_fallback": true, "vocab": {"<unk>": 0}, "merges": []}}'
printf '{"added_tokens_decoder": 7' >folder/tokenizer_config.json
refused 4 "tokenizer_config.json" vocab.merge in.base=folder in.extra=zh

# Spaces behind words (a byte of trainer_spec) cannot be said in tokenizer.json; the sentence names the base. Two pieces of one score can hardly.
{ cat "$base"; printf '\022\003\300\001\001'; } >suffix.model
refused 4 "cannot express 'suffix.model'" vocab.merge in.base=suffix.model in.extra=zh
{ cat "$base"; printf '\012\013\012\004qzqz\025\000\000\000\277\012\013\012\004zqzq\025\000\000\000\277'; } >ties.model
fine vocab.merge in.base=ties.model in.extra=zh
has x/report.json "share a score"

# Doubtful sources are taken, and the warning stays in the report.
fine vocab.merge in.base="$base" in.extra="$unigram"
has x/report.json "were learned from normalised text"
has x/report.json "not BPE"
fine vocab.merge in.base="$base" in.extra=zh
has x/report.json '"warnings": []'
rm -rf y
expect 0 "$HANMIX" stage vocab.check in.old="$base" in.new=x in.text=zh.txt --out y --quiet
expect 0 "$HANMIX" stage vocab.check in.old="$base" in.new=x in.extra=zh in.text=zh.txt --out y2 --quiet
expect 1 "$HANMIX" stage vocab.check in.old="$base" in.new=x in.extra="$unigram" in.text=zh.txt --out y3 --quiet
has err "full-width"
expect 0 "$HANMIX" stage vocab.check in.old="$base" in.new=x in.extra="$unigram" in.text=zh.txt set.fail_on=never --out y4 --quiet
has y4/report.json '"identity_proved": true'
expect 0 "$HANMIX" stage vocab.check in.old="$base" in.new=x in.extra="$unigram" in.text=zh.txt set.limit=1 --out y5 --quiet
expect 1 "$HANMIX" stage vocab.check in.old="$base" in.new=x in.extra="$unigram" in.text=zh.txt set.limit=1 set.fail_on=error --out y6 --quiet
# Two models that have little in common: lint.tsv and report.json hold every finding.
small=$SOURCE/examples/quickstart/base
expect 1 "$HANMIX" stage vocab.check in.old="$small" in.new="$base" in.text=zh.txt --out many --quiet
han=$(grep -c "^han" many/lint.tsv)
[ "$han" -gt 20000 ] || fail "lint.tsv has $han findings of rule han"
has many/report.json "\"findings\": $han,"
[ "$(grep -c '"rule": "han"' many/report.json)" -eq $((han + 1)) ] || fail "report.json does not have every finding of rule han and their count"
finish
