#!/bin/sh
# SPDX-License-Identifier: MIT
# An older CPU by qemu, and a BLAS told to use instructions that it lacks: the paths fall back with the reason, and the
# program still computes. Needs qemu-x86_64-static and an x86-64 machine.
. "$(dirname "$0")/lib.sh"
[ "$(uname -m)" = x86_64 ] && command -v qemu-x86_64-static >/dev/null || { echo "skipped: no qemu-x86_64-static here"; exit 77; }
[ "$SANITIZE" = none ] || { echo "skipped: sanitizers do not run under qemu"; exit 77; }
old() { env OMP_WAIT_POLICY=passive OPENBLAS_CORETYPE="$1" qemu-x86_64-static -cpu Nehalem "$HANMIX" doctor --json; }

export HM_CPU=ref
expect 0 old Nehalem # ref: its measurement is short
has out '"state": "usable"'; has out '"state": "not in this CPU"'; has out '"amx": "not in this CPU"'
unset HM_CPU
expect 0 old Haswell
has out '"kernels": "ref"'; has out '"state": "instructions fault, whatever the flags of the CPU say"'
finish
