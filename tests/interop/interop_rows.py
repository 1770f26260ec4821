# SPDX-License-Identifier: MIT
"""Rows of a grown vocabulary, states of a run, dropout: what moves and what must not."""
import hashlib
import json
import signal
import subprocess
import time

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from harness import PROGRAM, QUICKSTART, check, check_close, hanmix, logits_of, quickstart_model, random_ids, save_ids, stage, tensors, test
from interop_model import FORWARD_LIMIT, ours
from interop_objective import plain_batches
from interop_train import TARGETS, random_adapter
from torch_loop import Plan, compare_logs, compare_update, hanmix_train, torch_train

MATRICES = {"train_embeddings": "model.embed_tokens", "train_head": "lm_head"}


def grown_base(folder, pieces=150):
    stage("vocab.train", folder / "zh", in_text=QUICKSTART / "text" / "zh.valid.jsonl.zst", set_pieces=pieces)
    stage("vocab.merge", folder / "merged", in_base=QUICKSTART / "base", in_extra=folder / "zh")
    stage("vocab.resize", folder / "grown", in_model=QUICKSTART / "base", in_old=QUICKSTART / "base", in_new=folder / "merged")
    return folder / "grown"


@test
def new_rows_alone_are_trained(folder):
    """train_embeddings and train_head `new`: the added rows follow torch, the frozen rows keep every bit, through quantise, train and merge."""
    base = grown_base(folder)
    rows = tensors(base)["lm_head.weight"].shape[0]
    model = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32, attn_implementation="eager").train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for name, p in model.named_parameters():
        p.requires_grad_(name in ("model.embed_tokens.weight", "lm_head.weight"))
        if p.requires_grad:
            p.register_hook(lambda g: torch.cat([torch.zeros_like(g[:512]), g[512:]]))
    plan = Plan(clip=0.7)
    data = plain_batches(40, plan, vocab=rows)
    theirs = torch_train(model, data, plan, aux=False)
    report, steps, _ = hanmix_train(folder, data, plan, in_model=base, set_train_embeddings="new", set_train_head="new", set_targets="[]")
    compare_logs(steps, theirs, aux=False)
    check(report["trainable_parameters"] == 2 * (rows - 512) * 64, f"{report['trainable_parameters']} trainable parameters")
    adapter = tensors(folder / "run" / "adapter")
    for module in MATRICES.values():
        found, start, wanted = adapter[f"base_model.model.{module}.weight"], before[module + ".weight"], model.state_dict()[module + ".weight"]
        check(found.shape == start.shape, f"{module} is not saved whole: {tuple(found.shape)}")
        check(torch.equal(found[:512].float(), start[:512]), f"{module}: frozen rows changed")
        check(compare_update(module, found[512:], wanted[512:], start[512:]) < 1e-3, module)
        used = {int(i) for ids, _, _ in data for i in ids[:, :-1].flatten()} if module == "model.embed_tokens" else set(range(rows))
        moved = {i for i in range(512, rows) if not torch.equal(found[i].float(), start[i])}
        check(moved == {i for i in used if i >= 512}, f"{module}: {len(moved)} rows moved")
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32, attn_implementation="eager"), str(folder / "run" / "adapter")).eval()
    ids = random_ids(41, 1, 30, rows)
    check_close("logits of our adapter in peft", logits_of(loaded, ids), logits_of(model.eval(), ids), 1e-4)
    stage("qlora.merge", folder / "out", in_model=base, in_adapter=folder / "run" / "adapter")
    merged = tensors(folder / "out")
    for name, tensor in tensors(base).items():
        whole = name not in ("model.embed_tokens.weight", "lm_head.weight")
        check(torch.equal(merged[name], tensor) if whole else torch.equal(merged[name][:512], tensor[:512]), f"{name}: a frozen value changed in merging")
        if not whole:
            check(torch.equal(merged[name], adapter[f"base_model.model.{name}"].to(tensor.dtype)), f"{name}: not the adapter's rows")


@test
def new_rows_over_a_four_bit_base(folder):
    """The record of the old vocabulary goes through qlora.quantize; factors and new rows together, then started from again."""
    base = grown_base(folder)
    stage("qlora.quantize", folder / "nf4", in_model=base)
    plan = Plan(steps=3)
    data = plain_batches(42, plan, vocab=600)
    hanmix_train(folder, data, plan, in_model=folder / "nf4", set_train_embeddings="new", set_train_head="new", set_rank=4)
    first, start = tensors(folder / "run" / "adapter"), tensors(base)
    for module in MATRICES.values():
        check(torch.equal(first[f"base_model.model.{module}.weight"][:512].float(), start[module + ".weight"][:512].float()), f"{module}: frozen rows changed")
    (folder / "again").mkdir()
    hanmix_train(folder / "again", data, plan, in_model=folder / "nf4", in_adapter=folder / "run" / "adapter", set_train_embeddings="new", set_train_head="new")
    second = tensors(folder / "again" / "run" / "adapter")
    for key, tensor in second.items():
        frozen = 512 if tensor.shape[0] > 512 else 0
        check(torch.equal(tensor[:frozen], first[key][:frozen]) and not torch.equal(tensor[frozen:], first[key][frozen:]), f"{key} did not go on")


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def lines_of(path):
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:  # not there yet, or renamed with its folder
        return 0


def train_args(folder, out, *more):
    return ["stage", "qlora.train", f"in.model={QUICKSTART / 'base'}", f"in.ids={folder / 'ids.safetensors'}", "set.dropout=0.3", "set.steps=30", "set.accumulate=2",
            "set.save_every=4", "set.keep=2", "set.rank=4", "set.train_head=all", "set.seed=11", *more, "--out", str(folder / out)]


@test
def dropout_goes_on_where_it_was(folder):
    """SIGTERM and SIGKILL in the middle; 1 and 2 threads: the same final adapter, byte for byte."""
    save_ids(folder / "ids.safetensors", random_ids(43, 60, 48, 512))
    hanmix(*train_args(folder, "whole"))
    hanmix(*train_args(folder, "one", "set.threads=1"))
    hanmix(*train_args(folder, "kept", "set.recompute=false"))
    wanted = sha256(folder / "whole" / "adapter" / "adapter_model.safetensors")
    check(sha256(folder / "kept" / "adapter" / "adapter_model.safetensors") == wanted, "without recomputation other bytes")
    check(sha256(folder / "one" / "adapter" / "adapter_model.safetensors") == wanted, "1 thread gives other bytes than 2")
    for how in (signal.SIGTERM, signal.SIGKILL):
        out, codes = folder / how.name, []
        for lines in (3, 9, 17, 10 ** 9):
            run = subprocess.Popen([str(PROGRAM), *train_args(folder, out.name)], stderr=subprocess.PIPE)
            metrics = folder / f"{out.name}.partial" / "metrics.jsonl"
            while run.poll() is None and not lines_of(metrics) >= lines:
                time.sleep(0.002)
            if run.poll() is None:
                run.send_signal(how)
            said = run.communicate()[1].decode()
            codes.append(run.returncode)
            check(run.returncode in (0, 75, -9), f"exit {run.returncode}: {said[-300:]}")
        check(codes[-1] == 0 and codes.count(0) < len(codes), f"exits {codes}")
        check(sha256(out / "adapter" / "adapter_model.safetensors") == wanted, f"after {how.name}, exits {codes}: other bytes")
        steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
        check(steps == list(range(1, 31)), f"steps of metrics.jsonl: {steps}")
        print(f"    {how.name}: exits {codes}")


@test
def dropout_is_unbiased(folder):
    """B = 0 at the start, so that dropout reaches only B's gradient: its mean over seeds is the gradient without, its spread as p says."""
    save_ids(folder / "ids.safetensors", random_ids(44, 2, 64, 512))
    common = dict(in_model=QUICKSTART / "base", in_ids=folder / "ids.safetensors", set_steps=1, set_micro_batch=2, set_dump_gradients=1, set_targets="[v_proj,w2]")
    stage("qlora.train", folder / "start", set_seed=1, **common)
    exact = tensors(folder / "start" / "gradients-1.safetensors")
    key = next(k for k in exact if "layers.2" in k and "v_proj.lora_B" in k)
    samples = []
    for seed in range(24):
        stage("qlora.train", folder / f"s{seed}", set_seed=seed, set_dropout=0.5, in_adapter=folder / "start" / "adapter", **{**common, "set_lr": 0})
        samples.append(tensors(folder / f"s{seed}" / "gradients-1.safetensors")[key].double())
    stage("qlora.train", folder / "none", in_adapter=folder / "start" / "adapter", **{**common, "set_lr": 0})
    wanted = tensors(folder / "none" / "gradients-1.safetensors")[key].double()
    single = sum(float((s - wanted).norm() / wanted.norm()) for s in samples) / len(samples)
    mean = float((sum(samples) / len(samples) - wanted).norm() / wanted.norm())
    check(len({s.sum().item() for s in samples}) == len(samples), "two seeds give one mask")
    check(single > 0.1 and mean < 2.0 * single / len(samples) ** 0.5, f"one seed is off by {single:.3g}, the mean of {len(samples)} by {mean:.3g}")
    print(f"    one seed {single:.3g}, mean of {len(samples)} {mean:.3g}")
