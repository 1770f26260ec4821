# SPDX-License-Identifier: MIT
"""Training, adapters and merging against torch and peft; TensorBoard files against the tensorboard package."""
import json

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file

from harness import QUICKSTART, check, check_close, logits_of, quickstart_model, random_ids, save_ids, stage, tensors, test
from interop_model import FORWARD_LIMIT, ours

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "w1", "w2", "w3"]
STEPS, ROWS, LENGTH, ACCUMULATE = 8, 2, 32, 2


def random_adapter(folder, seed=11, dtype=torch.float32, **more):
    """A peft adapter with B not zero, saved by peft."""
    torch.manual_seed(seed)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM", **more)
    model = get_peft_model(quickstart_model(), config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(0, 0.05)
            if "lora_" in name:
                p.data = p.data.to(dtype)
    model.save_pretrained(str(folder))
    return model.float().eval()


@test
def their_choice_of_modules_is_read(folder):
    """Expressions, layers_to_transform, exclude_modules, all-linear, dotted names: the modules peft picks."""
    ids = random_ids(14, 1, 24, 512)
    for name, more in (("expression", {"target_modules": r".*layers\.[02]\..*(q_proj|w1)"}), ("layers", {"target_modules": ["q_proj", "w2"], "layers_to_transform": [1, 3]}),
                       ("excluded", {"target_modules": ["q_proj", "w2"], "exclude_modules": r".*layers\.2\..*"}), ("all-linear", {"target_modules": "all-linear"}),
                       ("dotted", {"target_modules": ["experts.1.w2", "layers.0.self_attn.q_proj"]})):
        torch.manual_seed(14)
        model = get_peft_model(quickstart_model(), LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", init_lora_weights=False, **more))
        model.save_pretrained(str(folder / name))
        check_close(name, ours(folder, QUICKSTART / "base", ids, in_adapter=folder / name)["logits"], logits_of(model.eval(), ids), FORWARD_LIMIT)


@test
def their_adapter_is_read(folder):
    ids = random_ids(6, 2, 40, 512)
    for name, dtype, more in (("plain", torch.float32, {}), ("bf16", torch.bfloat16, {}), ("rslora", torch.float32, {"use_rslora": True}),
                              ("pattern", torch.float16, {"rank_pattern": {"w2": 6}, "alpha_pattern": {"q_proj": 3}}),
                              ("saved", torch.float32, {"modules_to_save": ["embed_tokens", "lm_head"]})):
        model = random_adapter(folder / name, dtype=dtype, **more)
        found = ours(folder, QUICKSTART / "base", ids, in_adapter=folder / name)["logits"]
        check_close(name, found, logits_of(model, ids), FORWARD_LIMIT)


def torch_training(model, batches, lr, warmup, clip):
    """The loop of transformers' Trainer in plain torch: AdamW, linear warm-up and cosine, loss over the step's tokens."""
    from transformers import get_cosine_schedule_with_warmup
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, warmup, STEPS)
    log = []
    for step in range(STEPS):
        optimizer.zero_grad()
        total = 0.0
        targets = ACCUMULATE * ROWS * (LENGTH - 1)
        for micro in range(ACCUMULATE):
            ids = batches[step * ACCUMULATE + micro]
            logits = model(input_ids=ids).logits.float()
            loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="sum") / targets
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(trainable, clip).item()
        log.append((total, norm, schedule.get_last_lr()[0]))
        optimizer.step()
        schedule.step()
    return log


@test
def training_follows_torch(folder):
    start = random_adapter(folder / "start", modules_to_save=["embed_tokens", "lm_head"])
    for name, p in start.named_parameters():
        p.requires_grad_("lora_" in name or "modules_to_save" in name)
    batches = random_ids(7, STEPS * ACCUMULATE * ROWS, LENGTH, 512).reshape(STEPS * ACCUMULATE, ROWS, LENGTH)
    save_ids(folder / "ids.safetensors", batches)
    start.train()
    theirs = torch_training(start, batches, 2e-3, 2, 0.7)
    report = stage("qlora.train", folder / "run", in_model=QUICKSTART / "base", in_ids=folder / "ids.safetensors", in_adapter=folder / "start",
                   set_train_embeddings="all", set_train_head="all", set_lr=2e-3, set_warmup=2, set_clip=0.7, set_steps=STEPS, set_accumulate=ACCUMULATE)
    lines = [json.loads(l) for l in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [l for l in lines if "loss" in l]
    check(len(steps) == STEPS and report["steps"] == STEPS, f"{len(steps)} steps")
    check_close("loss", [s["loss"] for s in steps], [t[0] for t in theirs], 1e-5)
    check_close("gradient norm", [s["grad_norm"] for s in steps], [t[1] for t in theirs], 1e-4)
    check_close("learning rate", [s["lr"] for s in steps], [t[2] for t in theirs], 1e-6)
    start.eval()
    ids = random_ids(8, 1, 30, 512)
    loaded = PeftModel.from_pretrained(quickstart_model(), str(folder / "run" / "adapter")).eval()
    check_close("logits of our adapter in peft", logits_of(loaded, ids), logits_of(start, ids), 2e-4)
    check_close("and here", ours(folder, QUICKSTART / "base", ids, in_adapter=folder / "run" / "adapter")["logits"], logits_of(loaded, ids), FORWARD_LIMIT)


@test
def merged_model_is_pefts(folder):
    model = random_adapter(folder / "adapter")
    stage("qlora.merge", folder / "merged", in_model=QUICKSTART / "base", in_adapter=folder / "adapter", set_dtype="f32")
    theirs = model.merge_and_unload()
    found = tensors(folder / "merged")
    for name, tensor in theirs.state_dict().items():
        check_close(name, found[name].float(), tensor.float(), 1e-6) if "layers.0" in name else None
    from transformers import AutoModelForCausalLM
    loaded = AutoModelForCausalLM.from_pretrained(str(folder / "merged"), dtype=torch.float32, attn_implementation="eager").eval()
    ids = random_ids(9, 1, 30, 512)
    check_close("logits", logits_of(loaded, ids), logits_of(theirs, ids), FORWARD_LIMIT)
    digests = (folder / "merged" / "digests.tsv").read_text().splitlines()
    check(len(digests) >= len(found), f"{len(digests)} lines of digests for {len(found)} tensors")


@test
def adapter_over_four_bit_base(folder):
    """Ours on our 4-bit folder, theirs on the same weights dequantised."""
    from interop_model import dequantised, four_bit
    stage("qlora.quantize", folder / "nf4", in_model=QUICKSTART / "base")
    random_adapter(folder / "adapter")
    model = PeftModel.from_pretrained(dequantised(four_bit(folder / "nf4")), str(folder / "adapter")).eval()
    ids = random_ids(10, 2, 40, 512)
    check_close("logits", ours(folder, folder / "nf4", ids, in_adapter=folder / "adapter")["logits"], logits_of(model, ids), FORWARD_LIMIT)
    stage("qlora.merge", folder / "merged", in_model=folder / "nf4", in_adapter=folder / "adapter", set_onto="dequantised", set_dtype="f32")
    check_close("merged onto dequantised", ours(folder, folder / "merged", ids)["logits"], logits_of(model, ids), FORWARD_LIMIT)


@test
def gradients_are_pefts(folder):
    """Every factor's gradient, in short rows and in rows longer than any block of attention."""
    for rows, length in ((ROWS, LENGTH), (1, 450)):
        at = folder / str(length)
        at.mkdir()
        model = random_adapter(at / "start")
        batch = random_ids(12, rows, length, 512)
        save_ids(at / "ids.safetensors", batch.reshape(1, rows, length))
        for name, p in model.named_parameters():
            p.requires_grad_("lora_" in name)
        model.train()
        model(input_ids=batch, labels=batch).loss.backward()
        stage("qlora.train", at / "run", in_model=QUICKSTART / "base", in_ids=at / "ids.safetensors", in_adapter=at / "start", set_steps=1, set_dump_gradients=1)
        found = tensors(at / "run" / "gradients-1.safetensors")
        worst = 0.0
        for name, p in model.named_parameters():
            if p.requires_grad:
                key = name.replace(".default", "")
                ours_, theirs = found[key].double(), p.grad.double()
                error = float((ours_ - theirs).norm() / theirs.norm().clamp_min(1e-12))
                worst = max(worst, error if float(theirs.norm()) >= 1e-7 else 0.0)
        check(worst < (1e-4 if length < 100 else 5e-4), f"length {length}: {worst:.3g}")  # torch's own distance from float64 grows likewise
        print(f"    length {length}: {len(found) - 1} gradients, worst {worst:.2g}")


@test
def tensorboard_opens_our_events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    batches = random_ids(13, 6, LENGTH, 512)
    save_ids(folder / "ids.safetensors", batches)
    stage("qlora.train", folder / "run", in_model=QUICKSTART / "base", in_ids=folder / "ids.safetensors", set_steps=6)
    events = EventAccumulator(str(folder / "run" / "tensorboard"))
    events.Reload()
    found = [e.value for e in events.Scalars("train/loss")]
    lines = [json.loads(l) for l in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    check_close("loss", found, [l["loss"] for l in lines if "loss" in l], 1e-6)
