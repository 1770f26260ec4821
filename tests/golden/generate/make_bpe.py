"""BPE merge lists of sentencepiece's trainer on Han runs: what vocab.train must reproduce, in order."""
import collections
import io
import random

import sentencepiece as spm

from common import save_json, topic_dir, versions, write_readme
from make_tokenizers import documents

# Script=Han of Unicode 9.0, which the library's table holds, and what it counts as Han: Hiragana, Katakana, U+30FC
HAN_CLASS = [(0x2E80, 0x2E99), (0x2E9B, 0x2EF3), (0x2F00, 0x2FD5), (0x3005, 0x3005), (0x3007, 0x3007), (0x3021, 0x3029), (0x3038, 0x303B),
             (0x3400, 0x4DB5), (0x4E00, 0x9FD5), (0xF900, 0xFA6D), (0xFA70, 0xFAD9), (0x20000, 0x2A6D6), (0x2A700, 0x2B734), (0x2B740, 0x2B81D),
             (0x2B820, 0x2CEA1), (0x2F800, 0x2FA1D),
             (0x3041, 0x3096), (0x309D, 0x309F), (0x1B001, 0x1B001), (0x1F200, 0x1F200),
             (0x30A1, 0x30FA), (0x30FC, 0x30FF), (0x31F0, 0x31FF), (0x32D0, 0x32FE), (0x3300, 0x3357), (0xFF66, 0xFF6F), (0xFF71, 0xFF9D), (0x1B000, 0x1B000)]
LONGEST = 8


def is_han_class(c):
    return any(lo <= ord(c) <= hi for lo, hi in HAN_CLASS)


def han_runs(text, known={}):
    """Longest stretches of Han-class characters."""
    run = ""
    for c in text:
        if c not in known:
            known[c] = is_han_class(c)
        if known[c]:
            run += c
        elif run:
            yield run
            run = ""
    if run:
        yield run


def train(runs, merges, longest=LONGEST):
    """The library's merges in order; runs is a Counter."""
    characters = len(set("".join(runs)))
    blob = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=(run for run, n in sorted(runs.items()) for _ in range(n)), model_writer=blob, model_type="bpe",
        vocab_size=3 + characters + merges, character_coverage=1.0, normalization_rule_name="identity", remove_extra_whitespaces=False,
        add_dummy_prefix=False, split_by_unicode_script=True, split_digits=True, byte_fallback=False, max_sentencepiece_length=longest,
        max_sentence_length=1 << 20, num_threads=1, minloglevel=2)
    sp = spm.SentencePieceProcessor(model_proto=blob.getvalue())
    pieces = [sp.id_to_piece(i) for i in range(3, len(sp))]
    assert len(pieces) == merges + characters and all(len(p) > 1 for p in pieces[:merges])
    return pieces[:merges], pieces[merges:]


def repeats(rng):
    """Runs of one character, alone and inside words, of all lengths."""
    runs = collections.Counter()
    for c in "哈啊呵嘿":
        for n in range(1, 20):
            runs[c * n] += rng.randint(1, 9)
    for _ in range(400):
        runs["".join(rng.choice("哈啊笑了我") * rng.choice((1, 1, 2, 3, 5)) for _ in range(rng.randint(1, 6)))] += rng.randint(1, 3)
    return runs


def ties(rng):
    """Few different counts, so that nearly every choice is between equals: length and byte order decide."""
    letters = "一丁七万丈三上下不与丑专且世丘丙业丛东丝\U00020000\U00020001㐀㐁"
    return collections.Counter({"".join(rng.choice(letters) for _ in range(rng.randint(2, 9))): 1 for _ in range(300)})


def main(seed, preset, out):
    folder = topic_dir(out, "bpe")
    rng = random.Random(seed)
    zh = collections.Counter(run for doc in documents("zh.jsonl.zst") for run in han_runs(doc))
    held = collections.Counter(run for doc in documents("zh.valid.jsonl.zst") for run in han_runs(doc))
    result = {"versions": versions(), "max_piece_chars": LONGEST, "cases": {}}
    for name, runs, merges in (("quickstart", zh, 6000), ("held_out", held, 1500), ("repeats", repeats(rng), 60), ("ties", ties(rng), 400)):
        made, singles = train(runs, merges)
        (folder / f"{name}.merges.txt").write_text("".join(p + "\n" for p in made), encoding="utf-8")
        if name in ("repeats", "ties"):
            (folder / f"{name}.tsv").write_text("".join(f"{r}\t{n}\n" for r, n in sorted(runs.items())), encoding="utf-8")
        result["cases"][name] = {"runs": sum(runs.values()), "distinct_runs": len(runs), "characters": sum(len(r) * n for r, n in runs.items()),
                                 "distinct_characters": len(singles), "merges": merges}
    save_json(folder / "results.json", result)
    write_readme(folder, f"""
# bpe: merge lists of sentencepiece {versions()['sentencepiece']} on Han runs

`NAME.merges.txt`: the trainer's merges, one a line, in order. Input: the longest stretches of Han-class characters (make_bpe.HAN_CLASS) of the text,
one run a line, coverage 1.0, identity, no dummy prefix, at most {LONGEST} characters a piece. Texts: `quickstart`, `held_out` = zh.jsonl.zst and zh.valid.jsonl.zst
of examples/quickstart/text; `repeats.tsv` (runs of one character) and `ties.tsv` (most counts equal): run, tab, count.
`results.json`: numbers of runs and characters. Tolerance: none.
""")
