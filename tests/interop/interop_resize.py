# SPDX-License-Identifier: MIT
"""vocab.resize: every rule for new rows against numpy and torch, over dtypes, tied heads and shards; draws against transformers' mean_resizing."""
import json
import os
import pathlib
import random
import shutil
import struct
import tempfile

import numpy as np
import sentencepiece as spm
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, LlamaTokenizer

from safetensors.torch import save_file

from harness import QUICKSTART, Skip, check, check_close, refused, stage, tensors, test

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
BASE = QUICKSTART / "base"
PIECES = ["中国", "国", "▁中国", "数据", "据数", "的", "哈哈哈", "𠀀", "once中", "人民", "民人", "中国人民", "人"]
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def record(number, payload):
    head, size = bytes([number << 3 | 2]), len(payload)
    while size > 127:
        head, size = head + bytes([size & 127 | 128]), size >> 7
    return head + bytes([size]) + payload


def tokenizer_with(folder, pieces, types=()):
    """The base's model and records of new pieces, scores falling; types are those of the first of them, others normal."""
    folder.mkdir()
    out = (BASE / "tokenizer.model").read_bytes()
    for k, piece in enumerate(pieces):
        kind = bytes([0x18, types[k]]) if k < len(types) else b""
        out += record(1, record(1, piece.encode()) + b"\x15" + struct.pack("<f", -2e5 - k) + kind)
    (folder / "tokenizer.model").write_bytes(out)
    return folder


def llama(folder, dtype, tied=False, shard="5GB", rows=512, dim=96, mix=False):
    """Random weights; with `mix`, columns that depend on each other and have means."""
    torch.manual_seed(5)
    config = LlamaConfig(vocab_size=rows, hidden_size=dim, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                         max_position_embeddings=64, tie_word_embeddings=tied)
    model = LlamaForCausalLM(config)
    for matrix in (model.model.embed_tokens.weight, model.lm_head.weight):
        blend = torch.eye(dim) + 0.3 * torch.randn(dim, dim) / dim ** 0.5 if mix else torch.eye(dim)
        matrix.data = (0.02 * torch.randn(rows, dim) @ blend + (0.05 * torch.randn(dim) if mix else 0))
    if tied:
        model.tie_weights()
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    shutil.copy(BASE / "tokenizer.model", folder)
    return folder


def side_by_side(folder):
    """Both matrices in one shard, everything else in another."""
    all_of = tensors(folder)
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    place = {name: f"model-0000{1 if name in (EMBED, HEAD) else 2}-of-00002.safetensors" for name in all_of}
    for file in set(place.values()):
        save_file({name: t.clone() for name, t in all_of.items() if place[name] == file}, str(folder / file), metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": place}))


def files_of(folder, names=None):
    """Files of the folder that hold these tensors, or all."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return {"model.safetensors"}
    return {file for name, file in json.loads(index.read_text())["weight_map"].items() if names is None or name in names}


def cut(pieces):
    """Tokens of the bare pieces: the base model told to add no dummy prefix."""
    bare = spm.SentencePieceProcessor(model_proto=(BASE / "tokenizer.model").read_bytes() + b"\x1a\x02\x18\x00")
    return [bare.encode(p) for p in pieces]


def once(value, dtype):
    """float64 to the dtype in one rounding: through f32 with the last bit telling of a rest (round to odd)."""
    f32 = value.astype(np.float32)
    if dtype == torch.float32:
        return torch.from_numpy(f32)
    bits = f32.view(np.uint32).copy()
    rest = f32.astype(np.float64) != value
    bits[rest & (np.abs(f32.astype(np.float64)) > np.abs(value))] -= 1
    bits[rest] |= 1
    return torch.from_numpy(bits.view(np.float32)).to(dtype)


def weights(rule, head, k):
    if rule != "weighted":
        return np.ones(k)
    return 1 / np.arange(1.0, k + 1) if head else 1 / np.arange(k, 0, -1.0)


def expected(rule, matrix, head, dtype, upstream, tokens):
    """Rows of pieces that are cut into `tokens`; none: the mean of the old vocabulary's rows."""
    old = matrix.double().numpy()
    if rule == "zero":
        return torch.zeros(len(tokens), matrix.shape[1], dtype=dtype)
    if rule == "mean_upstream":
        return torch.stack([sum(matrix[i] for i in ids) / len(ids) for ids in upstream])
    rows = []
    for ids in tokens:
        if not ids:
            rows.append(np.mean(old[:512], axis=0))
            continue
        total, w = np.zeros(old.shape[1]), weights(rule, head, len(ids))
        for i, x in zip(ids, w):
            total += x * old[i]
        rows.append(total / w.sum())
    return once(np.stack(rows), dtype)


def upstream_ids(new, count=len(PIECES)):
    """As the published script: decode, then encode with <s> and dummy prefix."""
    old, grown = spm.SentencePieceProcessor(str(BASE / "tokenizer.model")), spm.SentencePieceProcessor(str(new / "tokenizer.model"))
    return [[1] + old.encode(grown.decode([512 + k])) for k in range(count)]


@test
def rows_by_every_rule(folder):
    """f32, bf16, f16; tied and untied; one file, matrices in the same or in different shards: equal bits, old rows and other tensors untouched."""
    new, seen = tokenizer_with(folder / "new", PIECES), set()
    upstream = upstream_ids(new)
    cases = [("f32", False, "5GB"), ("bf16", False, "60KB"), ("f16", False, "220KB"), ("f16", False, "same"), ("bf16", True, "60KB"), ("f32", True, "5GB")]
    for dtype, tied, shard in cases:
        model = llama(folder / f"{dtype}-{tied}-{shard}", DTYPES[dtype], tied, "5GB" if shard == "same" else shard)
        if shard == "same":
            side_by_side(model)
        before = tensors(model)
        total, touched = len(files_of(model)), len(files_of(model, {EMBED, HEAD}))
        seen.add((touched, total))
        for rule in ("mean", "weighted", "mean_upstream", "zero", "copy"):
            out = folder / "out"
            report = stage("vocab.resize", out, in_model=model, in_old=BASE, in_new=new, set_init=rule, **({} if rule in ("zero", "mean_upstream") else {"set_noise": 0}))
            after = tensors(out)
            check(after.keys() == before.keys(), f"{dtype} {rule}: other tensors")
            for name, old in before.items():
                if name not in (EMBED, HEAD):
                    check(torch.equal(after[name], old), f"{dtype} {rule}: {name} changed")
                    continue
                wanted = expected(rule, old, name == HEAD, DTYPES[dtype], upstream, cut(PIECES))
                check(after[name].dtype == old.dtype and torch.equal(after[name][:512].view(torch.uint8), old.view(torch.uint8)), f"{dtype} {rule}: old rows of {name}")
                differ = int((after[name][512:] != wanted).sum())
                check(differ == 0, f"{dtype} {rule} {name}: {differ} values differ")
            index = out / "model.safetensors.index.json"
            if index.exists():
                size = sum(t.numel() * t.element_size() for t in after.values())
                check(json.loads(index.read_text())["metadata"]["total_size"] == size, f"{dtype}: total_size")
            check(report["files_linked"] == total - touched and report["files_copied"] == 0, f"{dtype} {rule}: {report}")
            loaded = AutoModelForCausalLM.from_pretrained(str(out))
            check(loaded.config.vocab_size == 512 + len(PIECES), "vocab_size")
            check(torch.equal(loaded.get_output_embeddings().weight.data.float(), after[EMBED if tied else HEAD].float()), f"{dtype} {rule}: transformers reads other rows")
            shutil.rmtree(out)
    print(f"    files rewritten, of all: {sorted(seen)}")


@test
def rows_of_random_pieces(folder):
    """Pieces drawn from many scripts, control and user-defined ones among them; old matrices with and without padding; pad_to: equal bits by every rule."""
    choice, alphabets = random.Random(17), ("".join(map(chr, range(0x4E00, 0x9FA6))), "abcdefghijklmnopqrstuvwxyz▁▁", "0123456789", "αβγδ😀é\u0301한글カナ𠀀", "，。「」.,()")
    for turn in range(12):
        pieces, mixed = {}, turn % 3 == 2
        while len(pieces) < 80:
            letters = "".join(choice.choice(alphabets) for _ in range(2 if mixed else 1))
            pieces["".join(choice.choice(letters) for _ in range(choice.randint(1, 9)))] = None
        own = spm.SentencePieceProcessor(str(BASE / "tokenizer.model"))
        pieces = ["<pad>", "<|im_end|>", "<tool>"] + [p for p in pieces if own.piece_to_id(p) == own.unk_id()]
        new = tokenizer_with(folder / f"new{turn}", pieces, (3, 3, 4))
        dtype, tied, padding, pad_to = choice.choice(sorted(DTYPES)), choice.random() < 0.3, choice.choice((0, 0, 5, 300)), choice.choice((1, 1, 8, 128))
        model = llama(folder / f"model{turn}", DTYPES[dtype], tied, choice.choice(("5GB", "60KB")), rows=512 + padding, dim=choice.choice((8, 56, 96)))
        before, tokens, upstream = tensors(model), cut(pieces), upstream_ids(new, len(pieces))
        tokens[0] = tokens[1] = []
        end = 512 + len(pieces)
        rows = -(-max(end, 512 + padding) // pad_to) * pad_to
        for rule in ("mean", "weighted", "mean_upstream", "zero", "copy"):
            what = f"turn {turn}, {rule}, {dtype}, tied {tied}, padding {padding}, pad_to {pad_to}"
            report = stage("vocab.resize", folder / "out", in_model=model, in_old=BASE, in_new=new, set_init=rule, set_pad_to=pad_to,
                           **({} if rule in ("zero", "mean_upstream") else {"set_noise": 0}))
            check(report["new_rows"] == rows and report["replaced_rows"] == min(padding, len(pieces)), f"{what}: {report}")
            for name, after in tensors(folder / "out").items():
                if name in (EMBED, HEAD):
                    old = before[name]
                    wanted = torch.cat([old[:512], expected(rule, old, name == HEAD and not tied, DTYPES[dtype], upstream, tokens), old[end:],
                                        once(old[:512].double().numpy().mean(0), DTYPES[dtype]).expand(rows - max(end, 512 + padding), -1)])
                    check(torch.equal(after, wanted), f"{what}, {name}: {int((after != wanted).any(1).sum())} of {rows} rows differ")
            shutil.rmtree(folder / "out")


@test
def padding_and_noise(folder):
    """pad_to: the mean of the old rows; noise: of the asked deviation, and no two rows alike."""
    new = tokenizer_with(folder / "new", PIECES)
    model = llama(folder / "model", torch.float32, mix=True)
    plain = tensors(model)
    bare = stage("vocab.resize", folder / "bare", in_model=model, in_old=BASE, in_new=new, set_noise=0)
    noisy = stage("vocab.resize", folder / "noisy", in_model=model, in_old=BASE, in_new=new, set_noise=0.01, set_pad_to=64)
    check(bare["duplicate_rows"] == 2 and noisy["duplicate_rows"] == 0, f"duplicates: {bare['duplicate_rows']}, {noisy['duplicate_rows']}")
    check(noisy["new_rows"] == 576 and noisy["padded_rows"] == 576 - 512 - len(PIECES), str(noisy))
    for name in (EMBED, HEAD):
        a, b = tensors(folder / "bare")[name], tensors(folder / "noisy")[name]
        mean = plain[name].double().mean(0)
        check(torch.equal(b[512 + len(PIECES):], mean.float().expand(576 - 512 - len(PIECES), -1)), f"{name}: padding rows")
        z = ((b[512:512 + len(PIECES)] - a[512:]).double() / plain[name].double().std(0, unbiased=False) / 0.01).flatten()
        check(abs(float(z.mean())) < 4 / len(z) ** 0.5 and abs(float(z.std()) - 1) < 4 / (2 * len(z)) ** 0.5, f"{name}: noise {float(z.mean()):.3g} {float(z.std()):.3g}")


def whitened(rows, old, scale):
    """Rows back to what was drawn: independent normal numbers if they follow N(mean, scale * covariance)."""
    old = old.double()
    mean = old.mean(0)
    factor = torch.linalg.cholesky((old - mean).T @ (old - mean) / len(old))
    return torch.linalg.solve_triangular(factor, (rows.double() - mean).T, upper=False).T / scale ** 0.5


def check_normal(what, z):
    """Mean, variance, fourth moment, all pairs of columns and the eigenvalues' range (Marchenko and Pastur) of n draws of D numbers."""
    n, dim = z.shape
    count = n * dim
    mean, square, fourth = float(z.mean()), float((z ** 2).mean()), float((z ** 4).mean())
    check(abs(mean) < 5 / count ** 0.5, f"{what}: mean {mean:.3g}")
    check(abs(square - 1) < 5 * (2 / count) ** 0.5, f"{what}: variance {square:.4g}")
    check(abs(fourth - 3) < 5 * (96 / count) ** 0.5, f"{what}: fourth moment {fourth:.4g}")
    covariance = z.T @ z / n
    off = covariance - torch.diag(torch.diag(covariance))
    spread = float((off ** 2).sum() * n / (dim * (dim - 1)))
    check(abs(spread - 1) < 0.1, f"{what}: covariances between columns, {spread:.4g} of chance")
    low, high = (float(x) for x in torch.linalg.eigvalsh(covariance)[[0, -1]])
    ratio = (dim / n) ** 0.5
    check(0.9 * (1 - ratio) ** 2 < low and high < 1.1 * (1 + ratio) ** 2, f"{what}: eigenvalues {low:.3g} to {high:.3g}")
    print(f"    {what}: mean {mean:.2g}, variance {square:.4g}, fourth {fourth:.4g}, pairs {spread:.3g}, eigenvalues {low:.3g} to {high:.3g}")


@test
def draws_like_transformers(folder):
    """init=normal and resize_token_embeddings(mean_resizing=True): the same distribution, by the same bounds, over several tiles of the factorisation."""
    pieces = [chr(0x4E00 + k // 60) + chr(0x5E00 + k % 60) for k in range(3000)]
    new = tokenizer_with(folder / "new", pieces)
    model = llama(folder / "model", torch.float32, dim=288, mix=True, shard="400KB")
    old = tensors(model)
    theirs = AutoModelForCausalLM.from_pretrained(str(model), dtype=torch.float32)
    theirs.resize_token_embeddings(3512, mean_resizing=True)
    found = {EMBED: theirs.get_input_embeddings().weight.data, HEAD: theirs.get_output_embeddings().weight.data}
    draws = {}
    for scale, seed in ((1e-9, 1), (1, 1), (1e-9, 2)):
        out = folder / f"out-{scale}-{seed}"
        report = stage("vocab.resize", out, in_model=model, in_old=BASE, in_new=new, set_init="normal", set_scale=scale, set_seed=seed)
        check(report["covariance_definite"] and report["duplicate_rows"] == 0, str(report))
        for name, rows in tensors(out).items():
            if name in (EMBED, HEAD):
                draws[scale, seed, name] = whitened(rows[512:], old[name], scale)
                check_normal(f"ours, scale {scale:g}, {name}", draws[scale, seed, name])
    for name in (EMBED, HEAD):
        check_normal(f"transformers, {name}", whitened(found[name][512:], old[name], 1e-9))
        check(float((draws[1e-9, 1, name] - draws[1, 1, name]).abs().max()) < 0.1, "two scales, one seed: other numbers")
        check(abs(float((draws[1e-9, 1, name] * draws[1e-9, 2, name]).mean())) < 5 / draws[1, 1, name].numel() ** 0.5, "two seeds go together")
    check(abs(float((draws[1, 1, EMBED] * draws[1, 1, HEAD]).mean())) < 5 / draws[1, 1, EMBED].numel() ** 0.5, "the two matrices go together")


@test
def draws_without_a_distribution(folder):
    """Fewer rows than columns: transformers and hanmix give every new row the mean; hanmix says so."""
    new = tokenizer_with(folder / "new", PIECES)
    model = llama(folder / "model", torch.float32, dim=640)
    theirs = AutoModelForCausalLM.from_pretrained(str(model), dtype=torch.float32)
    theirs.resize_token_embeddings(512 + len(PIECES), mean_resizing=True)
    report = stage("vocab.resize", folder / "out", in_model=model, in_old=BASE, in_new=new, set_init="normal")
    check(not report["covariance_definite"] and report["duplicate_rows"] == len(PIECES) - 1, str(report))
    ours, found = tensors(folder / "out")[EMBED][512:], theirs.get_input_embeddings().weight.data[512:]
    check(float((ours - found).abs().max()) < 1e-7, "not their means")


@test
def threads_and_bf16_draws(folder):
    """One and two threads give the same bytes; bf16 rows lie within a rounding of the f32 ones."""
    new = tokenizer_with(folder / "new", PIECES)
    model = llama(folder / "model", torch.bfloat16, dim=320, mix=True, rows=512)
    for init in ("normal", "mean", "weighted"):
        for threads in (1, 2):
            stage("vocab.resize", folder / f"{init}{threads}", in_model=model, in_old=BASE, in_new=new, set_init=init, set_threads=threads)
        one, two = ((folder / f"{init}{n}" / "model.safetensors").read_bytes() for n in (1, 2))
        check(one == two, f"{init}: threads change bytes")
    old, rows = tensors(model)[EMBED], tensors(folder / "normal1")[EMBED]
    mean = old.double().mean(0)
    check(float(((rows[512:].double() - mean).abs() / mean.abs().clamp_min(1e-3)).max()) < 1 / 128, "bf16 draws of scale 1e-9 are off their mean")


@test
def rows_move_with_pieces(folder):
    """init=copy from one extension to another and to a smaller vocabulary; the others refuse."""
    first = tokenizer_with(folder / "first", PIECES)
    second_pieces = ["人民", "天天", "中国", "国人", "哈哈哈"]
    second = tokenizer_with(folder / "second", second_pieces)
    model = llama(folder / "model", torch.bfloat16, rows=512 + len(PIECES), shard="60KB")
    check("beside the model has 512" in refused("vocab.resize", folder / "no", 4, in_model=model, in_old=first, in_new=first), "a wrong old tokenizer")
    shutil.copy(first / "tokenizer.model", model)
    old = tensors(model)
    report = stage("vocab.resize", folder / "out", in_model=model, in_old=first, in_new=second, set_init="copy", set_noise=0)
    check(report["kept_rows"] == 512 and report["moved_rows"] == 3 and report["new_rows"] == 517, str(report))
    processor = spm.SentencePieceProcessor(model_proto=(first / "tokenizer.model").read_bytes() + b"\x1a\x02\x18\x00")
    for name in (EMBED, HEAD):
        rows = tensors(folder / "out")[name]
        check(torch.equal(rows[:512], old[name][:512]), f"{name}: old rows")
        for k, piece in enumerate(second_pieces):
            if piece in PIECES:
                check(torch.equal(rows[512 + k], old[name][512 + PIECES.index(piece)]), f"{name}: {piece} did not move")
            else:
                made = once(np.mean([old[name][i].double().numpy() for i in processor.encode(piece)], axis=0)[None], torch.bfloat16)[0]
                check(torch.equal(rows[512 + k], made), f"{name}: {piece}")
    check(stage("vocab.resize", folder / "less", in_model=model, in_old=first, in_new=BASE, set_init="copy")["new_rows"] == 512, "not smaller")
    check("init=copy" in refused("vocab.resize", folder / "no", 4, in_model=model, in_old=first, in_new=second), "no way out is told")


def moved_tokenizer(folder, source, at):
    """Records of the pieces from `at` on, then those before: every id moves."""
    data, records, end = (source / "tokenizer.model").read_bytes(), [], 0
    while data[end] == 0x0A:  # field 1, the pieces; their lengths take one byte
        records.append(data[end:end + 2 + data[end + 1]])
        end += len(records[-1])
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(b"".join(records[at:] + records[:at]) + data[end:])
    return folder


@test
def special_ids_move_with_pieces(folder):
    """copy: ids of <s> and </s> in config.json and generation_config.json follow their rows."""
    model = llama(folder / "model", torch.float32)
    (model / "generation_config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": [2, 600], "max_length": 7}))
    moved = moved_tokenizer(folder / "moved", BASE, 100)
    stage("vocab.resize", folder / "out", in_model=model, in_old=BASE, in_new=moved, set_init="copy")
    config, settings = (json.loads((folder / "out" / name).read_text()) for name in ("config.json", "generation_config.json"))
    check((config["bos_token_id"], config["eos_token_id"]) == (413, 414), f"config: {config['bos_token_id']}, {config['eos_token_id']}")
    check(settings == {"bos_token_id": 413, "eos_token_id": [414, 600], "max_length": 7}, str(settings))
    for name in (EMBED, HEAD):
        check(torch.equal(tensors(folder / "out")[name], tensors(model)[name].roll(-100, 0)), f"{name}: rows")


@test
def english_keeps_its_logits(folder):
    """A grown model in transformers, by every rule: the new tokenizer gives English the old ids, and the logits of old ids stay; hanmix gives the same."""
    english = "Where the wind went, nobody knew; the boat came home alone."
    new, model = tokenizer_with(folder / "new", PIECES), llama(folder / "model", torch.float32, shard="60KB")
    old = LlamaTokenizer.from_pretrained(str(model))
    ids = torch.tensor([old(english)["input_ids"]])
    save_file({"input_ids": ids}, str(folder / "ids.safetensors"))
    with torch.no_grad():
        before = LlamaForCausalLM.from_pretrained(str(model))(ids).logits
        for rule in ("mean", "weighted", "mean_upstream", "normal", "zero", "copy"):
            out = folder / rule
            stage("vocab.resize", out, in_model=model, in_old=BASE, in_new=new, set_init=rule, set_pad_to=8)
            found = [AutoTokenizer.from_pretrained(str(out), use_fast=fast)(english)["input_ids"] for fast in (True, False)]
            check(found == [ids[0].tolist()] * 2, f"{rule}: other ids, {found}")
            after = AutoModelForCausalLM.from_pretrained(str(out))(ids).logits
            check(after.shape[-1] == 528, f"{rule}: {tuple(after.shape)}")
            check_close(f"{rule}: old logits in transformers", after[..., :512], before, 2e-7)
            stage("eval.logits", folder / f"{rule}-logits", in_model=out, in_ids=folder / "ids.safetensors")
            check_close(f"{rule}: all logits, hanmix and transformers", tensors(folder / f"{rule}-logits" / "logits.safetensors")["logits"], after, 1e-5)


@test
def odd_folders(folder):
    """One shard with an index, totals, rows beyond the pieces, values that the dtype cannot hold, padding of NaN."""
    new = tokenizer_with(folder / "new", PIECES)
    model = llama(folder / "one", torch.bfloat16)
    (model / "model.safetensors").rename(model / "model-00001-of-00001.safetensors")
    place = {name: "model-00001-of-00001.safetensors" for name in tensors(model / "model-00001-of-00001.safetensors")}
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 1, "total_parameters": 2, "more": "kept"}, "weight_map": place}))
    stage("vocab.resize", folder / "out", in_model=model, in_old=BASE, in_new=new)
    count = sum(t.numel() for t in tensors(folder / "out").values())
    index = json.loads((folder / "out" / "model.safetensors.index.json").read_text())
    check(index == {"metadata": {"total_size": 2 * count, "total_parameters": count, "more": "kept"}, "weight_map": place}, str(index["metadata"]))
    check(AutoModelForCausalLM.from_pretrained(str(folder / "out")).config.vocab_size == 512 + len(PIECES), "vocab_size")

    model = llama(folder / "chat", torch.float16, rows=520)
    (model / "added_tokens.json").write_text('{"<|im_end|>": 512, "<|im_start|>": 513}')
    report = stage("vocab.resize", folder / "said", in_model=model, in_old=BASE, in_new=new)
    check(report["replaced_rows"] == 8, str(report))

    whole = tensors(model)
    large = {**whole, EMBED: whole[EMBED].clone()}
    large[EMBED][:, 5] = torch.where(torch.arange(520) % 2 == 0, 6e4, -6e4)
    save_file(large, str(model / "model.safetensors"), metadata={"format": "pt"})
    for rule in ({"set_noise": 10}, {"set_init": "mean_upstream"}, {"set_init": "normal", "set_scale": 100}):
        check("is beyond the range of F16" in refused("vocab.resize", folder / "no", 4, in_model=model, in_old=BASE, in_new=new, **rule), str(rule))
    stage("vocab.resize", folder / "fits", in_model=model, in_old=BASE, in_new=new, set_noise=0)

    model = llama(folder / "padded", torch.bfloat16, rows=576)
    whole = tensors(model)
    whole[HEAD][570, 4] = float("nan")
    save_file(whole, str(model / "model.safetensors"), metadata={"format": "pt"})
    check("'lm_head.weight' holds NaN in row 570, column 4" in refused("vocab.resize", folder / "no", 4, in_model=model, in_old=BASE, in_new=new), "NaN stays")


@test
def far_files_are_copied(folder):
    """To another file system: the same files as linked ones; a link that points nowhere is a missing shard."""
    if not os.path.isdir("/dev/shm") or os.stat("/dev/shm").st_dev == os.stat(folder).st_dev:
        raise Skip("no second file system")
    new, model = tokenizer_with(folder / "new", PIECES), llama(folder / "model", torch.bfloat16, shard="60KB")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as far:
        near, copy = (stage("vocab.resize", out, in_model=model, in_old=BASE, in_new=new) for out in (folder / "out", f"{far}/out"))
        check(copy["files_linked"] == 0 and copy["files_copied"] == near["files_linked"] > 0, f"{near}, {copy}")
        files = [{f.name: f.read_bytes() for f in out.iterdir() if f.name not in ("stage.json", "report.json")} for out in (folder / "out", pathlib.Path(far) / "out")]
        check(files[0] == files[1], "other bytes")
        whole = sum(f.stat().st_size for f in (folder / "out").glob("*.safetensors"))
        check(near["bytes_written"] < copy["bytes_written"] <= whole, f"{near['bytes_written']}, {copy['bytes_written']} of {whole}")
    shard = next(model.glob("model-00001*"))
    shard.unlink()
    shard.symlink_to("nowhere")
    check("model-00001-of" in refused("vocab.resize", folder / "no", 4, in_model=model, in_old=BASE, in_new=new), "a link to nothing")


@test
def linked_files_are_safe(folder):
    """What is not rewritten keeps its bytes when the grown folder is grown again in place of itself, and links through a model cache's symbolic links."""
    new, more = tokenizer_with(folder / "new", PIECES), tokenizer_with(folder / "more", PIECES + ["天", "地"])
    model = llama(folder / "blobs", torch.float32, shard="60KB")
    cache = folder / "cache"
    cache.mkdir()
    for file in model.iterdir():
        (cache / file.name).symlink_to(os.path.join("..", "blobs", file.name))
    before = {f.name: f.read_bytes() for f in model.iterdir()}
    stage("vocab.resize", folder / "out", in_model=cache, in_old=BASE, in_new=new)
    stage("vocab.resize", folder / "again", in_model=folder / "out", in_old=new, in_new=more)
    kept = {f.name: f.read_bytes() for f in (folder / "out").glob("*.safetensors")}
    stage("qlora.quantize", folder / "nf4", in_model=folder / "again")
    check(all(not f.is_symlink() for out in ("out", "again") for f in (folder / out).iterdir()), "a symbolic link travelled")
    check(before == {f.name: f.read_bytes() for f in model.iterdir()}, "the base changed")
    check(kept == {f.name: f.read_bytes() for f in (folder / "out").glob("*.safetensors")}, "the first grown folder changed")
