# SPDX-License-Identifier: MIT
"""BPE-dropout of corpus.pack against sentencepiece's: how much longer texts become, and how short texts fall apart."""
import collections
import json
import math

import numpy as np
import sentencepiece as spm

from harness import GOLDEN, check, documents, stage, test

MISTRAL = GOLDEN / "tokenizers" / "models" / "mistral-v1-32000.model"


def packed_documents(folder, texts, rate, seed):
    """Ids of each text as corpus.pack writes them with dropout; the layout is docs/FORMATS.md's."""
    folder.mkdir(parents=True, exist_ok=True)
    padding = ["x"] * 64  # so that no text stands in the remainder that is dropped
    (folder / "in.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts + padding), encoding="utf-8")
    stage("corpus.pack", folder / f"out{seed}", in_text=folder / "in.jsonl", in_tokenizer=MISTRAL, set_seq_len=64, set_eos="false",
          set_bpe_dropout=rate, set_seed=seed)
    data = (folder / f"out{seed}" / "train.hmp").read_bytes()
    record = int.from_bytes(data[28:32], "little")
    windows = (len(data) - 192 - 64) // record
    ids = np.concatenate([np.frombuffer(data, "<u2", 64, 192 + i * record) for i in range(windows)])
    starts = np.flatnonzero(ids == 1)
    return [tuple(map(int, ids[a + 1:b])) for a, b in zip(starts, starts[1:])][:len(texts)]


def sampled(sp, text, rate):
    return tuple(sp.encode(text, enable_sampling=True, alpha=rate, nbest_size=-1))


@test
def dropout_lengthens_text_as_sentencepiece(folder):
    """Tokens of the same documents, four draws each; the sums differ by less than four standard errors."""
    texts = [d[:1500] for name in ("zh.valid.jsonl.zst", "en.valid.jsonl.zst") for d in documents(name, 40)]
    spm.set_random_generator_seed(1)
    sp = spm.SentencePieceProcessor(model_file=str(MISTRAL))
    plain = sum(len(sp.encode(t)) for t in texts)
    for rate in (0.05, 0.1, 0.2, 0.5, 1.0):
        ours = np.array([[len(ids) for ids in packed_documents(folder / str(rate), texts, rate, seed)] for seed in range(4)], dtype=float)
        theirs = np.array([[len(sampled(sp, t, rate)) for t in texts] for _ in range(4)], dtype=float)
        check(ours.shape == theirs.shape, f"{ours.shape} documents, {theirs.shape} expected")
        error = math.sqrt((ours.var(0, ddof=1).sum() + theirs.var(0, ddof=1).sum()) / 4)
        a, b = ours.mean(0).sum(), theirs.mean(0).sum()
        check(abs(a - b) <= 4 * error + 1e-9, f"rate {rate}: {a} tokens, sentencepiece {b}, standard error {error:.1f}")
        print(f"    rate {rate}: {100 * (a / plain - 1):+.2f} % tokens, sentencepiece {100 * (b / plain - 1):+.2f} %")


@test
def dropout_cuts_as_sentencepiece(folder):
    """Chi-square of two samples over the segmentations of short texts."""
    draws = 3000
    spm.set_random_generator_seed(2)
    sp = spm.SentencePieceProcessor(model_file=str(MISTRAL))
    for n, (text, rate) in enumerate((("the cat", 0.1), ("数据获取", 0.3), ("international", 0.2), ("aaaaaa", 0.5), ("a  b", 0.3))):
        ours = collections.Counter(packed_documents(folder / str(n), [text] * draws, rate, 9))
        theirs = collections.Counter(sampled(sp, text, rate) for _ in range(draws))
        both = [(ours[k], theirs[k]) for k in ours.keys() | theirs.keys()]
        common = [p for p in both if sum(p) >= 20]
        rare = tuple(sum(p[i] for p in both if sum(p) < 20) for i in (0, 1))
        classes = common + ([rare] if sum(rare) >= 20 else [])
        chi = sum((a - b) ** 2 / (a + b) for a, b in classes)
        freedom = len(classes) - 1
        check(freedom > 0 and sum(ours.values()) == draws, f"{text!r}: {len(classes)} classes, {sum(ours.values())} texts")
        check(chi <= freedom + 4 * math.sqrt(2 * freedom) + 4, f"{text!r} at {rate}: chi-square {chi:.1f} over {len(classes)} classes")
        print(f"    {text!r} at {rate}: chi-square {chi:.1f}, {freedom} degrees of freedom")
