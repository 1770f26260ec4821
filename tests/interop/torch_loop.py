# SPDX-License-Identifier: MIT
"""The training loop of transformers' Trainer in plain torch, and a run of qlora.train held against it."""
import json
from dataclasses import dataclass, field

import torch
from transformers import get_scheduler

from harness import check, check_close, save_ids, stage, tensors

IGNORE = -100


@dataclass
class Plan:
    """Settings of both programs; `extra` goes to qlora.train alone."""
    steps: int = 6
    accumulate: int = 2
    lr: float = 2e-3
    schedule: str = "cosine"
    warmup: int = 2
    clip: float = 1.0
    norm: str = "tokens"
    aux: float = 0.0
    betas: tuple = (0.9, 0.999)
    eps: float = 1e-8
    decay: float = 0.0
    decay_all: bool = False
    extra: dict = field(default_factory=dict)


def micro_loss(model, ids, labels, mask, aux):
    """Summed loss over targets, their number, and the routers' loss."""
    more = {} if mask is None else {"attention_mask": mask}
    out = model(input_ids=ids, output_router_logits=True, **more) if aux else model(input_ids=ids, **more)
    if labels is None:
        labels = ids if mask is None else ids.masked_fill(mask == 0, IGNORE)
    targets = labels[:, 1:]
    loss = torch.nn.functional.cross_entropy(out.logits.float()[:, :-1].flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum")
    return loss, int((targets != IGNORE).sum()), out.aux_loss if aux else torch.zeros(())


def torch_train(model, data, plan, aux=True, each_step=None):
    """data: micro-batches of (ids, labels or None, mask or None). The log of each step: loss, aux, norm, rate."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    decayed = [p for n, p in named if plan.decay_all or "lora_" in n]
    others = [p for n, p in named if not (plan.decay_all or "lora_" in n)]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": plan.decay}, {"params": others, "weight_decay": 0.0}],
                                  lr=plan.lr, betas=plan.betas, eps=plan.eps)
    schedule = get_scheduler({"constant": "constant_with_warmup"}.get(plan.schedule, plan.schedule), optimizer, plan.warmup, plan.steps)
    log = []
    for step in range(plan.steps):
        for _, p in named:  # an expert without tokens has gradient zero, as docs/NUMERICS.md says; torch would leave it out of the update
            p.grad = torch.zeros_like(p)
        micros = data[step * plan.accumulate:(step + 1) * plan.accumulate]
        counts = [int(((ids if m is None else ids.masked_fill(m == 0, IGNORE)) if labels is None else labels)[:, 1:].ne(IGNORE).sum()) for ids, labels, m in micros]
        loss_log = aux_log = 0.0
        for (ids, labels, mask), count in zip(micros, counts):
            loss, found, balance = micro_loss(model, ids, labels, mask, aux)
            check(found == count, "targets")
            loss = loss / (sum(counts) if plan.norm == "tokens" else count * plan.accumulate)
            (loss + plan.aux * balance / plan.accumulate).backward()
            loss_log += loss.item()
            aux_log += balance.item() / plan.accumulate
        if each_step:
            each_step(model)
        norm = torch.nn.utils.clip_grad_norm_([p for _, p in named], plan.clip if plan.clip else float("inf")).item()
        log.append({"loss": loss_log, "aux": aux_log, "grad_norm": norm, "lr": schedule.get_last_lr()[0]})
        optimizer.step()
        schedule.step()
    return log


def save_data(path, data):
    more = {}
    if data[0][1] is not None:
        more["labels"] = torch.stack([d[1] for d in data])
    if data[0][2] is not None:
        more["attention_mask"] = torch.stack([d[2] for d in data])
    save_ids(path, torch.stack([d[0] for d in data]), **more)


def hanmix_train(folder, data, plan, **settings):
    """qlora.train with the same settings; report, the lines of steps, the lines of evaluations."""
    save_data(folder / "ids.safetensors", data)
    decay = {"set_weight_decay": plan.decay, "set_decay": "all" if plan.decay_all else "lora"} if plan.decay else {}
    report = stage("qlora.train", folder / "run", in_ids=folder / "ids.safetensors", set_steps=plan.steps, set_accumulate=plan.accumulate, set_lr=plan.lr,
                   set_lr_schedule=plan.schedule, set_warmup=plan.warmup, set_clip=plan.clip, set_loss_norm=plan.norm, set_aux_coef=plan.aux,
                   set_betas=",".join(map(str, plan.betas)), set_eps=plan.eps, **decay, **plan.extra, **settings)
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    return report, [line for line in lines if "loss" in line], [line for line in lines if "eval" in line]


def compare_logs(ours, theirs, aux=True):
    check(len(ours) == len(theirs), f"{len(ours)} steps for {len(theirs)}")
    for key, limit in (("loss", 1e-5), ("grad_norm", 1e-4), ("lr", 1e-9)) + ((("aux", 1e-5),) if aux else ()):
        check_close(key, [o[key] for o in ours], [t[key] for t in theirs], limit)


def compare_update(what, ours, theirs, before, limit=2e-3):
    """What training changed: judged on the whole tensor, since Adam makes single values with tiny gradients uncertain."""
    ours, theirs, before = ours.double(), theirs.double(), before.double()
    moved = (theirs - before).norm()
    error = float((ours - theirs).norm() / moved.clamp_min(1e-30))
    check(float(moved) > 0 and error <= limit, f"{what}: the update differs by {error:.3g} of its size, limit {limit:.3g}")
    return error


def adapter_tensors(model):
    """Trained tensors of a peft model under the names of its files."""
    from peft import get_peft_model_state_dict
    return {k: v.detach().clone() for k, v in get_peft_model_state_dict(model, save_embedding_layers=False).items()}


def compare_adapters(folder, model, before, limit=2e-3):
    found, wanted = tensors(folder), adapter_tensors(model)
    check(set(found) == set(wanted), f"tensors differ: {sorted(set(found) ^ set(wanted))[:4]}")
    worst = max(compare_update(name, found[name], wanted[name], before[name], limit) for name in wanted
                if float((wanted[name] - before[name]).norm()) > 0)
    print(f"    {len(wanted)} tensors, worst update {worst:.2g}")
