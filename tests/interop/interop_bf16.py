# SPDX-License-Identifier: MIT
"""Compute bf16 against transformers + peft + bitsandbytes in bf16. Both are held against bitsandbytes in f32: the distance of torch's own
bf16 from it is the measure, and ours, which keeps the residual stream, the router and the adapter in f32, must stay within it."""
import json

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM

from harness import check, hanmix, random_ids, save_ids, stage, tensors, test
from torch_loop import Plan, torch_train

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "w1", "w2", "w3"]
LENGTH, VOCAB = 96, 320
PLAN = Plan(steps=10, accumulate=1, lr=3e-4, schedule="constant", warmup=0, clip=0.0)
MARGIN = 1.5  # of torch's own distance


def base_folder(folder):
    """A random Mixtral whose rows are whole blocks of 64, so that every 4-bit row is one bitsandbytes reads rightly; quantised by us."""
    torch.manual_seed(4)
    config = MixtralConfig(vocab_size=VOCAB, hidden_size=128, intermediate_size=192, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, num_local_experts=4,
                           num_experts_per_tok=2, max_position_embeddings=256, initializer_range=0.1, tie_word_embeddings=False, sliding_window=None)
    MixtralForCausalLM(config).bfloat16().save_pretrained(str(folder / "bf16"))
    stage("qlora.quantize", folder / "nf4", in_model=folder / "bf16")
    return folder / "nf4"


def theirs(base, start, dtype):
    model = AutoModelForCausalLM.from_pretrained(str(base), dtype=dtype, attn_implementation="eager")
    for module in model.modules():
        if hasattr(module, "compute_dtype"):
            module.compute_dtype, module.compute_type_is_set = dtype, True
    model = PeftModel.from_pretrained(model, str(start), is_trainable=True, autocast_adapter_dtype=True)
    return model.train()


def start_of(base, out):
    torch.manual_seed(5)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32),
                           LoraConfig(r=8, lora_alpha=16, target_modules=TARGETS, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM"))
    model.save_pretrained(str(out))


def ours(folder, base, name, *more):
    hanmix("stage", "qlora.train", f"in.model={base}", f"in.adapter={folder / 'start'}", f"in.ids={folder / 'ids.safetensors'}", f"set.steps={PLAN.steps}", f"set.lr={PLAN.lr}",
           "set.lr_schedule=constant", "set.warmup=0", "set.clip=0", *more, "--out", folder / name)
    lines = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line], tensors(folder / name / "adapter" / "adapter_model.safetensors")


def distance(log, truth, key):
    return float(np.sqrt(np.mean([(a[key] - b[key]) ** 2 for a, b in zip(log, truth)])))


@test
def training_stays_within_torchs_noise(folder):
    base = base_folder(folder)
    start_of(base, folder / "start")
    batches = random_ids(21, PLAN.steps, LENGTH, VOCAB).reshape(PLAN.steps, 1, LENGTH)
    batches[:, :, 1::3] = batches[:, :, 0::3]  # something to learn
    save_ids(folder / "ids.safetensors", batches)
    data = [(b, None, None) for b in batches]
    truth = torch_train(theirs(base, folder / "start", torch.float32), data, PLAN, aux=False)
    noisy = torch_train(theirs(base, folder / "start", torch.bfloat16), data, PLAN, aux=False)
    f32, _ = ours(folder, base, "f32", "set.compute=f32")
    bf16, adapter = ours(folder, base, "default")
    check(truth[0]["loss"] - truth[-1]["loss"] > 0.05, f"nothing was learned: {truth[0]['loss']} to {truth[-1]['loss']}")
    for key in ("loss", "grad_norm"):
        noise, found, exact = distance(noisy, truth, key), distance(bf16, truth, key), distance(f32, truth, key)
        print(f"    {key}: f32 {exact:.2g}, ours bf16 {found:.2g}, torch bf16 {noise:.2g}")
        check(exact < 0.05 * noise, f"{key}: ours in f32 is {exact:.3g} from theirs, noise {noise:.3g}")
        check(0 < found <= MARGIN * noise, f"{key}: ours in bf16 is {found:.3g} from f32, theirs {noise:.3g}")
    _, again = ours(folder, base, "one", "set.threads=1", "set.recompute=false")
    check(all(torch.equal(adapter[name], again[name]) for name in adapter), "1 thread and kept layers give other bytes")
