"""Rows of a grown vocabulary: the published script's rule in its own arithmetic, bare and weighted means in float64, from tokens of transformers' slow tokenizer."""
import pathlib
import shutil
import struct
import tempfile

import numpy as np
import sentencepiece as spm
import torch
from transformers import LlamaTokenizer

from common import DATA, load_folder, save_json, save_tensors, topic_dir, versions, write_readme
from make_tokenizers import TOKENIZER_CONFIG

PIECES = ["中国", "国", "▁中国", "数据", "据数", "的", "哈哈哈", "𠀀", "once中", "▁the中", "一", "人民", "民人", "中", "▁▁", "ing国ed"]


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def grown_model(base, pieces):
    """Base bytes and one record a piece: {1: text, 2: score}."""
    lowest = min(base.get_score(i) for i in range(len(base)))
    out = base.serialized_model_proto()
    for k, piece in enumerate(pieces):
        text = piece.encode()
        record = b"\x0a" + varint(len(text)) + text + b"\x15" + struct.pack("<f", lowest - 1 - k)
        out += b"\x0a" + varint(len(record)) + record
    return out


def slow_tokenizer(model):
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "tokenizer.model").write_bytes(model)
        save_json(f"{folder}/tokenizer_config.json", TOKENIZER_CONFIG)
        return LlamaTokenizer.from_pretrained(folder)


def round_bf16(x):
    """f64 to the nearest bf16, ties to even, in one step (normal numbers)."""
    m, e = np.frexp(x)
    return np.ldexp(np.rint(m * 256) / 256, e)


def means(matrix, lists, weights):
    """A piece that no token stands for gets the mean of all rows."""
    return np.stack([np.average(matrix[ids or slice(None)].astype(np.float64), axis=0, weights=weights(len(ids)) if ids else None) for ids in lists])


def published(matrix, lists):
    """As the script's Python does it with torch: every sum and the quotient in the dtype of the matrix."""
    return torch.stack([sum(matrix[i] for i in ids) / len(ids) for ids in lists]).float()


def even(k):
    return np.ones(k)


def last_heavy(k):
    return 1 / np.arange(k, 0, -1.0)


def first_heavy(k):
    return 1 / np.arange(1.0, k + 1)


def main(seed, preset, out):
    folder = topic_dir(out, "resize")
    base_bytes = (DATA / "models" / "tok512.model").read_bytes()
    base = spm.SentencePieceProcessor(model_proto=base_bytes)
    new_bytes = grown_model(base, PIECES)
    old, new = slow_tokenizer(base_bytes), slow_tokenizer(new_bytes)
    bare = spm.SentencePieceProcessor(model_proto=base_bytes + b"\x1a\x02\x18\x00")      # no dummy prefix
    lists = {"mean_upstream": [old(new.decode([len(base) + k]))["input_ids"] for k in range(len(PIECES))],
             "mean": [bare.encode(p) for p in PIECES]}
    tensors = {}
    weights = load_folder(DATA / "models" / "stories260K-llama-hf")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        bf16 = weights[name].to(torch.bfloat16)
        for dtype, matrix in (("f32", weights[name]), ("bf16", bf16)):
            values = matrix.float().numpy()
            tensors[f"mean_upstream.{dtype}.{name}"] = published(matrix, lists["mean_upstream"])
            for rule, by_place in (("mean", even), ("weighted", first_heavy if name == "lm_head.weight" else last_heavy)):
                made = means(values, lists["mean"], by_place)
                tensors[f"{rule}.{dtype}.{name}"] = torch.from_numpy((round_bf16(made) if dtype == "bf16" else made).astype(np.float32))
    save_tensors(folder / "rows.safetensors", tensors)
    save_json(folder / "results.json", {"versions": versions(), "base": "models/tok512.model", "model": "models/stories260K-llama-hf",
                                        "pieces": PIECES, "ids": lists})
    write_readme(folder, f"""
# resize: rows of new pieces by the mean of old ones

`results.json`: `pieces` appended to models/tok512.model (scores below all of its own), and the old ids whose rows are averaged: `mean_upstream` =
`old(new.decode([id]))["input_ids"]` of transformers {versions()['transformers']}'s slow tokenizer (with `<s>` and the dummy prefix), `mean` = the bare piece.
`rows.safetensors`: `RULE.DTYPE.TENSOR` [{len(PIECES)}, 64], f32 values, from models/stories260K-llama-hf as it is (f32) and rounded to bf16 (bf16):
`mean` and `weighted` (of the tokens of `mean`; weights 1/(k-i) in embed_tokens, 1/(i+1) in lm_head for token i of k): sum and quotient in float64,
rounded once to the dtype; where `ids` is empty, the mean of all rows. `mean_upstream`: `sum([row of each token]) / len` in torch, in the dtype of the
matrix, as models/init_embeddings.py of HIT-SCIR/Chinese-Mixtral-8x7B. Tolerance: none.
""")
