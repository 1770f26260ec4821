"""Shared by all generators: paths, seeds, token batches, saving of tensors and JSON."""
import json
import os
import pathlib
import platform

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent
DATA = HERE.parent / "data"                                        # models/ and tokenizers/models/
TEXT = HERE.parent.parent.parent / "examples" / "quickstart" / "text"
IGNORE = -100


def setup():
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["HF_HUB_OFFLINE"] = "1"


def generator(seed, topic):
    """One independent random stream per (seed, topic)."""
    mixed = int.from_bytes(topic.encode(), "little") % (2**31 - 1)
    return torch.Generator().manual_seed((seed * 1_000_003 + mixed) % (2**62))


def topic_dir(out, name):
    path = pathlib.Path(out) / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def save_tensors(path, tensors):
    clean = {k: v.detach().contiguous().clone() for k, v in tensors.items()}
    save_file(clean, str(path), metadata={"format": "pt"})


def load_tensors(path):
    with safe_open(str(path), framework="pt") as f:
        return {k: f.get_tensor(k) for k in f.keys()}


def load_folder(folder):
    """All tensors of a Hugging Face folder, sharded or not, or of an adapter folder."""
    tensors = {}
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        tensors.update(load_tensors(path))
    return tensors


def save_json(path, value):
    pathlib.Path(path).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load_json(path):
    return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))


def versions():
    from importlib.metadata import version
    names = ["torch", "transformers", "peft", "bitsandbytes", "sentencepiece", "tokenizers", "safetensors", "numpy"]
    return {"python": platform.python_version(), **{n: version(n) for n in names}}


def diff(a, b):
    """Largest absolute difference, and root-mean-square of it relative to that of b."""
    a, b = a.detach().double(), b.detach().double()
    if a.numel() == 0:
        return {"max_abs": 0.0, "rel_rms": 0.0}
    d = a - b
    scale = b.pow(2).mean().sqrt().item()
    return {"max_abs": d.abs().max().item(), "rel_rms": d.pow(2).mean().sqrt().item() / scale if scale else 0.0}


def diff_sets(a, b):
    """Worst of diff() over all names of two dictionaries, which must have the same names."""
    assert a.keys() == b.keys(), sorted(a.keys() ^ b.keys())[:5]
    each = {k: diff(a[k], b[k]) for k in a}
    worst = max(each, key=lambda k: each[k]["rel_rms"])
    return {"max_abs": max(v["max_abs"] for v in each.values()),
            "worst_rel_rms": each[worst]["rel_rms"], "worst_name": worst}


def token_batch(gen, vocab, batch, length, ignored=(5, 3), low=3):
    """ids [batch, length] with repeats and local structure; labels = ids with two kinds of -100."""
    ids = torch.randint(low, vocab, (batch, length), generator=gen)
    for b in range(batch):
        for t in range(2, length):
            if torch.rand((), generator=gen) < 0.5:
                ids[b, t] = low + (ids[b, t - 1] * 7 + ids[b, t - 2] + 11) % (vocab - low)
    labels = ids.clone()
    for b in range(batch):
        labels[b, : ignored[0] + b] = IGNORE
        holes = torch.randperm(length, generator=gen)[: ignored[1]]
        labels[b, holes] = IGNORE
    return ids, labels


def random_weights(model, gen, std, norm_std=0.2):
    """Gaussian matrices, norms around 1; every value is exact in bfloat16."""
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            if p.dim() == 1:
                value = 1 + norm_std * torch.randn(p.shape, generator=gen)
            else:
                value = std * torch.randn(p.shape, generator=gen)
            p.copy_(value.to(torch.bfloat16).to(p.dtype))


def router_margin(router_logits, top_k):
    """Smallest gap between the last selected and the first unselected router logit."""
    gap = float("inf")
    for z in router_logits:
        s = z.detach().double().sort(dim=-1, descending=True).values
        if s.shape[-1] > top_k:
            gap = min(gap, (s[:, top_k - 1] - s[:, top_k]).min().item())
    return gap


def gradient(p):
    """An expert without tokens has no gradient in torch; recorded as zero."""
    return torch.zeros_like(p) if p.grad is None else p.grad.clone()


def write_readme(folder, text):
    (pathlib.Path(folder) / "README.md").write_text(text.strip() + "\n", encoding="utf-8")
