#!/bin/sh
# SPDX-License-Identifier: MIT
# One stage alone; help of every kind; plain output.
. "$(dirname "$0")/lib.sh"
expect 0 "$HANMIX" stage; has out "test.make"
expect 0 "$HANMIX" stage test.make --help; has out "set.bytes=100  size"; has out "from 0 to 1"; has out "serves as: tokenizer"
expect 2 "$HANMIX" stage test.mak --help; has err "did you mean 'test.make'?"
expect 2 "$HANMIX" stage test.make; has err "--out DIR is missing"
expect 2 "$HANMIX" stage test.make set.byte=3 --out z; has err "command line: unknown key in z.set of test.make: 'byte'; did you mean 'bytes'?"
expect 2 "$HANMIX" stage test.use --out z; has err "input 'tokenizer' (tokenizer) is missing"
expect 2 "$HANMIX" stage test.use in.tokenizer=none --out z; has err "'none' does not exist"; gone z z.lock
expect 0 "$HANMIX" stage test.make set.bytes=10 set.word=ab --out sub/z
[ "$(cat sub/z/tokenizer.model)" = ababababab ] || fail "wrong file"
there sub/z/stage.json sub/z/report.json; gone sub/z.lock sub/z.partial sub/manifest.json
expect 0 "$HANMIX" stage test.make set.bytes=10 set.word=ab --out sub/z; has err "already done"
expect 0 "$HANMIX" stage test.make set.bytes=11 set.word=ab --out sub/z/; has err "set.bytes: 10 -> 11"
expect 0 "$HANMIX" stage test.use in.tokenizer=sub/z in.file=sub/z/tokenizer.model --out y; has y/report.json '"sub/z/tokenizer.model"'
expect 0 "$HANMIX" stage test.make --out q --dry-run; gone q
expect 3 "$HANMIX" stage test.make set.memory=1K --out m; has err "set.memory allows"; gone m m.partial
expect 0 "$HANMIX" stage test.make set.memory=1G --out m
echo 1 >1.txt; echo 2 >2.txt
expect 0 "$HANMIX" stage test.make in.text.zh=1.txt in.text.en.files=2.txt in.text.en.weight=2 --out w; has w/report.json '"weight": 2.0'
expect 0 "$HANMIX" stage test.make set.from=1.txt --out g; expect 0 "$HANMIX" stage test.make set.from=1.txt --out g; has err "already done"
echo 3 >1.txt; expect 0 "$HANMIX" stage test.make set.from=1.txt --out g; has err "set.from:"
# large inputs are digested after the stage, and must be what they were when it began
truncate -s 17M big.txt; printf '%s\n' x >>big.txt; touch -d '1 hour ago' big.txt
expect 0 "$HANMIX" stage test.make in.text=big.txt --out big; has big/stage.json "$(sha256sum <big.txt | cut -c1-64)"; hasnt big/stage.json '"unread"'
expect 0 "$HANMIX" stage test.make in.text=big.txt --out big; has err "already done"
for change in 'echo y >>big.txt' 'touch -d 2020-01-01 big.txt' 'cp -p big.txt big2.txt; mv big2.txt big.txt'; do
    touch -d '1 hour ago' big.txt
    "$HANMIX" stage test.make in.text=big.txt set.slow_ms=1500 --out moved --quiet >out 2>err </dev/null & pid=$!
    wait_for 10 test -e moved.partial/tokenizer.model
    has moved.partial/stage.json '"unread"'
    eval "$change"
    wait $pid; code=$?
    [ $code -eq 6 ] || fail "$change: exit $code, expected 6"
    has err "in.text has changed while it was read; run it again"; one_sentence; gone moved moved.partial
done
echo z >>big.txt # just now: digested before the stage
"$HANMIX" stage test.make in.text=big.txt set.slow_ms=300 --out fresh --quiet & pid=$!
wait_for 10 test -e fresh.partial/stage.json; hasnt fresh.partial/stage.json '"unread"'
wait $pid || fail "an input that is fresh"
mkdir mine; expect 2 "$HANMIX" stage test.make --out mine; has err "was not made by a stage"
for dry in "" --dry-run; do # the result of another stage stays; the same stage may run again
    expect 2 "$HANMIX" stage test.use in.tokenizer=fresh --out fresh $dry; has err "'fresh' holds a result of test.make"; one_sentence
    gone fresh.partial; has fresh/stage.json '"test.make"'
done
expect 0 "$HANMIX" stage test.make in.text=big.txt set.slow_ms=1 --out fresh --quiet

for verb in "" --help -h help "help run" "run --help" "stage --help" "help --markdown" --version; do
    expect 0 "$HANMIX" $verb; [ -s out ] || fail "'$verb' prints nothing"
done
expect 0 "$HANMIX" help --markdown; has out "## test.make"
for verb in run plan validate stage status verify recipes inspect encode decode generate doctor help; do
    expect 0 "$HANMIX" help $verb; has out "hanmix $verb"
done
expect 2 "$HANMIX" pln; has err "did you mean 'plan'?"
expect 2 "$HANMIX" run --frobnicate; one_sentence
expect 6 sh -c '"$HANMIX" help >/dev/full'; has err "standard output"
# not a terminal: no escapes
expect 0 "$HANMIX" stage test.make set.slow_ms=50 --out plain
if grep -q "$(printf '\033')" err; then fail "escapes without a terminal"; fi
if command -v script >/dev/null; then
    expect 0 script -qec "'$HANMIX' stage test.train in.tokenizer=sub/z set.steps=40 set.slow_ms=20 --out tty" /dev/null
    has out "of 40 steps"
    expect 0 env NO_COLOR=1 script -qec "'$HANMIX' stage test.train in.tokenizer=sub/z set.steps=41 set.slow_ms=20 --out tty2" /dev/null
    if grep -q "$(printf '\033')" out; then fail "escapes with NO_COLOR"; fi
fi
finish
