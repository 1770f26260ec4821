# SPDX-License-Identifier: MIT
"""Vocabulary against sentencepiece and transformers: the merge list, and one encoding by every loader."""
import collections
import csv
import hashlib
import io
import json
import os
import pathlib
import random
import shutil

import numpy as np
import torch
import sentencepiece as spm
import zstandard

from harness import GOLDEN, QUICKSTART, check, check_close, documents, hanmix, refused, stage, tensors, test
from hard_strings import FIXED, invalid_bytes, long_strings, random_strings
from make_bpe import han_runs, train

MISTRAL = GOLDEN / "tokenizers" / "models" / "mistral-v1-32000.model"
CODE = (GOLDEN.parent / "generate").glob("*.py")


@test
def merge_list_equals_sentencepiece(folder):
    docs = documents("zh.jsonl.zst", 700)
    (folder / "zh.txt").write_text("".join(line + "\n" for d in docs for line in d.splitlines()), encoding="utf-8")
    runs = collections.Counter(run for d in docs for run in han_runs(d))
    merges, singles = train(runs, 3000)
    report = stage("vocab.train", folder / "out", in_text=folder / "zh.txt", set_pieces=3000 + len(singles), set_singles="all")
    sp = spm.SentencePieceProcessor(model_file=str(folder / "out" / "tokenizer.model"))
    ours = [sp.id_to_piece(i) for i in range(259, len(sp))]
    check(report["merges"] == 3000 and report["singles"] == len(singles), f"{report['merges']} merges, {report['singles']} singles")
    first = next((i for i in range(3000) if ours[i] != merges[i]), None)
    check(first is None, f"merge {first}: ours {ours[first or 0]}, sentencepiece's {merges[first or 0]}")
    check(set(ours[3000:]) == set(singles), "the single characters differ")


MARKS = "\u3001\u3002\u3008\u3009\u300a\u300b\u300c\u300d\u300e\u300f\u3010\u3011\uff01\uff08\uff09\uff0c\uff0e\uff1a\uff1b\uff1f"  # of script: han-marks


@test
def merges_with_punctuation_equal_sentencepiece(folder):
    """script: han-marks against the library on the same stretches; counted and not, by either number of threads; then merged and checked."""
    docs = documents("zh.jsonl.zst", 700)
    (folder / "zh.txt").write_text("".join(line + "\n" for d in docs for line in d.splitlines()), encoding="utf-8")
    known = dict.fromkeys(MARKS, True)
    runs = collections.Counter(run for d in docs for run in han_runs(d, known))
    (folder / "zh.tsv").write_text("".join(f"{run}\t{n}\n" for run, n in sorted(runs.items())), encoding="utf-8")
    merges, singles = train(runs, 3000, split_by_unicode_script=False)
    check(sum(bool(set(MARKS) & set(piece)) for piece in merges) > 300, "no punctuation in the library's merges")
    for name, settings in {"one": {"set_threads": 1}, "two": {"set_threads": 2}, "counted": {"in_text": folder / "zh.tsv"}}.items():
        settings.setdefault("in_text", folder / "zh.txt")
        stage("vocab.train", folder / name, set_pieces=3000 + len(singles), set_singles="all", set_script="han-marks", **settings)
        sp = spm.SentencePieceProcessor(model_file=str(folder / name / "tokenizer.model"))
        ours = [sp.id_to_piece(i) for i in range(259, len(sp))]
        first = next((i for i in range(3000) if ours[i] != merges[i]), None)
        check(first is None, f"{name}: merge {first}: ours {ours[first or 0]}, sentencepiece's {merges[first or 0]}")
        check(set(ours[3000:]) == set(singles), f"{name}: the single characters differ")
    stage("vocab.train", folder / "new", in_text=folder / "zh.txt", in_base=MISTRAL, set_pieces=3000, set_script="han-marks")
    report = stage("vocab.merge", folder / "merged", in_base=MISTRAL, in_extra=folder / "new", set_script="han-marks")
    check(report["added"] == 3000 and report["dropped"] == 0, str(report))
    mixed = sum(bool(set(MARKS) & set(row["piece"])) for row in csv.DictReader(open(folder / "merged" / "added_pieces.tsv", encoding="utf-8"), delimiter="\t", quoting=csv.QUOTE_NONE))
    check(mixed > 200, f"{mixed} pieces hold punctuation")
    report = stage("vocab.check", folder / "checked", in_old=MISTRAL, in_new=folder / "merged",
                   in_text=(QUICKSTART / "text" / "en.valid.jsonl.zst", folder / "zh.txt"))
    check(report["identity_proved"] and report["differing"] == 0 and report["lint_errors"] == 0, str(report)[:500])
    check(stage("vocab.merge", folder / "plain", in_base=MISTRAL, in_extra=folder / "new")["dropped"] >= mixed, "script: han keeps punctuation")


LARGE_TEXT = os.environ.get("HANMIX_LARGE_TEXT")  # the text of golden/data/bpe/large.json, which is not kept here


def merge_list_of_a_large_text(folder):
    """20 MB: the recorded list of the library, for both numbers of threads, with and without a memory limit, and however the text is cut."""
    text = LARGE_TEXT
    recorded = json.loads((GOLDEN / "bpe" / "large.json").read_text())
    data = pathlib.Path(text).read_bytes()
    check(hashlib.sha256(data).hexdigest() == recorded["text_sha256"], f"{text} is another text")
    lines = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read().splitlines(keepends=True)
    for n in (3, 7):
        for i in range(n):
            (folder / f"cut{n}.{i}.jsonl").write_bytes(b"".join(lines[i::n]))
    merges = recorded["merges"]
    for name, settings in {"whole": {"set_threads": 2}, "one": {"set_threads": 1}, "limit": {"set_memory": "160M"},
                           "cut3": {"in_text": folder / "cut3.*.jsonl"}, "cut7": {"in_text": folder / "cut7.*.jsonl"}}.items():
        settings.setdefault("in_text", text)
        stage("vocab.train", folder / name, set_pieces=merges + recorded["distinct_characters"], set_singles="all", **settings)
        rows = (folder / name / "pieces.tsv").read_text(encoding="utf-8").splitlines()[1:merges + 1]
        listed = "".join(row.split("\t", 1)[1] + "\n" for row in rows)
        check(hashlib.sha256(listed.encode()).hexdigest() == recorded["list_sha256"], f"{name}: not the list of sentencepiece")


if LARGE_TEXT:
    test(merge_list_of_a_large_text)


@test
def standard_list_of_characters(folder):
    """All 8105 are pieces, most of them unseen in the text, and Mixtral's part of each level is what the standard's readers count."""
    listed = GOLDEN.parent.parent.parent / "recipes" / "characters" / "standard-8105.txt"
    lines = [line for line in listed.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    characters = "".join(lines)
    base = spm.SentencePieceProcessor(model_file=str(MISTRAL))
    known = {base.id_to_piece(i) for i in range(259, len(base))}
    levels = characters[:3500], characters[3500:6500], characters[6500:]
    check([len(level) for level in levels] == [3500, 3000, 1605] and len(set(characters)) == 8105, "levels")
    check([sum(c in known for c in level) for level in levels] == [1246, 3, 1], "Mixtral's part of the levels")
    text = QUICKSTART / "text" / "zh.valid.jsonl.zst"
    report = stage("vocab.train", folder / "zh", in_text=text, in_base=MISTRAL, set_pieces=7000, set_singles=listed)
    sp = spm.SentencePieceProcessor(model_file=str(folder / "zh" / "tokenizer.model"))
    pieces = {sp.id_to_piece(i) for i in range(259, len(sp))}
    check(report["singles"] == 8105 - 1250 and set(characters) - known <= pieces, f"{report['singles']} singles")
    said = refused("vocab.train", folder / "few", 2, in_text=text, in_base=MISTRAL, set_pieces=6000, set_singles=listed)
    check("6855 single characters of the list are more than pieces, 6000" in said, said)


def lines_of_all_kinds():
    """At least 20,000 lines: Chinese, English, code, mixed, emoji, controls, runs of spaces."""
    rng = random.Random(7)
    zh = [line for d in documents("zh.jsonl.zst") for line in d.splitlines()][:9000]
    en = [line for d in documents("en.jsonl.zst") for line in d.splitlines()][:6000]
    code = [line for path in sorted(CODE) for line in path.read_text(encoding="utf-8").splitlines()]
    mixed = [rng.choice(zh)[:40] + rng.choice(["", " ", "  ", "\t", "，", "😀"]) + rng.choice(en)[:60] for _ in range(3000)]
    spaces = [" " * rng.randint(0, 40) + rng.choice(en)[:20] + " " * rng.randint(0, 40) for _ in range(500)]
    hard = [s for s in FIXED + long_strings(400) + random_strings(torch.Generator().manual_seed(3), 2500) if "\n" not in s and "\r" not in s and "\0" not in s]
    return zh + en + code + mixed + spaces + hard


def merged(folder, pieces=3000):
    stage("vocab.train", folder / "zh", in_text=QUICKSTART / "text" / "zh.jsonl.zst", in_base=MISTRAL, set_pieces=pieces)
    return stage("vocab.merge", folder / "merged", in_base=MISTRAL, in_extra=folder / "zh")


def check_sweep(folder, script, lines):
    text, held_out = QUICKSTART / "text" / "zh.jsonl.zst", QUICKSTART / "text" / "zh.valid.jsonl.zst"
    folder.mkdir()
    stage("vocab.sweep", folder / "sweep", in_text=text, in_held_out=held_out, in_base=MISTRAL, set_pieces="1500,3000", set_singles="700,auto", set_script=script)
    with open(folder / "sweep" / "alp.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    check(len(rows) == 4, f"{len(rows)} rows")
    for i, row in enumerate(rows):
        singles = "auto" if row["rule"] == "auto" else row["singles"]
        stage("vocab.train", folder / f"zh{i}", in_text=text, in_base=MISTRAL, set_pieces=row["pieces"], set_singles=singles, set_script=script)
        stage("vocab.merge", folder / f"merged{i}", in_base=MISTRAL, in_extra=folder / f"zh{i}", set_script=script)
        sp = spm.SentencePieceProcessor(model_file=str(folder / f"merged{i}" / "tokenizer.model"))
        counts = np.array(sorted(collections.Counter(id for ids in sp.encode(lines) for id in ids).values()), dtype=np.float64)
        total = counts.sum()
        entropy = np.log(total) - (counts * np.log(counts)).sum() / total
        check(int(row["tokens"]) == total, f"{script}, {row['pieces']} pieces: {row['tokens']} tokens, {total} by sentencepiece")
        check(int(row["vocab_size"]) == len(sp), f"{script}: {row['vocab_size']} pieces, the model has {len(sp)}")
        check_close("ALP", float(row["alp"]), -total / len(lines) * entropy, 1e-7)


@test
def sweep_equals_sentencepiece(folder):
    """Every scored vocabulary is made, and the held-out lines are encoded by sentencepiece, one by one."""
    lines = [line for d in documents("zh.valid.jsonl.zst") for line in d.split("\n") if line]
    for script in ("han", "han-marks"):
        check_sweep(folder / script, script, lines)


@test
def every_loader_encodes_alike(folder):
    from transformers import LlamaTokenizer, LlamaTokenizerFast
    report = merged(folder)
    check(report["base_pieces"] == 32000 and report["added"] == 3000 and report["vocab_size"] == 35000, str(report))
    path = folder / "merged"
    lines = lines_of_all_kinds()
    check(len(lines) >= 20000, f"only {len(lines)} lines")
    sp = spm.SentencePieceProcessor(model_file=str(path / "tokenizer.model"))
    base = spm.SentencePieceProcessor(model_file=str(MISTRAL))
    fast, slow = LlamaTokenizerFast.from_pretrained(str(path)), LlamaTokenizer.from_pretrained(str(path))
    ours = [list(map(int, row.split())) for row in
            hanmix("encode", "--tokenizer", path, text="".join(l + "\n" for l in lines).encode("utf-8")).decode().split("\n")[:len(lines)]]
    reference = sp.encode(lines)
    check(len(ours) == len(lines), f"{len(ours)} lines of ids for {len(lines)} lines")
    bad = [i for i in range(len(lines)) if ours[i] != reference[i]]
    check(not bad, f"ours differs from sentencepiece in {len(bad)} lines, first {lines[bad[0] if bad else 0]!r}")
    special = ("<s>", "</s>", "<unk>")  # transformers takes these for control symbols, sentencepiece for text
    plain = [i for i, line in enumerate(lines) if not any(s in line for s in special)]
    got = fast([lines[i] for i in plain], add_special_tokens=False)["input_ids"]
    bad = [i for i, ids in zip(plain, got) if ids != reference[i]]
    check(not bad, f"LlamaTokenizerFast differs in {len(bad)} lines, first {lines[bad[0] if bad else 0]!r}")
    bad = [i for i in plain if slow(lines[i], add_special_tokens=False)["input_ids"] != reference[i]]
    check(not bad, f"LlamaTokenizer differs in {len(bad)} lines, first {lines[bad[0] if bad else 0]!r}")
    no_han = [line for line in lines if not any(True for _ in han_runs(line))]
    changed = [line for line in no_han if sp.encode(line) != base.encode(line)]
    check(not changed, f"{len(changed)} lines without Han characters changed, first {changed[:1]}")
    alone = [p for p in (sp.id_to_piece(i) for i in range(32000, 35000)) if sp.encode(p)[-1] != sp.piece_to_id(p) or len(sp.encode(p)) > 2]
    check(not alone, f"pieces that do not encode to themselves: {alone[:5]}")
    print(f"    {len(lines)} lines, {len(no_han)} without Han characters")


@test
def merges_are_those_of_transformers(folder):
    """tokenizer.json written from nothing: vocabulary and merges, in order, as transformers converts the model itself."""
    from transformers import LlamaTokenizerFast
    merged(folder, 1500)
    alone = folder / "alone"
    alone.mkdir()
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(folder / "merged" / name, alone / name)
    LlamaTokenizerFast.from_pretrained(str(alone)).save_pretrained(str(folder / "theirs"))
    ours, theirs = (json.loads((folder / d / "tokenizer.json").read_text(encoding="utf-8")) for d in ("merged", "theirs"))
    check(ours["model"]["vocab"] == theirs["model"]["vocab"], "the vocabularies differ")
    first = next((i for i, (a, b) in enumerate(zip(ours["model"]["merges"], theirs["model"]["merges"])) if a.split(" ") != list(b)), None)
    check(first is None and len(ours["model"]["merges"]) == len(theirs["model"]["merges"]), f"merge {first} differs")
    for key in ("added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder"):
        check(ours[key] == theirs[key], f"{key}: {ours[key]}")


@test
def base_folder_is_extended(folder):
    """A folder that transformers saved, as base: its tokenizer.json keeps all it had, and every loader still agrees."""
    from transformers import LlamaTokenizer, LlamaTokenizerFast
    base = folder / "base"
    LlamaTokenizerFast.from_pretrained(str(QUICKSTART / "base")).save_pretrained(str(base))
    shutil.copy(QUICKSTART / "base" / "tokenizer.model", base)
    stage("vocab.train", folder / "zh", in_text=QUICKSTART / "text" / "zh.valid.jsonl.zst", set_pieces=800)
    stage("vocab.merge", folder / "merged", in_base=base, in_extra=folder / "zh")
    before, after = (json.loads((d / "tokenizer.json").read_text(encoding="utf-8")) for d in (base, folder / "merged"))
    n = len(before["model"]["merges"])
    check(after["model"]["merges"][:n] == before["model"]["merges"] and len(after["model"]["merges"]) > n, "the base's merges are not a prefix")
    for d in (before, after):
        del d["model"]["merges"], d["model"]["vocab"]
    check(before == after, "more than vocabulary and merges changed")
    check((base / "tokenizer_config.json").read_bytes() == (folder / "merged" / "tokenizer_config.json").read_bytes(), "tokenizer_config.json changed")
    sp = spm.SentencePieceProcessor(model_file=str(folder / "merged" / "tokenizer.model"))
    fast, slow = (kind.from_pretrained(str(folder / "merged")) for kind in (LlamaTokenizerFast, LlamaTokenizer))
    for line in lines_of_all_kinds()[::7]:
        if not any(s in line for s in ("<s>", "</s>", "<unk>")):
            ids = sp.encode(line)
            check(fast.encode(line, add_special_tokens=False) == ids and slow.encode(line, add_special_tokens=False) == ids, f"{line!r} differs")


@test
def invalid_utf8_as_sentencepiece(folder):
    sp = spm.SentencePieceProcessor(model_file=str(MISTRAL))
    rows = [b for b in invalid_bytes(torch.Generator().manual_seed(5)) if b"\n" not in b and b"\r" not in b and b"\0" not in b]
    ours = hanmix("encode", "--tokenizer", MISTRAL, text=b"".join(r + b"\n" for r in rows)).decode().split("\n")
    for row, line in zip(rows, ours):
        check(list(map(int, line.split())) == sp.encode(row), f"{row!r}: ours {line}, sentencepiece's {sp.encode(row)}")


@test
def decode_is_the_reverse(folder):
    lines = [line for line in lines_of_all_kinds()[::37] if "▁" not in line]
    sp = spm.SentencePieceProcessor(model_file=str(MISTRAL))
    ids = hanmix("encode", "--tokenizer", MISTRAL, text="".join(l + "\n" for l in lines).encode())
    back = hanmix("decode", "--tokenizer", MISTRAL, text=ids).decode("utf-8").split("\n")
    for line, text in zip(lines, back):
        check(text == sp.decode(sp.encode(line)), f"{line!r} came back as {text!r}")


@test
def mean_upstream_reproduces_the_published_rule(folder):
    """Means over old_tokenizer(new_tokenizer.decode([id])), <s> and the dummy prefix included, in the script's own torch arithmetic: every bit."""
    from transformers import LlamaTokenizer
    base = QUICKSTART / "base"
    stage("vocab.train", folder / "zh", in_text=QUICKSTART / "text" / "zh.valid.jsonl.zst", set_pieces=400)
    stage("vocab.merge", folder / "merged", in_base=base, in_extra=folder / "zh")
    stage("vocab.resize", folder / "grown", in_model=base, in_old=base, in_new=folder / "merged", set_init="mean_upstream", set_noise=0)
    old, new = LlamaTokenizer.from_pretrained(str(base)), LlamaTokenizer.from_pretrained(str(folder / "merged"))
    before, after = tensors(base), tensors(folder / "grown")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        rows = before[name].shape[0]
        check(torch.equal(before[name], after[name][:rows]), f"{name}: old rows changed")
        for i in range(rows, after[name].shape[0]):
            ids = old(new.decode([i]))["input_ids"]
            check(torch.equal(sum([before[name][k] for k in ids]) / len(ids), after[name][i]), f"{name}: row {i} is not the mean of {ids}")
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(str(folder / "grown"), dtype=torch.float32)
    check(model.config.vocab_size == after["lm_head.weight"].shape[0], "config.vocab_size")


@test
def static_proof_and_ranked_scores(folder):
    """Every added piece holds a Han code point; scores fall strictly, below all of the base's; vocab.check says the same of text."""
    import unicodedata
    merged(folder, 2000)
    sp, base = (spm.SentencePieceProcessor(model_file=str(p)) for p in (folder / "merged" / "tokenizer.model", MISTRAL))
    check(all((sp.id_to_piece(i), sp.get_score(i)) == (base.id_to_piece(i), base.get_score(i)) for i in range(32000)), "a piece of the base changed")
    scores = [sp.get_score(i) for i in range(32000, len(sp))]
    lowest = min(s for s in (base.get_score(i) for i in range(259, 32000)) if s > -1e9)  # pieces of spaces stand at -1e9
    check(scores[0] < lowest and all(a > b for a, b in zip(scores, scores[1:])), "scores do not fall below the base's")
    for i in range(32000, len(sp)):
        check(any("CJK" in unicodedata.name(c, "") for c in sp.id_to_piece(i)), f"{sp.id_to_piece(i)!r} holds no Han character")
    added = [line.split("\t") for line in (folder / "merged" / "added_pieces.tsv").read_text(encoding="utf-8").splitlines()]
    check([p for row in added for p in row if p in {sp.id_to_piece(i) for i in range(32000, len(sp))}] == [sp.id_to_piece(i) for i in range(32000, len(sp))], "added_pieces.tsv")
    report = stage("vocab.check", folder / "check", in_old=MISTRAL, in_new=folder / "merged", in_text__zh=QUICKSTART / "text" / "zh.jsonl.zst",
                   in_text__en=QUICKSTART / "text" / "en.jsonl.zst")
    lines = [line for name in ("zh", "en") for d in documents(f"{name}.jsonl.zst") for line in d.split("\n") if line]
    check(report["differing"] == 0 and report["lint"] == [] and report["every_new_piece_has_han"], str(report)[:300])
    check(report["lines"] == len(lines) and report["han_lines"] == sum(any(True for _ in han_runs(line)) for line in lines), f"{report['lines']} lines, {report['han_lines']} with Han; {len(lines)}")


@test
def measure_counts_as_sentencepiece(folder):
    merged(folder, 1000)
    report = stage("vocab.measure", folder / "eff", in_text__zh=QUICKSTART / "text" / "zh.valid.jsonl.zst", in_text__en=QUICKSTART / "text" / "en.valid.jsonl.zst",
                   in_tokenizers=f"{MISTRAL},{folder / 'merged'}")
    for path, item in zip((MISTRAL, folder / "merged" / "tokenizer.model"), report["tokenizers"]):
        sp = spm.SentencePieceProcessor(model_file=str(path))
        for name in ("zh", "en"):
            docs = documents(f"{name}.valid.jsonl.zst")
            found = next(s for s in item["sets"] if s["name"] == name)
            ids = [sp.encode(d) for d in docs]
            check(found["tokens"] == sum(map(len, ids)), f"{name}: {found['tokens']} tokens, {sum(map(len, ids))} expected")
            check(found["chars"] == sum(map(len, docs)) and found["bytes"] == sum(len(d.encode()) for d in docs), f"{name}: sizes")
            check(found["byte_fallback_tokens"] == sum(sp.is_byte(i) for row in ids for i in row), f"{name}: byte tokens")
    check_close("reduction", [report["tokenizers"][1]["sets"][0]["reduction_vs_first"]],
                [1 - report["tokenizers"][1]["sets"][0]["tokens"] / report["tokenizers"][0]["sets"][0]["tokens"]], 1e-12)
