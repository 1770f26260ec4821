#!/bin/sh
# SPDX-License-Identifier: MIT
# A CPU with AMX whose kernel refuses the tiles (tests/support/refused_tiles.c over this CPU): doctor says it, the path below
# is taken and trains, and a training that was begun on tiles is refused with the reason.
. "$(dirname "$0")/lib.sh"
grep -q avx512_bf16 /proc/cpuinfo || { echo "skipped: this CPU lacks AVX512-BF16, without which no tiles are asked for"; exit 77; }
base=$SOURCE/examples/quickstart/base
why="refused by the kernel (Operation not permitted; needs Linux 5.16)"
expect 0 "$HANMIX" doctor
has out "amx      $why"; has out "amx        $why"
grep -q '^kernels  avx512' out || fail "no path of AVX-512 is taken: $(grep '^kernels' out)"
expect 0 "$HANMIX" doctor --json
has out "\"amx\": \"$why\""; hasnt out '"amx-bf16"'
expect 0 env HM_CPU=amx "$HANMIX" doctor --json # a cap, no order
has out '"kernels": "avx512bf16"'

train="qlora.train in.model=$base in.ids=$SOURCE/tests/golden/data/train/batches.safetensors set.steps=1000000 set.save_every=1"
"$HANMIX" stage $train --out t >/dev/null 2>run.err &
pid=$!
a_state() { ls t.partial/state-*/DONE >/dev/null 2>&1; } # earlier ones go as later ones come
wait_for 60 a_state
kill -TERM $pid
wait $pid
[ $? -eq 75 ] || fail "SIGTERM: $(cat run.err)"
grep -l '"avx512' t.partial/state-*/* >states || fail "no state names its path"
sed -i 's/"avx512[a-z0-9]*"/"amx"/' $(cat states)
expect 2 "$HANMIX" stage $train --out t --quiet
has err "kernel path 'amx' cannot run on this CPU"; has err "$why"
finish
