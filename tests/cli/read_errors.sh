#!/bin/sh
# SPDX-License-Identifier: MIT
# A disk that fails in mid-work (tests/support/read_fault.c, and file systems that are cut or filled where one can be mounted):
# the file is named, exit 6, no result under a final name, and with the disk whole again the same command ends with the same bytes.
. "$(dirname "$0")/lib.sh"
[ "$SANITIZE" = none ] || { echo "skipped: a preloaded library comes before the sanitizer's runtime"; exit 77; }
golden=$SOURCE/tests/golden/data
base=$SOURCE/examples/quickstart/base
# failing FILE AT ARM STAGE ARGUMENTS...: exit 6 and one sentence that names the file, whose bytes from AT on cannot be read once ARM is there
failing() {
    failing_file=$1 failing_at=$2 failing_arm=$3
    shift 3
    expect 6 env LD_PRELOAD="$READ_FAULT" HM_FAULT_PATH="$failing_file" HM_FAULT_AT="$failing_at" HM_FAULT_ARM="$failing_arm" \
        "$HANMIX" stage "$@" --quiet
    has err "$failing_file'"; has err "Input/output error"
    one_sentence
}

# --- frozen weights that are read ahead: the last state is there, and training goes on from it ---
expect 0 "$MAKE_MODEL" --out small --preset small --layers 5 --vocab 4000
train="qlora.train in.model=small in.ids=$golden/train/batches.safetensors set.steps=4 set.save_every=1 set.ram=225M"
half=$(($(wc -c <small/model.safetensors) / 8192 * 4096))
expect 0 "$HANMIX" stage $train --out whole --quiet
failing small/model.safetensors $half t.partial/state-2/DONE $train --out t
gone t; there t.partial/state-2/DONE
expect 0 "$HANMIX" stage $train --out t
has err "continues"
same whole/adapter/adapter_model.safetensors t/adapter/adapter_model.safetensors

# --- shards of text, plain and compressed ---
seq 1 100000 | sed 's/.*/& Tom and Tim went to the park. 春天来了花开了孩子们在公园里玩小猫小狗也来了/' >text.txt
sed 's/.*/{"text": "&"}/' text.txt | gzip -1 >text.jsonl.gz
for shard in text.txt text.jsonl.gz; do
    pack="corpus.pack in.text=$shard in.tokenizer=$base set.seq_len=64"
    failing $shard 65536 packed.partial $pack --out packed
    gone packed packed.partial
    failing $shard 65536 learned.partial vocab.train in.text=$shard set.pieces=20 set.singles=15 --out learned
    gone learned learned.partial
done

# --- conversion: what is whole is kept ---
expect 0 "$MAKE_MODEL" --preset tiny --dtype bf16 --out tiny
quantize="qlora.quantize in.model=tiny set.shard_size=1M"
expect 0 "$HANMIX" stage $quantize --out nf4.whole --quiet
failing tiny/model.safetensors $(($(wc -c <tiny/model.safetensors) / 8192 * 4096)) nf4.partial/.whole.journal $quantize --out nf4
gone nf4
expect 0 "$HANMIX" stage $quantize --out nf4 --quiet
for file in nf4.whole/*.safetensors; do same "$file" "nf4/${file##*/}"; done

# --- mapped weights: a disk that ends early, which root can make ---
mkdir disk
trap 'umount disk 2>/dev/null; rm -rf "$dir"' EXIT
truncate -s 384M disk.img
if mkfs.ext4 -q -F -O ^has_journal disk.img 2>/dev/null && mount -o loop disk.img disk 2>/dev/null; then
    mkdir disk/lost && cp small/* disk/ && umount disk && mount -o loop,ro disk.img disk || fail "no disk to cut"
    truncate -s 64M disk.img
    expect 6 "$HANMIX" generate --model disk/lost --tokenizer "$base" --prompt Tom
    has err "cannot look at 'disk/lost': Input/output error"
    expect 6 "$HANMIX" generate --model disk --tokenizer "$base" --prompt Tom
    has err "disk/model.safetensors' cannot be read any more, at tensor 'model."
    one_sentence
    umount disk

    # --- a disk that fills up between two states: the one before is there, and with room again training goes on from it ---
    rm disk.img; truncate -s 400M disk.img
    mkfs.ext4 -q -F -O ^has_journal disk.img && mount -o loop disk.img disk || fail "no disk to fill"
    "$HANMIX" stage $train --out disk/t --quiet >out 2>err &
    pid=$!
    wait_for 60 test -e disk/t.partial/state-1/DONE
    kill -STOP $pid
    dd if=/dev/zero of=disk/fill bs=1M 2>/dev/null
    kill -CONT $pid
    wait $pid
    code=$?
    [ $code -eq 6 ] || fail "a full disk: exit $code, expected 6"
    has err "No space left on device"; one_sentence; gone disk/t; there disk/t.partial/state-1/DONE
    rm disk/fill
    expect 0 "$HANMIX" stage $train --out disk/t
    has err "continues"
    same whole/adapter/adapter_model.safetensors disk/t/adapter/adapter_model.safetensors
else
    echo "no loop device can be mounted here: mapped weights on a failing disk are left out"
fi
finish
