#!/bin/sh
# SPDX-License-Identifier: MIT
# Bad text: damaged archives, broken lines and their limit, bytes that are no UTF-8, nothing to read, pipes and folders.
. "$(dirname "$0")/lib.sh"
quick=$SOURCE/examples/quickstart
base=$quick/base
zh=$quick/text/zh.valid.jsonl.zst
train="vocab.train set.pieces=5 set.singles=2"
some="vocab.train set.pieces=7 set.singles=all"
pack="corpus.pack in.tokenizer=$base set.seq_len=16"
measure="vocab.measure in.tokenizers=$base"
check="vocab.check in.old=$base in.new=$base"
loss="eval.loss in.model=$base set.window=16"

# every stage that reads text tells the same of the same file
each() {
    each_code=$1 each_text=$2 each_file=$3
    for stage in "$train" "$pack" "$measure" "$check" "$loss"; do refused "$each_code" "$each_text" $stage in.text="$each_file"; done
}
line='{"text": "春天来了，春天来了，春天走了"}'

# --- archives ---
head -c 30000 "$zh" >cut.jsonl.zst;                                each 4 "'cut.jsonl.zst': the zstd frame is cut off at byte 30000" cut.jsonl.zst
{ head -c 20000 "$zh"; head -c 20000 /dev/zero; } >rot.jsonl.zst;  each 4 "'rot.jsonl.zst': zstd cannot decode it near byte" rot.jsonl.zst
{ cat "$zh"; echo garbage; } >tail.jsonl.zst;                      refused 4 "'tail.jsonl.zst': zstd cannot decode it" $train in.text=tail.jsonl.zst
head -c 2 "$zh" >two.jsonl.zst;                                    refused 4 "cut off at byte 2" $train in.text=two.jsonl.zst
echo "$line" >plain.jsonl.zst;                                     refused 4 "'plain.jsonl.zst': zstd cannot decode it near byte 0" $train in.text=plain.jsonl.zst
cp plain.jsonl.zst plain.jsonl.gz;                                 refused 4 "'plain.jsonl.gz': gzip cannot decode it" $train in.text=plain.jsonl.gz
if command -v gzip >/dev/null; then
    for i in 1 2 3 4 5 6 7 8 9; do echo "$line$i"; done | sed 's/}\(.\)$/}/' | gzip >good.jsonl.gz
    fine $some in.text=good.jsonl.gz
    cat good.jsonl.gz good.jsonl.gz >two.jsonl.gz;  fine $some in.text=two.jsonl.gz
    head -c 60 good.jsonl.gz >cut.jsonl.gz;         refused 4 "'cut.jsonl.gz': the gzip member is cut off at byte 60" $train in.text=cut.jsonl.gz
    cp good.jsonl.gz rot.jsonl.gz; spoil rot.jsonl.gz -8 '\001\002\003\004'; refused 4 "'rot.jsonl.gz': gzip cannot decode it" $train in.text=rot.jsonl.gz
fi

# --- lines ---
echo '{"text": "春天来了' >broken.jsonl;          each 4 "'broken.jsonl:1': not JSON at column 14" broken.jsonl
echo '{"body": "春天来了"}' >field.jsonl;         each 4 "'field.jsonl:1': no field 'text'; 1 bad lines where max_bad_lines allows 0" field.jsonl
printf '{"text": "春天\377"}\n' >utf8.jsonl;      each 4 "'utf8.jsonl:1': not JSON" utf8.jsonl
printf '春\n春天\377\n' >utf8.txt;                each 4 "'utf8.txt:2': not UTF-8 at byte 6 of the line" utf8.txt
bad() { printf '%b\n' "$2" >bad.jsonl; refused 4 "'bad.jsonl:1': $1" $train in.text=bad.jsonl; }
bad "the line is not a JSON object" '[1]'
bad "the line is not a JSON object" '"春天"'
bad "field 'text' is not a string" '{"text": 3}'
bad "not JSON at column 16: invalid escape" '{"text": "\\ud80"}'
bad "not JSON" '{"text": "春天", "text": "x"}'
bad "JSON is nested deeper than 64" "$(printf '[%.0s' $(seq 1000))"
bad "not JSON" '\0\0\0\0'
refused 4 "no field 'a.b'" $train in.text=field.jsonl set.field=a.b
{ for i in 1 2 3 4 5 6; do echo "$line"; done; cat broken.jsonl field.jsonl; echo 3; } >mixed.jsonl
two="$some in.text=mixed.jsonl"
refused 4 "'mixed.jsonl:7': not JSON" $two
refused 4 "'mixed.jsonl:9': the line is not a JSON object; 3 bad lines where max_bad_lines allows 2" $two set.max_bad_lines=2
fine $two set.max_bad_lines=3
has x/report.json '"bad_lines": 3'; has x/report.json "mixed.jsonl:7"
fine $pack in.text=mixed.jsonl set.max_bad_lines=9; has x/report.json '"bad_lines": 3'
# the mark that some editors write at the start of a file is no part of the text
printf '\357\273\277%s\r\n%s\r\n' "$line" "$line" >mark.jsonl; printf '\357\273\277ab\n' >mark.txt
fine $some in.text=mark.jsonl
# valid JSON that few parsers would write: blank lines, halves of surrogate pairs, ids of 64 bits
printf '%s\r\n \t\n  \n%s\n{"text":"\\ud83d\\udc00 \\udc00","id":18446744073709551615}\n' "$line" "$line" >odd.jsonl
fine $some in.text=odd.jsonl
fine $measure in.text=mark.txt; has x/report.json '"chars": 2'
# a line of 257 MiB is one bad line, the rest is read
dd if=/dev/null of=long.jsonl bs=1M seek=257 2>/dev/null; { echo; cat mixed.jsonl; } >>long.jsonl
refused 4 "'long.jsonl:1': the line is longer than" $some in.text=long.jsonl
fine $some in.text=long.jsonl set.max_bad_lines=4
rm long.jsonl
# a text of one line is held whole, some times over, and the plan knows
printf '春天来了。秋天去了，%.0s' $(seq 250000) >long.txt
for stage in "$some" "$measure"; do
    fine $stage in.text=long.txt
    bytes() { sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p" x/stage.json | head -n 1; }
    [ "$SANITIZE" != none ] || [ "$(bytes planned_bytes)" -ge "$(bytes peak_rss_bytes)" ] ||
        fail "$stage: planned $(bytes planned_bytes) bytes, took $(bytes peak_rss_bytes)"
done
rm long.txt

# --- too little ---
: >empty.txt; : >empty.jsonl; : >empty.jsonl.zst; printf '\n\n\n' >blank.txt; echo 'english only' >en.txt
for file in empty.txt empty.jsonl empty.jsonl.zst blank.txt en.txt; do refused 4 "no Han characters" $train in.text=$file; done
for file in empty.txt empty.jsonl empty.jsonl.zst blank.txt; do
    refused 4 "would hold 0 tokens" $pack in.text=$file
    refused 4 "holds no document" $measure in.text=$file
    refused 4 "holds no line" $check in.text=$file
    refused 4 "holds no document" $loss in.text=$file
done
echo '春天来了' >few.txt
refused 4 "give more text or fewer pieces" vocab.train set.pieces=500 in.text=few.txt
refused 4 "less than one window" $pack in.text=few.txt set.seq_len=512
refused 4 "no Han characters" $train in.text="$zh" set.sample_bytes=1
refused 3 "set.memory: 0.0 MiB are too little" $train in.text="$zh" set.memory=1K

# --- what is no text file ---
mkdir folder.jsonl; mkfifo pipe.jsonl pipe.txt.zst; ln -s nowhere dangling.txt; ln -s round.txt round.txt; ln -s /dev/zero zero.txt
each 2 "'folder.jsonl' is a folder" folder.jsonl
each 2 "'pipe.jsonl' is a device or pipe, not a regular file" pipe.jsonl
refused 2 "'pipe.txt.zst' is a device or pipe" $train in.text=pipe.txt.zst
refused 2 "'zero.txt' is a device or pipe" $train in.text=zero.txt
refused 2 "'dangling.txt' does not exist" $train in.text=dangling.txt
refused 2 "'round.txt' does not exist" $train in.text=round.txt
refused 2 "'none*.txt' does not exist" $train in.text='none*.txt'
refused 2 "no value after" $train in.text=
refused 2 "'$base/config.json' is not a text file: it must end with" $train in.text="$base/config.json"

# --- names of every kind work, and are told as they are ---
mkdir 'with space' '中文 文件夹'; ln -s ../mixed.jsonl 'with space/link.jsonl'; cp en.txt 'not.jsonl.txt'
head -n 6 mixed.jsonl >'中文 文件夹/a,b=c$d.jsonl'; mkdir jsonl.jsonl; mkdir jsonl.jsonl/d; cp en.txt few.txt jsonl.jsonl/d
fine $some in.text='中文 文件夹/a,b=c$d.jsonl'
refused 4 "'with space/link.jsonl:7'" $train in.text='with space/link.jsonl'
fine $pack in.text='jsonl.jsonl/d/*.txt' set.seq_len=4
printf 'x\n' >"$(printf 'latin\351.txt')"
refused 2 "is not UTF-8" $train in.text="$(printf 'latin\351.txt')"
refused 2 "is not UTF-8" $train in.text='latin*.txt'
printf '\351\n' >"$(printf 'a\033[31m\nb.txt')"
refused 4 "'a [31m b.txt:1'" $train in.text='a?\[31m?b.txt'
finish
