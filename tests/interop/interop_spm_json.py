# SPDX-License-Identifier: MIT
"""tokenizer.json of SentencePiece's kind against the tokenizers library: what transformers makes of published models, id for id."""
import json
import os
import pathlib
import random

from harness import GOLDEN, check, documents, hanmix, refused, stage, test
from interop_measure import hard_lines, write_lines

MODELS = GOLDEN / "tokenizers" / "models"
NAMES = ("mistral-v1-32000", "mistral-v3-32768")
MORE = [pathlib.Path(name) for name in os.environ.get("HANMIX_BPE_MODELS", "").split(":") if name]  # more .model files, of BPE


def converted(path, legacy, out):
    """As transformers does when a folder has no tokenizer.json: legacy has Prepend and Replace, else Metaspace puts U+2581 before the first word."""
    from transformers import LlamaTokenizer
    from transformers.convert_slow_tokenizer import LlamaConverter
    tokenizer = LlamaConverter(LlamaTokenizer(str(path), legacy=legacy)).converted()
    out.mkdir(exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    return tokenizer


def edge_lines(real):
    """Spaces at the ends, runs of one character, bytes, U+2581 itself, and text that many merges overlap in."""
    rnd = random.Random(5)
    runs = ["=", "-", " ", "\u2581", "\u54c8", "a", "\u7684", "\t", "0", "\U0001f600", ".", "\u3000"]
    lines = ["", " ", "  ", " a", "\u2581a", "\u2581", "a ", "  a  b  ", "\u2581\u2581 x", "a\r", "\x00x", "\ufffd", "<", "<0x0A>", "<unk", "[INST", "\u9f98\u9f98"]
    for length in (2, 3, 5, 15, 16, 17, 31, 33, 47, 48, 49, 64, 333, 3000):
        lines += [run * length for run in runs] + [run * length + "x" + run * (length // 2) for run in runs]
    for _ in range(2000):
        lines.append("".join(rnd.choice(runs + real[rnd.randrange(len(real))].split(" ")[:3]) * rnd.randrange(1, 6) for _ in range(rnd.randrange(1, 9))))
        lines.append("".join(rnd.choice(["\u2581", " ", "\u4e2d\u56fd", "\u56fd\u4eba", "the", "th", "e", "he", "\u4eba\u6c11", "==", "="]) for _ in range(rnd.randrange(1, 30))))
    return [line.replace("\n", "\r") for line in lines]


def added_lines(tokenizer, real):
    """Added tokens, whole and cut, in text and between spaces."""
    rnd = random.Random(3)
    tokens = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    lines = []
    for i in range(1500):
        parts = [rnd.choice([rnd.choice(tokens), rnd.choice(tokens)[1:], " ", "  ", "\u2581", "a", "\u4e2d", rnd.choice(real)[:9]]) for _ in range(rnd.randrange(1, 8))]
        lines.append("".join(parts).replace("\n", "\r"))
    return lines


@test
def converted_models_give_their_ids(folder):
    real = documents("zh.valid.jsonl.zst") + documents("en.valid.jsonl.zst")
    lines = [line for text in real for line in text.split("\n")] + [line.replace("\n", "\r") for line in hard_lines(real, 4000)] + edge_lines(real)
    for model in [MODELS / f"{name}.model" for name in NAMES] + MORE:
        for legacy in (True, False):
            out = folder / f"{model.stem}-{legacy}"
            tokenizer = converted(model, legacy, out)
            told = lines + added_lines(tokenizer, real)
            rows = hanmix("encode", "--tokenizer", out, text="".join(line + "\n" for line in told).encode())
            ours = [[int(token) for token in row.split()] for row in rows.decode().split("\n")[:-1]]
            theirs = [found.ids for found in tokenizer.encode_batch(told, add_special_tokens=False)]
            differing = [i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b]
            check(len(ours) == len(theirs) and not differing, f"{out.name}: {len(differing)} of {len(told)} lines differ, first "
                  f"{told[differing[0]][:80]!r}: {ours[differing[0]][:20]} {theirs[differing[0]][:20]}" if differing else f"{out.name}: {len(ours)} lines")
            print(f"    {out.name}: {len(told)} lines, {sum(map(len, theirs))} ids")


@test
def added_tokens_of_every_kind_give_their_ids(folder):
    """normalized, special, stripping, overlapping, with spaces, beyond the vocabulary; and Metaspace before every word."""
    from tokenizers import AddedToken, pre_tokenizers
    real = documents("zh.valid.jsonl.zst", 100) + documents("en.valid.jsonl.zst", 100)
    for kind in ("legacy", "first", "always", "never"):
        out = folder / kind
        tokenizer = converted(MODELS / "mistral-v1-32000.model", kind == "legacy", out)
        if kind in ("always", "never"):
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind, split=False)
        tokenizer.add_special_tokens([AddedToken("<unk>", normalized=True, special=True), AddedToken("<pad>", normalized=False, special=True)])
        tokenizer.add_tokens([AddedToken("<tool>", normalized=True), AddedToken("<tool>x", normalized=False, rstrip=True), AddedToken("to ol", normalized=True),
                              AddedToken("<l>", normalized=False, lstrip=True), AddedToken(" \u4e2d", normalized=False), AddedToken("<n>", normalized=True, lstrip=True, rstrip=True)])
        tokenizer.save(str(out / "tokenizer.json"))
        lines = added_lines(tokenizer, real) + added_lines(tokenizer, ["to ol", "  <n>  ", " <tool> x", " \u4e2d<l>"])
        rows = hanmix("encode", "--tokenizer", out, text="".join(line + "\n" for line in lines).encode())
        ours = [[int(token) for token in row.split()] for row in rows.decode().split("\n")[:-1]]
        theirs = [found.ids for found in tokenizer.encode_batch(lines, add_special_tokens=False)]
        differing = [i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b]
        check(len(ours) == len(theirs) and not differing, f"{kind}: {len(differing)} of {len(lines)} lines differ, first "
              f"{lines[differing[0]][:80]!r}: {ours[differing[0]][:20]} {theirs[differing[0]][:20]}" if differing else f"{kind}: {len(ours)} lines")


@test
def every_stage_reads_them(folder):
    """Packing, measuring and checking; the model and its conversion give the same tokens where their scores have no ties."""
    model = MODELS / "mistral-v1-32000.model"
    converted(model, True, folder / "json")
    write_lines(folder / "lines.jsonl", documents("zh.valid.jsonl.zst", 100) + documents("en.valid.jsonl.zst", 100))
    packs = [stage("corpus.pack", folder / name, in_text=folder / "lines.jsonl", in_tokenizer=tokenizer, set_seq_len=64)
             for name, tokenizer in (("p0", model), ("p1", folder / "json"))]
    check(packs[0]["tokens"] == packs[1]["tokens"] > 0, f"packed {packs[0]['tokens']} and {packs[1]['tokens']} tokens")
    measured = stage("vocab.measure", folder / "m", in_text=folder / "lines.jsonl", in_tokenizers__a=model, in_tokenizers__b=folder / "json")
    check(measured["tokenizers"][0]["total"]["tokens"] == measured["tokenizers"][1]["total"]["tokens"], "measured tokens differ")
    for old in (model, folder / "json"):
        report = stage("vocab.check", folder / f"c{old.name}", in_text=folder / "lines.jsonl", in_old=old, in_new=folder / "json")
        check(report["differing"] == 0 and not report["lint"] and report["identity_proved"] == (old != model), f"{old}: {report['lint'][:3]}")
    said = refused("corpus.pack", folder / "v", 2, in_text=folder / "lines.jsonl", in_tokenizer=folder / "json", set_verify=1)
    check("which libsentencepiece does not read" in said, said)


@test
def a_vocabulary_that_grew_keeps_its_proof(folder):
    """Conversions of a base and of what vocab.merge made of it; the same with two old merges exchanged is found."""
    base = MODELS / "mistral-v1-32000.model"
    write_lines(folder / "lines.jsonl", documents("zh.valid.jsonl.zst", 200) + documents("en.valid.jsonl.zst", 50))
    stage("vocab.train", folder / "zh", in_text=folder / "lines.jsonl", in_base=base, set_pieces=500)
    stage("vocab.merge", folder / "merged", in_base=base, in_extra=folder / "zh")
    converted(base, True, folder / "old")
    converted(folder / "merged" / "tokenizer.model", True, folder / "new")
    report = stage("vocab.check", folder / "c", in_text=folder / "lines.jsonl", in_old=folder / "old", in_new=folder / "new")
    check(report["identity_proved"] and report["differing"] == 0 and report["lint_errors"] == 0, str(report["lint"][:3]))
    root = json.loads((folder / "new" / "tokenizer.json").read_text())
    merges = root["model"]["merges"]
    merges[40], merges[41] = merges[41], merges[40]
    (folder / "new" / "tokenizer.json").write_text(json.dumps(root))
    report = stage("vocab.check", folder / "d", code=1, in_text=folder / "lines.jsonl", in_old=folder / "old", in_new=folder / "new")
    check(not report["identity_proved"] and any(found["rule"] == "prefix" for found in report["lint"]), str(report["lint"][:3]))


@test
def unigram_conversions_are_refused(folder):
    converted(MODELS / "chinese-llama-chinese_sp-20000.model", True, folder / "json")  # model.vocab is a list
    (folder / "text.txt").write_text("a\n")
    said = refused("vocab.measure", folder / "m", 4, in_text=folder / "text.txt", in_tokenizers=folder / "json")
    check("is no tokenizer.json of a BPE model with vocab and merges" in said, said)
