#!/bin/sh
# SPDX-License-Identifier: MIT
# hanmix beside transformers + peft + bitsandbytes: QLoRA steps over one NF4 folder, from one adapter, on the same ids; speed, peak memory, losses step by step.
#   train_compare.sh BUILD WORK PRESET TOKENS [STEPS [RANK [THREADS]]]
# BUILD: hanmix' build folder; WORK: where the model is made and kept; PYTHON: an interpreter with torch, transformers < 5, peft and bitsandbytes.
# Sides: hanmix (bf16, no recomputation), hanmix in f32 for its losses, torch as released, torch tuned (see train_torch.py; tcmalloc when it is found).
# Prints CSV. Leave the machine alone meanwhile.
set -eu
[ $# -ge 4 ] || { sed -n '3,7s/^# //p' "$0" >&2; exit 2; }
build=$1 work=$2 preset=$3 tokens=$4 steps=${5:-8} rank=${6:-8} threads=${7:-2}
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
model=$work/$preset-nf4
run=$work/$preset-$tokens-$rank
export OMP_WAIT_POLICY=passive HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
torch() { what=$1; shift; "$python" "$here/train_torch.py" "$what" "$@" --tokens "$tokens" --steps "$steps" --rank "$rank" --threads "$threads" >&2; }
hanmix() { # NAME COMPUTE
    rm -rf "${run:?}/$1"
    "$build/cli/hanmix" stage qlora.train in.model="$model" in.ids="$run/ids.safetensors" in.adapter="$run/start" set.compute="$2" set.recompute=false set.steps="$steps" \
        set.lr=1e-4 set.lr_schedule=constant set.warmup=0 set.clip=0 set.threads="$threads" --out "$run/$1" >&2
}
[ -e "$model/config.json" ] || "$build/bench/make_model" --preset "$preset" --out "$model" >&2
[ -e "$run/start/adapter_config.json" ] || torch prepare "$model" "$run"
hanmix hanmix bf16
hanmix hanmix-f32 f32
torch train "$model" "$run" torch
malloc=$(ls /usr/lib/*/libtcmalloc_minimal.so.4 2>/dev/null | head -n 1)
LD_PRELOAD=$malloc "$python" "$here/train_torch.py" train "$model" "$run" torch-tuned --tuned --tokens "$tokens" --steps "$steps" --rank "$rank" --threads "$threads" >&2
"$python" "$here/train_torch.py" compare "$run" hanmix hanmix-f32 torch torch-tuned
