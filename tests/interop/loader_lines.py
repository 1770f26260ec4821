# SPDX-License-Identifier: MIT
"""loader_lines.py MODEL_FOLDER [LINES [TEXT_FOLDER]]: every loader of a merged vocabulary on the same lines of all kinds, 0 differences.

Lines (1,000,000 unless said) are cut and mixed by a fixed generator from zh.jsonl.zst and en.jsonl.zst of TEXT_FOLDER (else of the quickstart).
Compared: sentencepiece, hanmix encode, LlamaTokenizerFast and LlamaTokenizer from the folder, and the loop over scores of tests/support.
"""
import pathlib
import random
import subprocess
import sys
import time

import harness
from harness import PROGRAM, QUICKSTART, ROOT, check

LOOP = PROGRAM.parent.parent / "tests" / "support" / "score_loop_ids"
SPECIAL = ("<s>", "</s>", "<unk>")  # transformers and llama.cpp take these for control symbols, sentencepiece for text
EMOJI = ["😀", "👩‍👩‍👧", "🇨🇳", "❤️", "🤦🏽‍♂️", "☃", "𝔘𝔫𝔦", "𠮷", "\U000E0067"]
CONTROL = [chr(c) for c in range(1, 32) if c not in (10, 13)] + ["\x7f", "\x85", "\u200b", "\u200d", "\u2028", "\ufeff", "\u202e", "\ufffd"]
SPACES = ["\u3000", "\t", " ", "  ", "\u00a0", "▁", "▁▁", " ▁", "▁ "]


def texts(folder):
    zh = "\n".join(harness.documents_of(pathlib.Path(folder) / "zh.jsonl.zst", 20_000_000))
    en = "\n".join(harness.documents_of(pathlib.Path(folder) / "en.jsonl.zst", 20_000_000))
    code = "\n".join(path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("*/*.c")) + sorted((ROOT / "tests").glob("*/*.py")))
    return zh, en, code


def lines(count, folder=QUICKSTART / "text", seed=20):
    """The same lines for the same count and folder; no line feeds, carriage returns or NUL, which end lines or texts elsewhere."""
    rng = random.Random(seed)
    zh, en, code = texts(folder)

    def part(text, most):
        at = rng.randrange(len(text))
        return text[at:at + rng.randint(1, most)].replace("\n", " ").replace("\r", " ").replace("\0", " ")

    def run():
        what = rng.choice([part(zh, 1), part(en, 1), "=", "-", "_", "哈", "一", " ", "\t", "▁", "0", "😀", part(zh, 3), part(en, 4)])
        return what * rng.choice([2, 3, 5, 8, 16, 17, 40, 100])

    def odd():
        return "".join(rng.choice([rng.choice(EMOJI), rng.choice(CONTROL), rng.choice(SPACES), part(zh, 6), part(en, 10), chr(rng.choice(PLANES))])
                       for _ in range(rng.randint(1, 12)))

    kinds = [(30, lambda: part(zh, 90)), (22, lambda: part(en, 150)), (12, lambda: code_line()), (12, lambda: part(zh, 20) + rng.choice(SPACES + [""]) + part(en, 30) + part(zh, 9)),
             (6, run), (8, odd), (4, lambda: " " * rng.randint(0, 30) + part(en, 20) + " " * rng.randint(0, 30)), (3, lambda: rng.choice(SPACES + EMOJI + CONTROL + [""])),
             (3, lambda: run() + part(zh, 8) + run())]
    source = [line for line in code.split("\n") if line]

    def code_line():
        return rng.choice(source).replace("\r", " ").replace("\0", " ")

    makers = [maker for weight, maker in kinds for _ in range(weight)]
    return [rng.choice(makers)() for _ in range(count)]


PLANES = [c for c in list(range(0x21, 0x3000, 7)) + list(range(0x3000, 0xd800, 31)) + list(range(0xf900, 0x11000, 13)) + list(range(0x11000, 0x32000, 127))]


def ids_of_lines(command, data, count):
    out = subprocess.run(list(map(str, command)), input=data, stdout=subprocess.PIPE, check=True).stdout.decode().split("\n")
    check(len(out) == count + 1, f"{command[0]}: {len(out) - 1} lines of ids for {count} lines")
    return out


def compare(folder, count, text_folder=QUICKSTART / "text", batch=20000):
    """Differences by loader; also how many lines each was given."""
    import sentencepiece as spm
    from transformers import LlamaTokenizer, LlamaTokenizerFast
    model = pathlib.Path(folder) / "tokenizer.model"
    sp = spm.SentencePieceProcessor(model_file=str(model))
    fast, slow = LlamaTokenizerFast.from_pretrained(str(folder)), LlamaTokenizer.from_pretrained(str(folder))
    all_lines = lines(count, text_folder)
    found = {name: [0, 0, None] for name in ("hanmix", "score loop", "fast", "slow")}

    def note(name, line, ours, reference):
        found[name][0] += 1
        if ours != reference:
            found[name][1] += 1
            found[name][2] = found[name][2] or line

    for at in range(0, count, batch):
        part = all_lines[at:at + batch]
        reference = sp.encode(part, num_threads=2)
        as_text = [" ".join(map(str, ids)) for ids in reference]
        data = "".join(line + "\n" for line in part).encode("utf-8")
        for line, ours, ids in zip(part, ids_of_lines([PROGRAM, "encode", "--tokenizer", folder], data, len(part)), as_text):
            note("hanmix", line, ours, ids)
        plain = [i for i, line in enumerate(part) if not any(s in line for s in SPECIAL)]
        loop = ids_of_lines([LOOP, model], data, len(part))
        rust = fast([part[i] for i in plain], add_special_tokens=False)["input_ids"]
        python = slow([part[i] for i in plain], add_special_tokens=False)["input_ids"]
        for k, i in enumerate(plain):
            note("score loop", part[i], loop[i], as_text[i])
            note("fast", part[i], rust[k], reference[i])
            note("slow", part[i], python[k], reference[i])
    return found


if __name__ == "__main__":
    begin = time.time()
    where = sys.argv[3] if len(sys.argv) > 3 else QUICKSTART / "text"
    result = compare(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000, where)
    for name, (given, differing, first) in result.items():
        print(f"{name}: {differing} of {given} lines differ from sentencepiece" + (f", the first: {first!r}" if differing else ""))
    print(f"{time.time() - begin:.0f} s")
    sys.exit(any(differing for _, differing, _ in result.values()))
