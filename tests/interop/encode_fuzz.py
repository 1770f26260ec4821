# SPDX-License-Identifier: MIT
"""encode_fuzz.py DOCUMENTS MODEL...: random documents of any bytes, our encoder against sentencepiece, 0 differences; other models are passed over.

A document joins parts of one to five kinds: real Chinese, English and code, pieces of the model, names of meta pieces, characters that a normaliser
would change, control characters, NUL, U+2581, U+FEFF, U+FFFD, surrogates and other malformed UTF-8, Han of four bytes, kana, marks, runs, spaces.
"""
import pathlib
import random
import struct
import subprocess
import sys
import time

import numpy as np
import sentencepiece as spm

from harness import GOLDEN, PROGRAM, ROOT, check, documents, test

PROGRAM_IDS = PROGRAM.parent.parent / "tests" / "support" / "encode_ids"
BATCH = 20_000
MODELS = GOLDEN / "tokenizers" / "models"


def coded(codes):
    return [chr(c).encode() for c in codes]


def snippets(rng, text, count, most):
    starts = [rng.randrange(len(text)) for _ in range(count)]
    return [text[a:a + rng.randint(1, most)].encode() for a in starts]


def kinds_of(sp, rng):
    zh, en = ("\n".join(documents(name, 300)) for name in ("zh.jsonl.zst", "en.jsonl.zst"))
    code = "\n".join(path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("vocab/*.c")))
    meta = [sp.id_to_piece(i).encode() for i in range(len(sp)) if not (i > 260 and not sp.is_control(i))]
    return [
        snippets(rng, zh, 4000, 12), snippets(rng, en, 4000, 30), snippets(rng, code, 2000, 30),
        [sp.id_to_piece(i).encode() for i in range(len(sp))],
        [sp.id_to_piece(i).replace("\u2581", " ").encode() for i in range(len(sp))],
        meta + [b"<s>", b"</s>", b"<unk>", b"<0x41>", b"<0x0A>", b"<0xFF>", b"<0x41", b"[INST]", b"[/INST]", b"[INST", b"<s", b"unk>", b"<pad>", b"<|im_start|>"],
        coded(range(0x20)) + [b"\x7f", b"\0", b"\r\n", b"\n\n", b"\t\t"] + coded(range(0x80, 0xa1)),
        coded([0x2581, 0xfeff, 0xfffd, 0xfffe, 0xffff, 0x200b, 0x200d, 0x2028, 0x3000, 0xa0, 0x2585, 0x10ffff, 0xe000]) + [b"\xe2\x96\x81\xe2\x96\x81", b" \xe2\x96\x81", b"\xe2\x96\x81 "],
        coded(list(range(0xff01, 0xff9f)) + list(range(0x2460, 0x2500)) + list(range(0x3300, 0x3400)) + list(range(0xfb00, 0xfb07)) + [0xbd, 0x2103, 0x1e9b, 0x130, 0xdf]),
        [b"e\xcc\x81", b"\xe1\x84\x80\xe1\x85\xa1", b"a\xcc\x80\xcc\x81"] + coded(range(0x300, 0x370)) + coded([0xfe0f, 0x1f3fb, 0x1f3ff]),
        [bytes([b]) for b in range(0x80, 0x100)] + [bytes([rng.randrange(256), rng.randrange(256)]) for _ in range(500)],
        [b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xed\xa0\xbd\xed\xb8\x80", b"\xc0\x80", b"\xc1\xbf", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80",
         b"\xe4\xb8", b"\xe4", b"\xf0\x9f\x98", b"\xf0\x9f", b"\xe2\x96", b"\xe2", b"\xef\xbf", b"\xef\xbb\xbf"],
        coded(range(0x20000, 0x20400)) + coded(range(0x2a700, 0x2a800)) + coded(range(0x30000, 0x30080)) + coded(range(0x1f600, 0x1f650)),
        coded(range(0x3041, 0x3100)) + coded(range(0xac00, 0xac80)) + coded(range(0x410, 0x450)),
        coded(range(0x4e00, 0x9fa6)),
        [(c * rng.randint(2, 70)).encode() for c in "=-_*. 哈的一aA0\n\t▁😀" for _ in range(20)] + [("的人" * 9).encode(), b"ab" * 30, b"\xff" * 30],
        [b" ", b"  ", b"   ", b"       ", b" \n", b"\n ", b"a ", b" a"],
    ]


def batch_of(rng, kinds, count):
    docs = []
    for _ in range(count):
        chosen = [rng.choice(kinds) for _ in range(rng.randint(1, 5))]
        length = rng.randint(0, 14) if rng.random() < 0.98 else rng.randint(100, 400)
        parts = [rng.choice(rng.choice(chosen)) for _ in range(length)]
        ends = rng.random()
        docs.append((b" " * rng.randint(1, 3) if ends < 0.1 else b"") + b"".join(parts) + (b" " * rng.randint(1, 3) if ends > 0.9 else b""))
    return docs


def our_ids(model, docs):
    data = b"".join(part for d in docs for part in (struct.pack("<I", len(d)), d))
    answer = np.frombuffer(subprocess.run([PROGRAM_IDS, model], input=data, stdout=subprocess.PIPE, check=True).stdout, "<i4")
    at = 0
    for _ in docs:
        n = int(answer[at])
        yield answer[at + 1:at + 1 + n].tolist()
        at += 1 + n


def is_ours(model):
    return subprocess.run([PROGRAM_IDS, model], input=b"", capture_output=True).returncode == 0


def compare(model, count, seed=1):
    """How many documents, bytes and ids were compared; the first document that differs is an error."""
    rng = random.Random(seed)
    sp = spm.SentencePieceProcessor(model_file=str(model))
    kinds = kinds_of(sp, rng)
    done = ids = size = 0
    while done < count:
        docs = batch_of(rng, kinds, min(BATCH, count - done))
        for n, (doc, ours, theirs) in enumerate(zip(docs, our_ids(model, docs), sp.encode(docs))):
            check(ours == theirs, f"{pathlib.Path(model).name}, document {done + n}, {doc!r}: ours {ours}, sentencepiece {theirs}")
            ids += len(ours)
            size += len(doc)
        done += len(docs)
    return done, size, ids


@test
def ids_of_any_bytes_are_sentencepieces(folder):
    models = [model for model in sorted(MODELS.glob("*.model")) if is_ours(model)]
    check(len(models) >= 2, f"only {models} are encoded by hanmix")
    for model in models:
        done, size, ids = compare(model, 20_000)
        print(f"    {model.name}: {done} documents, {size} bytes, {ids} ids equal")


VARIANTS = {  # settings of sentencepiece's trainer, and whether hanmix encodes with the model itself
    "plain": ({}, True),
    "no_byte_fallback": ({"byte_fallback": False}, True),
    "no_dummy_prefix": ({"add_dummy_prefix": False}, True),
    "user_defined": ({"user_defined_symbols": ["<sep>", "的", "ab", "<0x"]}, True),
    "user_defined_space": ({"user_defined_symbols": ["a b"]}, False),
    "extra_whitespaces": ({"remove_extra_whitespaces": True}, False),
    "suffix": ({"treat_whitespace_as_suffix": True}, False),
    "nfkc": ({"normalization_rule_name": "nmt_nfkc"}, False),
    "unigram": ({"model_type": "unigram"}, False),
}


@test
def models_of_other_settings(folder):
    """What the encoder claims is sentencepiece's, id for id; the rest is left to the library."""
    text = [line for name in ("zh.jsonl.zst", "en.jsonl.zst") for d in documents(name, 60) for line in d.splitlines() if line]
    for name, (settings, ours) in VARIANTS.items():
        settings = {"model_type": "bpe", "vocab_size": 4000, "character_coverage": 0.98, "byte_fallback": True, "normalization_rule_name": "identity",
                    "remove_extra_whitespaces": False, "hard_vocab_limit": False, "minloglevel": 2} | settings
        spm.SentencePieceTrainer.train(sentence_iterator=iter(text), model_prefix=str(folder / name), **settings)
        check(is_ours(folder / f"{name}.model") == ours, f"{name}: hanmix encodes {not ours}, expected {ours}")
        if ours:
            compare(folder / f"{name}.model", 3000)
    print(f"    {', '.join(name for name in VARIANTS)}")


if __name__ == "__main__":
    for path in filter(is_ours, sys.argv[2:]):
        began = time.time()
        print(f"{pathlib.Path(path).name}: %d documents, %d bytes, %d ids equal" % compare(path, int(sys.argv[1])), f"({time.time() - began:.0f} s)", flush=True)
