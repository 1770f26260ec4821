#!/bin/sh
# SPDX-License-Identifier: MIT
# A memory limit set by a control group, version 1 or 2: it is seen, too little is said before the start, and a training whose
# weights are larger than it ends within it, with the bytes of one without a limit. Needs root and a memory controller to write to.
. "$(dirname "$0")/lib.sh"
[ "$SANITIZE" = none ] || skip "skipped: shadow memory of sanitizers would count"
golden=$SOURCE/tests/golden/data
if [ -d /sys/fs/cgroup/memory ]; then # version 1
    here=$(sed -n 's/^[0-9]*:memory://p' /proc/self/cgroup)
    group=/sys/fs/cgroup/memory${here%/}/hanmix-test-$$ limit=memory.limit_in_bytes
    [ -d "/sys/fs/cgroup/memory$here" ] || group=/sys/fs/cgroup/memory/hanmix-test-$$
else
    group=/sys/fs/cgroup/hanmix-test-$$ limit=memory.max
fi
mkdir "$group" 2>/dev/null || skip "skipped: no control group can be made here"
trap 'rmdir "$group"; rm -rf "$dir"' EXIT
[ -w "$group/$limit" ] || skip "skipped: control groups here do not limit memory"
# confined COMMAND...: within the group; its shell enters first
confined() { sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$group" "$@"; }
echo 220M >"$group/$limit" && confined true || skip "skipped: a process cannot be moved into the group"

expect 0 confined "$HANMIX" doctor
has out "this process may take 220.0 MiB"
expect 0 "$MAKE_MODEL" --out small --preset small --layers 5 --vocab 4000
train="qlora.train in.model=small in.ids=$golden/train/batches.safetensors set.steps=2"
expect 0 "$HANMIX" stage $train --out free --quiet
size=$(wc -c <small/model.safetensors)
[ "$size" -gt $((220 << 20)) ] || fail "the weights fit into the limit: $size bytes"

expect 0 confined "$HANMIX" stage $train --out mapped # pages of files are given back, slower
same free/adapter/adapter_model.safetensors mapped/adapter/adapter_model.safetensors
expect 0 confined "$HANMIX" stage $train set.ram=213M --out bound
same free/adapter/adapter_model.safetensors bound/adapter/adapter_model.safetensors
expect 0 confined "$HANMIX" stage $train set.ram=160M set.state=file --out stored
same free/adapter/adapter_model.safetensors stored/adapter/adapter_model.safetensors

echo 60M >"$group/$limit"
expect 3 confined "$HANMIX" stage $train --out y
has err "60.0 MiB are allowed"; has err "it would fit with"; one_sentence; gone y y.partial
finish
