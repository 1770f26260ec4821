"""BPE merge lists of sentencepiece's trainer on Han runs: what vocab.train must reproduce, in order."""
import collections
import hashlib
import io
import os
import pathlib
import random
import re
import tempfile

import sentencepiece as spm
import zstandard

import bpe_counts
from common import HERE, save_json, topic_dir, versions, write_readme
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


def train(runs, merges, longest=LONGEST, **settings):
    """The library's merges in order, and the characters; runs is a Counter, given to it as counted text."""
    characters = len(set("".join(runs)))
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "runs.tsv"
        path.write_text("".join(f"{run}\t{n}\n" for run, n in sorted(runs.items())), encoding="utf-8")
        pieces = learn(3 + characters + merges, longest, input=str(path), input_format="tsv", **settings)
    assert len(pieces) == merges + characters and all(len(p) > 1 for p in pieces[:merges])
    return pieces[:merges], pieces[merges:]


def learn(vocab_size, longest, **input):
    """Pieces of the library's trainer, merges first and in order."""
    blob = io.BytesIO()
    spm.SentencePieceTrainer.train(
        model_writer=blob, model_type="bpe", vocab_size=vocab_size, character_coverage=1.0, normalization_rule_name="identity",
        remove_extra_whitespaces=False, add_dummy_prefix=False, split_digits=True, byte_fallback=False,
        max_sentencepiece_length=longest, max_sentence_length=1 << 20, num_threads=1, minloglevel=2,
        **{"split_by_unicode_script": True, **input})
    sp = spm.SentencePieceProcessor(model_proto=blob.getvalue())
    return [sp.id_to_piece(i) for i in range(3, len(sp))]


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


def laughter(rng):
    """Runs of one character up to 200 long, and nested with merges of them and of others."""
    runs = collections.Counter()
    for c in "哈啊呵嘿\U00020000":
        for n in range(1, 201):
            runs[c * n] += rng.randint(1, 9)
    parts = ["哈", "啊", "笑", "了", "我", "哈哈", "哈笑", "笑哈", "我们", "啊哈"]
    for _ in range(6000):
        times = (1, 1, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33)
        runs["".join(rng.choice(parts) * rng.choice(times) for _ in range(rng.randint(1, 8)))] += rng.randint(1, 5)
    return runs


def long_ties(rng):
    """Pieces of up to 16 characters out of four, most of them equally frequent and alike in their beginnings."""
    letters = "一丁\U00020000㐀"
    return collections.Counter({"".join(rng.choice(letters) for _ in range(rng.randint(2, 40))): rng.choice((1, 1, 1, 2)) for _ in range(1500)})


def counted(rng, runs):
    """The runs with counts of a heavy tail, up to 2^40."""
    return collections.Counter({run: int(n * min(2**40, rng.paretovariate(0.35))) for run, n in sorted(runs.items())})


def mixed(rng):
    """Lines of Chinese, English and code, and of pieces of them side by side; no space stands before a Han character, for the library would
    learn pieces that begin with it."""
    zh = [line for doc in documents("zh.valid.jsonl.zst") for line in doc.splitlines()]
    en = [line for doc in documents("en.valid.jsonl.zst") for line in doc.splitlines()]
    code = [line for path in sorted(HERE.glob("*.py")) for line in path.read_text(encoding="utf-8").splitlines()]
    more = "ひらがなカタカナー々〇〡𠀀豈 ﾊﾝｶｸ①㈱한글é\u200b😀１２３"
    kinds = (zh, en, code, [more])
    glued = ["".join(rng.choice(rng.choice(kinds))[:rng.randint(1, 30)] for _ in range(rng.randint(2, 6))) for _ in range(1500)]
    lines = zh + en + code + glued
    rng.shuffle(lines)
    spaces = re.compile(f"[ \t\u2581]+(?=[{''.join(chr(lo) + '-' + chr(hi) for lo, hi in HAN_CLASS)}])")
    return [line for line in (spaces.sub("", line).replace("\t", " ") for line in lines) if line]


def save_text(folder, name, text):
    """Plain when it is short, else compressed."""
    data = text.encode()
    if len(data) < 1 << 15:
        (folder / name).write_bytes(data)
    else:
        (folder / (name + ".zst")).write_bytes(zstandard.ZstdCompressor(level=19).compress(data))


def save_merges(folder, name, made, runs, longest):
    """Pieces in the library's order with the counts of the definition, which must give the same pieces."""
    counted = bpe_counts.train(runs, len(made), longest)
    assert [piece for piece, _ in counted] == made, name
    save_text(folder, f"{name}.merges.tsv", "".join(f"{piece}\t{count}\n" for piece, count in counted))


def facts(runs, merges, longest):
    text = "".join(runs)
    return {"runs": sum(runs.values()), "distinct_runs": len(runs), "characters": sum(len(r) * n for r, n in runs.items()),
            "distinct_characters": len(set(text)), "merges": merges, "max_piece_chars": longest}


def large(path, merges):
    """Facts of a text that is not kept here: digests of the file and of its list, a line "piece<TAB>count" a merge."""
    with open(path, "rb") as raw:
        digest = hashlib.file_digest(raw, "sha256").hexdigest()
    runs = collections.Counter(run for doc in documents(path) for run in han_runs(doc))
    made, _ = train(runs, merges)
    counted = bpe_counts.train(runs, merges, LONGEST)
    assert [piece for piece, _ in counted] == made, path
    listed = "".join(f"{piece}\t{count}\n" for piece, count in counted)
    return facts(runs, merges, LONGEST) | {"text_sha256": digest, "list_sha256": hashlib.sha256(listed.encode()).hexdigest()}


def main(seed, preset, out):
    folder = topic_dir(out, "bpe")
    rng = random.Random(seed)
    zh = collections.Counter(run for doc in documents("zh.jsonl.zst") for run in han_runs(doc))
    held = collections.Counter(run for doc in documents("zh.valid.jsonl.zst") for run in han_runs(doc))
    result = {"versions": versions(), "cases": {}}
    cases = [("quickstart", zh, 20000, 8), ("held_out", held, 1500, 8), ("repeats", repeats(rng), 60, 8), ("ties", ties(rng), 400, 8),
             ("laughter", laughter(rng), 800, 16), ("long_ties", long_ties(rng), 3000, 16), ("counted", counted(rng, held), 3000, 8)]
    for name, runs, merges, longest in cases:
        save_merges(folder, name, train(runs, merges, longest)[0], runs, longest)
        if name not in ("quickstart", "held_out"):
            save_text(folder, f"{name}.tsv", "".join(f"{r}\t{n}\n" for r, n in sorted(runs.items())))
        result["cases"][name] = facts(runs, merges, longest)
    lines = mixed(rng)
    runs = collections.Counter(run for line in lines for run in han_runs(line))
    pieces = learn(3 + len(set("".join(lines).replace(" ", "\u2581"))) + 6000, 8, sentence_iterator=iter(lines))
    made = [p for p in pieces if len(p) > 1 and all(map(is_han_class, p))]
    save_merges(folder, "mixed", made, runs, 8)
    save_text(folder, "mixed.txt", "".join(line + "\n" for line in lines))
    result["cases"]["mixed"] = facts(runs, len(made), 8)
    if os.environ.get("HANMIX_LARGE_TEXT"):
        save_json(folder / "large.json", {"versions": versions()} | large(os.environ["HANMIX_LARGE_TEXT"], 20000))
    save_json(folder / "results.json", result)
    write_readme(folder, f"""
# bpe: merge lists of sentencepiece {versions()['sentencepiece']} on Han runs

`NAME.merges.tsv`: the trainer's merges in order and what each counted when it was merged. The library does not tell counts: they are those of `bpe_counts.py`, a
plain trainer from the definition, whose list is asserted to be the library's. Input: the longest stretches of Han-class characters (make_bpe.HAN_CLASS) of the
text as counted text (`input_format=tsv`), coverage 1.0, identity, no dummy prefix. Longer files are compressed (.zst).

| name | text |
|---|---|
| `quickstart`, `held_out` | zh.jsonl.zst (3.4 MB of Han characters) and zh.valid.jsonl.zst of examples/quickstart/text |
| `repeats.tsv`, `laughter.tsv` | runs of one character, alone and nested with other merges; `laughter`: up to 200 long, pieces of 16 characters |
| `ties.tsv`, `long_ties.tsv` | nearly all counts equal: fewer characters first, then bytes; `long_ties`: pieces of 16 characters alike in their beginnings |
| `counted.tsv` | counts of a heavy tail, up to 2^40 |
| `mixed.txt` | lines of Chinese, English and code as they are: the library's merges of Han-class characters, in their order among all others |

`large.json`: a text of 20 MB that is not kept here, by its digest, with the digest of its list (made with HANMIX_LARGE_TEXT=zh.20MB.jsonl.zst;
`interop_vocab.py` compares when that variable names the file). `results.json`: numbers of runs and characters. Tolerance: none.
""")
