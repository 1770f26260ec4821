# SPDX-License-Identifier: MIT
"""Evaluation and generation against transformers: windows of text and of packed data, adapters, other layouts of a model."""
import json
import math
import shutil

import numpy as np
import sentencepiece as spm
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from harness import QUICKSTART, check, check_close, documents, hanmix, logits_of, quickstart_model, random_ids, save_ids, stage, tensors, test
from interop_model import FORWARD_LIMIT, ours
from interop_train import random_adapter

BASE = QUICKSTART / "base"


def pieces(path=BASE):
    return spm.SentencePieceProcessor(model_file=str(path / "tokenizer.model"))


def window_loss(model, ids, window, step):
    """Sum over tokens 1..n-1, each scored once, with the context its window gives it."""
    total, scored = 0.0, 1
    for first in range(0, len(ids), step):
        if scored >= len(ids):
            break
        end = min(first + window, len(ids))
        logits = torch.as_tensor(logits_of(model, [ids[first:end]]))[0].double()
        losses = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[first + 1:end]), reduction="none")
        total += float(losses[scored - first - 1:].sum())
        scored = end
    return total


def small_text(folder, name, count, chars=700):
    docs = [d[:chars] for d in documents(name, count)]
    path = folder / name.replace(".zst", "")
    path.write_text("".join(json.dumps({"text": d}, ensure_ascii=False) + "\n" for d in docs), encoding="utf-8")
    return docs, path


@test
def loss_of_text(folder):
    """bos, then the text; windows that overlap, with and without an adapter; sizes in bytes and characters."""
    sp, base = pieces(), quickstart_model()
    adapted = random_adapter(folder / "adapter", seed=50)
    sets = {"zh": small_text(folder, "zh.valid.jsonl.zst", 2, 120), "en": small_text(folder, "en.valid.jsonl.zst", 3, 300)}
    for name, model, more in (("base", base, {}), ("adapter", adapted, {"in_adapter": folder / "adapter"})):
        for window, stride in ((48, 16), (64, 0), (1000, 0)):
            report = stage("eval.loss", folder / f"{name}-{window}", in_model=BASE, in_text__zh=sets["zh"][1], in_text__en=sets["en"][1],
                           set_window=window, set_stride=stride, **more)
            for found in report["sets"]:
                docs = sets[found["name"]][0]
                ids = [[1] + sp.encode(d) for d in docs]
                tokens = sum(len(i) - 1 for i in ids)
                # without an overlap the last token of a window is still the context of the next one's first target
                wanted = sum(window_loss(model, i, window, stride or window - 1) for i in ids)
                check(found["tokens"] == tokens and found["bytes"] == sum(len(d.encode()) for d in docs), f"{found['tokens']} tokens, {tokens} expected")
                check(found["chars"] == sum(map(len, docs)) and found["documents"] == len(docs), "characters and documents")
                check_close(f"{name}, window {window}, {found['name']}", [found["nats_per_token"], found["bits_per_byte"], found["bits_per_char"]],
                            [wanted / tokens, wanted / math.log(2) / found["bytes"], wanted / math.log(2) / found["chars"]], 1e-6)
                check(found["bits_per_byte_low"] <= found["bits_per_byte"] <= found["bits_per_byte_high"], "the interval leaves the estimate out")


def packed_windows(docs, sp, length):
    """corpus.pack: <s> document </s>, one after another, cut; and the UTF-8 bytes that the targets of each window stand for."""
    stream, sizes = [], []
    for doc in docs:
        ids = sp.encode(doc)
        stream += [1] + ids + [2]
        sizes += [0] + [len(sp.id_to_piece(i).replace("▁", " ").encode()) if not sp.is_byte(i) else 1 for i in ids] + [0]
        sizes[len(sizes) - len(ids) - 1] -= 1 if doc and sp.id_to_piece(ids[0]).startswith("▁") else 0  # the dummy prefix is no text
    count = len(stream) // length
    return np.array(stream[:count * length]).reshape(count, length), np.array(sizes[:count * length]).reshape(count, length)


@test
def loss_of_packed_windows(folder):
    """Windows as training sees them: eval.loss on them, and what qlora.train reports before its first step and in between."""
    sp, model = pieces(), quickstart_model()
    docs, path = small_text(folder, "en.valid.jsonl.zst", 12)
    stage("corpus.pack", folder / "packed", in_text=path, in_tokenizer=BASE, set_seq_len=48)
    windows, sizes = packed_windows(docs, sp, 48)
    total, count = 0.0, windows.shape[0] * 47
    for row in windows:
        logits = torch.as_tensor(logits_of(model, [row.tolist()]))[0].double()
        total += float(torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(row[1:]), reduction="sum"))
    found = stage("eval.loss", folder / "loss", in_model=BASE, in_packed__en=folder / "packed")["sets"][0]
    check(found["name"] == "en" and found["tokens"] == count, f"{found}")
    check(found["bytes"] == int(sizes[:, 1:].sum()), f"{found['bytes']} bytes, {int(sizes[:, 1:].sum())} expected")
    check_close("nats per token", [found["nats_per_token"]], [total / count], 1e-6)
    stage("qlora.train", folder / "run", in_model=BASE, in_data=folder / "packed", in_valid__en=folder / "packed", set_steps=4, set_eval_every=2, set_micro_batch=3)
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    evals = {line["step"]: line["eval"]["en"] for line in lines if "eval" in line}
    check(sorted(evals) == [0, 2, 4], f"evaluated after {sorted(evals)}")
    check_close("before training", [evals[0]["nats_per_token"], evals[0]["bits_per_byte"]], [found["nats_per_token"], found["bits_per_byte"]], 1e-6)
    after = stage("eval.loss", folder / "after", in_model=BASE, in_adapter=folder / "run" / "adapter", in_packed__en=folder / "packed")["sets"][0]
    check_close("after training", [evals[4]["nats_per_token"], evals[4]["bits_per_byte"]], [after["nats_per_token"], after["bits_per_byte"]], 1e-6)


@test
def documents_apart_in_a_window(folder):
    """set.attention=document: the loss of each document's part of a window alone."""
    sp, model = pieces(), quickstart_model()
    docs, path = small_text(folder, "en.valid.jsonl.zst", 12, chars=60)
    stage("corpus.pack", folder / "packed", in_text=path, in_tokenizer=BASE, set_seq_len=64)
    windows, _ = packed_windows(docs, sp, 64)
    total = count = 0
    for row in windows:
        starts = [i for i in range(len(row)) if i == 0 or row[i] == 1] + [len(row)]
        for first, end in zip(starts, starts[1:]):
            logits = torch.as_tensor(logits_of(model, [row[first:end].tolist()]))[0].double()
            ids = torch.tensor(row[first + 1:end + 1])  # the last target of a part is the next part's <s>
            total += float(torch.nn.functional.cross_entropy(logits[:len(ids)], ids, reduction="sum"))
            count += len(ids)
    stage("qlora.train", folder / "run", in_model=BASE, in_data=folder / "packed", in_valid=folder / "packed", set_steps=1, set_attention="document")
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    found = next(line["eval"]["valid"] for line in lines if "eval" in line)
    check(found["tokens"] == count, f"{found['tokens']} targets, {count} expected")
    check_close("nats per token", [found["nats_per_token"]], [total / count], 1e-6)


@test
def generation_with_an_adapter(folder):
    """Greedy text of base + adapter, as transformers and peft continue it."""
    sp = pieces()
    model = random_adapter(folder / "adapter", seed=51)
    for prompt in ("Once upon a time", "Tom and his dog", "你好"):
        ids = [1] + sp.encode(prompt)
        with torch.no_grad():
            wanted = model.generate(input_ids=torch.tensor([ids]), max_new_tokens=60, do_sample=False, eos_token_id=None, pad_token_id=0)[0].tolist()
        text = hanmix("generate", "--model", BASE, "--adapter", folder / "adapter", "--prompt", prompt, "--max-tokens", 60).decode("utf-8", "replace")
        theirs = sp.decode(wanted[1:wanted.index(2)] if 2 in wanted else wanted[1:])
        check(text.strip().rstrip("\ufffd") == theirs.strip().rstrip("\ufffd"), f"ours   {text!r}\n    theirs {theirs!r}")
    plain = hanmix("generate", "--model", BASE, "--prompt", prompt, "--max-tokens", 60).decode("utf-8", "replace")
    check(plain.strip() != text.strip(), "the adapter changes nothing: the test shows nothing")


def fused_copy(source, target):
    """The same model with transformers 5's names in memory: mlp.experts.gate_up_proj [E, 2F, D], mlp.experts.down_proj [E, D, F], mlp.gate."""
    found = tensors(source)
    config = json.loads((source / "config.json").read_text())
    experts, out = config["num_local_experts"], {}
    for i in range(config["num_hidden_layers"]):
        old, new = f"model.layers.{i}.block_sparse_moe.", f"model.layers.{i}.mlp."
        w1, w2, w3 = (torch.stack([found.pop(f"{old}experts.{e}.{w}.weight") for e in range(experts)]) for w in ("w1", "w2", "w3"))
        out[new + "experts.gate_up_proj"] = torch.cat([w1, w3], dim=1).contiguous()
        out[new + "experts.down_proj"] = w2.contiguous()
        out[new + "gate.weight"] = found.pop(old + "gate.weight")
    target.mkdir()
    save_file({**found, **out}, str(target / "model.safetensors"), metadata={"format": "pt"})
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": config.pop("rope_theta")}
    config["dtype"] = config.pop("torch_dtype", config.get("dtype"))
    (target / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.model", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        if (source / name).exists():
            shutil.copy(source / name, target)


@test
def fused_experts_are_the_same_model(folder):
    """The v5 layout: equal logits, equal 4-bit codes, and an adapter merged into it comes out under the old names."""
    fused_copy(BASE, folder / "fused")
    ids = random_ids(52, 2, 40, 512)
    found, wanted = ours(folder, folder / "fused", ids), ours(folder, BASE, ids)
    check(set(found) == set(wanted) and all(torch.equal(found[k], wanted[k]) for k in wanted), "the logits differ")
    random_adapter(folder / "adapter", seed=53)
    for name in ("fused", "plain"):
        model = folder / "fused" if name == "fused" else BASE
        stage("qlora.quantize", folder / f"{name}-nf4", in_model=model)
        stage("qlora.merge", folder / f"{name}-merged", in_model=model, in_adapter=folder / "adapter")
    for kind in ("nf4", "merged"):
        a, b = tensors(folder / f"fused-{kind}"), tensors(folder / f"plain-{kind}")
        check(set(a) == set(b) and all(torch.equal(a[k], b[k]) for k in b), f"{kind}: the folders differ")
    loaded = AutoModelForCausalLM.from_pretrained(str(folder / "fused-merged"), dtype=torch.float32, attn_implementation="eager").eval()
    check_close("logits of the merged folder", ours(folder, folder / "fused-merged", ids)["logits"], logits_of(loaded, ids), FORWARD_LIMIT)
    loss = stage("qlora.train", folder / "run", in_model=folder / "fused-nf4", in_ids=folder / "ids.safetensors", set_micro_batch=2, set_steps=1)["final_loss"]
    check_close("loss of a training step", [loss], [float(ours(folder, folder / "plain-nf4", ids)["loss"].mean())], 1e-6)
