"""Rows of a grown vocabulary: the published script's rule and the bare mean, in float64, from tokens of transformers' slow tokenizer."""
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


def means(matrix, lists):
    """A piece that no token stands for gets the mean of all rows."""
    return np.stack([matrix[ids or slice(None)].astype(np.float64).mean(0) for ids in lists])


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
        f32 = weights[name].numpy()
        bf16 = weights[name].to(torch.bfloat16).float().numpy()
        for rule, ids in lists.items():
            tensors[f"{rule}.f32.{name}"] = torch.from_numpy(means(f32, ids).astype(np.float32))
            tensors[f"{rule}.bf16.{name}"] = torch.from_numpy(round_bf16(means(bf16, ids)).astype(np.float32))
    save_tensors(folder / "rows.safetensors", tensors)
    save_json(folder / "results.json", {"versions": versions(), "base": "models/tok512.model", "model": "models/stories260K-llama-hf",
                                        "pieces": PIECES, "ids": lists})
    write_readme(folder, f"""
# resize: rows of new pieces by the mean of old ones

`results.json`: `pieces` appended to models/tok512.model (scores below all of its own), and the old ids whose rows are averaged: `mean_upstream` =
`old(new.decode([id]))["input_ids"]` of transformers {versions()['transformers']}'s slow tokenizer (with `<s>` and the dummy prefix), `mean` = the bare piece.
`rows.safetensors`: `RULE.DTYPE.TENSOR` [{len(PIECES)}, 64], f32 values, from models/stories260K-llama-hf as it is (f32) and rounded to bf16 (bf16):
sum and quotient in float64, rounded once to the dtype; where `ids` is empty, the mean of all rows. Tolerance: none.
""")
