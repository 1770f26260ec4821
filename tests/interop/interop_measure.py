# SPDX-License-Identifier: MIT
"""vocab.measure against sentencepiece and tokenizers: unigram models, and byte-level tokenizer.json of every well-known kind."""
import csv
import json
import random
import re

import numpy as np

from harness import GOLDEN, check, documents, refused, stage, test

BASE = GOLDEN / "tokenizers" / "models" / "mistral-v1-32000.model"

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
GPT4O = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK3 = [r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
             r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"
             r"\s*[\r\n]+|\s+(?!\S)|\s+"]
DEEPSEEK = [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+", r"\s+$",
            "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"]


def kinds():
    from tokenizers import Regex, pre_tokenizers as pre
    isolated = lambda pattern: pre.Split(Regex(pattern), "isolated")
    plain = pre.ByteLevel(add_prefix_space=False, use_regex=False)
    return {
        "gpt2": pre.ByteLevel(add_prefix_space=False),
        "gpt2_prefix": pre.ByteLevel(add_prefix_space=True),
        "llama3": pre.Sequence([isolated(LLAMA3), plain]),
        "qwen2": pre.Sequence([isolated(QWEN2), plain]),
        "gpt4o": pre.Sequence([isolated(GPT4O), plain]),
        "deepseek3": pre.Sequence([isolated(p) for p in DEEPSEEK3] + [plain]),
        "deepseek": pre.Sequence([isolated(p) for p in DEEPSEEK] + [pre.Digits(individual_digits=True), plain]),
        "starcoder": pre.Sequence([pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)]),
        "punctuation": pre.Sequence([pre.Punctuation("contiguous"), pre.ByteLevel(add_prefix_space=False)]),
        "behaviours": pre.Sequence([pre.Split(" ", "merged_with_next"), pre.Split(Regex("[,.;]"), "merged_with_previous"),
                                    pre.Split(Regex(r"\d"), "contiguous"), pre.Split("e", "removed"), plain]),
    }


def hard_lines(real, count):
    """Lines of scripts, spaces, contractions, rare planes and added tokens, in deterministic disorder; no line breaks within."""
    rnd = random.Random(7)
    parts = ("a b c e A 's 'T \u017f \u212a ' 1 2 3 \u00bd \u0663 \t \u00a0 \u3000 \u4e2d \u56fd \u9f98 \U00020000 \U00031350 e\u0301 \u00e9 \U0001f44d "
             "\u200d , . ; ! ? \uff1f \uff0c \u3002 \u2028 \u200b \x1f \ufb01 \u0130 \u00df \u03a9 \u01c5 \u02b0 _ - < > [ ] \\ / <|end|> <|en <sep> "
             "\u2167 \u32bf \u0301 \u1c8a \U0001e6c0 \u166d").split(" ") + [" ", "  ", "   "]
    lines = []
    for i in range(count):
        text = rnd.choice(real)
        at = rnd.randrange(len(text) + 1)
        if i % 4 == 0:
            line = "".join(rnd.choice(parts) for _ in range(rnd.randrange(1, 40)))
        elif i % 4 == 1:
            line = text[at:at + rnd.randrange(200)]
        elif i % 4 == 2:
            spans = [(0x20, 0x250), (0x2000, 0x3100), (0x4e00, 0xa000), (0x10000, 0x1ffff), (0x20000, 0x323b0)]
            line = "".join(chr(rnd.randrange(*rnd.choice(spans))) for _ in range(rnd.randrange(1, 25)))
        else:
            chars = list(text[at:at + 80])
            for _ in range(6):
                chars.insert(rnd.randrange(len(chars) + 1), rnd.choice(parts))
            line = "".join(chars)
        lines.append(line or "x")  # an empty text is no document
    return lines + [" " * 300, "=" * 500, "\u4e2d" * 400, "a" * 1000, " " * 200 + "x", "\n" * 70 + "x", "\r\n \n\t\n x", "'S'" * 50]


def train(pre_tokenizer, texts):
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=4000, special_tokens=["<|end|>", "<|endoftext|>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken("<sep>", lstrip=True, rstrip=True, normalized=False, special=True), AddedToken("<|en"), "\u9f98\u9f98"])
    return tokenizer


def write_lines(path, lines):
    """A set of its own for every line, so that every line's tokens can be told."""
    path.write_text("".join(json.dumps({"text": line, "set": f"{i:05d}"}) + "\n" for i, line in enumerate(lines)))


def tokens_of(tokenizer):
    return [found["tokens"] for found in sorted(tokenizer["sets"], key=lambda item: item["name"])]


@test
def byte_level_tokenizers_count_as_theirs(folder):
    """Tokens of every line, and which ids occur how often over all: 4,008 lines of each of ten kinds of pre-tokenizer."""
    from tokenizers import normalizers
    texts = documents("zh.valid.jsonl.zst", 200) + documents("en.valid.jsonl.zst", 200)
    lines = hard_lines(texts, 4000)
    ours, theirs = {}, {}
    for name, pre_tokenizer in kinds().items():
        tokenizer = train(pre_tokenizer, texts)
        if name == "qwen2":
            tokenizer.normalizer = normalizers.NFC()
        ours[name] = folder / name / "tokenizer.json"
        ours[name].parent.mkdir()
        tokenizer.save(str(ours[name]))
        theirs[name] = [found.ids for found in tokenizer.encode_batch(lines, add_special_tokens=False)]
    write_lines(folder / "lines.jsonl", lines)
    report = stage("vocab.measure", folder / "out", in_text=folder / "lines.jsonl", set_set_field="set",
                   **{f"in_tokenizers__{name}": path if name == "gpt2" else path.parent for name, path in ours.items()})
    for found in report["tokenizers"]:
        expected = theirs[found["name"]]
        differing = [i for i, (a, b) in enumerate(zip(tokens_of(found), expected)) if a != len(b)]
        check(len(found["sets"]) == len(lines) and not differing, f"{found['name']}: {len(differing)} lines differ, the first {differing[:3]}")
        counts = {}
        for ids in expected:
            for token in ids:
                counts[token] = counts.get(token, 0) + 1
        check(found["total"]["pieces_used"] == len(counts), f"{found['name']}: {found['total']['pieces_used']} pieces used, {len(counts)} expected")
    print(f"    {len(lines)} lines in {len(ours)} kinds")


@test
def unicode_classes_are_theirs(folder):
    """A split at each class cuts all code points as the library does: a token a code point, one for each run that no class cuts."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers as pre
    chars = [chr(code) for code in range(0x20, 0x110000) if not 0xd800 <= code < 0xe000]
    lines = ["".join(chars[i:i + 4096]) for i in range(0, len(chars), 4096)]
    classes = ["Lu", "Ll", "Lt", "Lm", "Lo", "M", "Nd", "Nl", "No", "P", "S", "Z", "C", "Han"]
    steps = {name: pre.Split(Regex(r"\p{%s}+" % name), "removed") for name in classes}
    steps["space"] = pre.Split(Regex(r"\s+"), "removed")
    steps["digits"] = pre.Digits(individual_digits=True)
    steps["punctuation"] = pre.Punctuation("isolated")
    plain = pre.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(sorted(pre.ByteLevel.alphabet()))}, merges=[]))
    alphabet = sorted(pre.ByteLevel.alphabet())
    vocab = {char: i for i, char in enumerate(alphabet)}
    pair = next(a + b for a in alphabet for b in alphabet)
    vocab[pair] = len(vocab)
    theirs = {}
    for name, step in steps.items():
        tokenizer.pre_tokenizer = pre.Sequence([step, plain])
        tokenizer.save(str(folder / f"{name}.json"))
        theirs[name] = [len(found.ids) for found in tokenizer.encode_batch(lines, add_special_tokens=False)]
    write_lines(folder / "lines.jsonl", lines)
    report = stage("vocab.measure", folder / "out", in_text=folder / "lines.jsonl", set_set_field="set",
                   **{f"in_tokenizers__{name}": folder / f"{name}.json" for name in steps})
    for found in report["tokenizers"]:
        check(tokens_of(found) == theirs[found["name"]], f"{found['name']}: code points of another class")


@test
def form_c_is_theirs(folder):
    """Every code point, bare, between marks of several classes and behind a letter, after NFC; and marks in every order."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers as pre
    chars = [chr(code) for code in range(0x20, 0x110000) if not 0xd800 <= code < 0xe000]
    rnd = random.Random(3)
    marks = [char for char in chars if normalizers.NFD().normalize_str("a\u0334" + char) != "a\u0334" + char
             or normalizers.NFD().normalize_str("a\u0345" + char) != "a\u0345" + char]
    decomposed = [char for char in chars if normalizers.NFD().normalize_str(char) != char]
    text = [char + "\u0301" + char + "\u0323\u0301a" + char for char in chars]
    text += [normalizers.NFD().normalize_str(char) + rnd.choice(marks) for char in decomposed]
    text += [rnd.choice(decomposed) + "".join(rnd.choice(marks) for _ in range(rnd.randrange(1, 6))) for _ in range(20000)]
    text += ["\u1100\u1161\u11a8 \uac00\u11a8 \u1100\uac00 \u0301\u1161 \u09c7\u09be\u09c7\u0301\u09be"]
    lines = ["x".join(text[i:i + 400]) for i in range(0, len(text), 400)]
    tokenizer = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(sorted(pre.ByteLevel.alphabet()))}, merges=[]))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(folder / "nfc.json"))
    expected = [found.ids for found in tokenizer.encode_batch(lines, add_special_tokens=False)]
    write_lines(folder / "lines.jsonl", lines)
    report = stage("vocab.measure", folder / "out", in_text=folder / "lines.jsonl", set_set_field="set", in_tokenizers=folder / "nfc.json")
    differing = [i for i, (a, b) in enumerate(zip(tokens_of(report["tokenizers"][0]), expected)) if a != len(b)]
    check(len(expected) == len(lines) and not differing, f"{len(differing)} lines differ, the first {differing[:3]}")


@test
def unigram_and_nfkc_models_count_as_theirs(folder):
    """Models that sentencepiece trains here, measured through its library."""
    import sentencepiece
    texts = documents("zh.valid.jsonl.zst", 200) + documents("en.valid.jsonl.zst", 100)
    lines = hard_lines(texts, 2000)
    models = {"unigram": dict(model_type="unigram", byte_fallback=True, normalization_rule_name="identity"),
              "unigram_nfkc": dict(model_type="unigram"),
              "bpe_nfkc": dict(model_type="bpe", normalization_rule_name="nfkc", byte_fallback=True)}
    for name, settings in models.items():
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(line for text in texts for line in text.split("\n")), minloglevel=2,
                                                 model_prefix=str(folder / name), vocab_size=3000, character_coverage=0.99, **settings)
    write_lines(folder / "lines.jsonl", lines)
    report = stage("vocab.measure", folder / "out", in_text=folder / "lines.jsonl", set_set_field="set",
                   **{f"in_tokenizers__{name}": folder / f"{name}.model" for name in models})
    for found in report["tokenizers"]:
        judge = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{found['name']}.model"))
        expected = [judge.encode(line) for line in lines]
        check(tokens_of(found) == [len(ids) for ids in expected], f"{found['name']}: tokens differ")
        unknown = sum(ids.count(judge.unk_id()) for ids in expected)
        check(found["total"]["unk_tokens"] == unknown, f"{found['name']}: unknown tokens")
        bytes_found = sum(judge.is_byte(token) for ids in expected for token in ids)
        check(found["total"]["byte_fallback_tokens"] == bytes_found, f"{found['name']}: byte tokens")


@test
def tokenizer_json_is_refused_where_it_does_not_do(folder):
    from tokenizers import Tokenizer, models, pre_tokenizers
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "text.txt").write_text("a\n")
    said = refused("vocab.measure", folder / "m", 4, in_text=folder / "text.txt", in_tokenizers=folder)
    check("Whitespace cannot be read exactly" in said, said)
    for name, inputs in (("corpus.pack", {"in_tokenizer": folder}), ("vocab.check", {"in_old": BASE, "in_new": folder / "tokenizer.json"})):
        said = refused(name, folder / "p", 4, in_text=folder / "text.txt", **inputs)
        check("a pre_tokenizer that cuts text into words cannot be read exactly" in said, said)
    said = refused("vocab.merge", folder / "c", 2, in_base=folder / "tokenizer.json", in_extra=BASE)
    check("is a tokenizer.json" in said, said)


HAN = re.compile("[\u3007\u3021-\u3029\u3038-\u303a\u3400-\u4db5\u4e00-\u9fd5\uf900-\ufa6d\ufa70-\ufad9\U00020000-\U0002a6d6\U0002a700-\U0002ceaf\U0002f800-\U0002fa1d]")


def extended(folder):
    """The base, and with pieces that change English and Chinese lines."""
    from sentencepiece import sentencepiece_model_pb2 as pb
    model = pb.ModelProto()
    model.ParseFromString(BASE.read_bytes())
    for i, piece in enumerate(("\u2581of\u2581the", "\u4e2d\u56fd", "\u7684\u4eba", "\u6cd5\u56fd", "\u9f98")):
        model.pieces.add(piece=piece, score=-31741.0 - i)
    path = folder / "extended.model"
    path.write_bytes(model.SerializeToString())
    return path


def bytes_as_chars(judge, ids):
    """Characters that byte pieces spell, by runs of them, and Han characters among them."""
    text = bytearray()
    for token in ids:
        text += bytes([int(judge.id_to_piece(token)[3:5], 16)]) if judge.is_byte(token) else b"\xff"
    text = text.replace(b"\xff", b"").decode()
    return len(text), len(HAN.findall(text))


def interval(rnd, ours, first):
    """2.5 % and 97.5 % of 1 - ours / first over documents drawn Poisson(1) times."""
    times = rnd.poisson(1.0, (4000, len(ours)))
    return np.quantile(1 - times @ np.array(ours) / (times @ np.array(first)), [0.025, 0.975])


def check_set(found, docs, judge, ids, first, first_ids, names):
    tokens, chars, n_bytes = sum(map(len, ids)), sum(map(len, docs)), sum(len(text.encode()) for text in docs)
    spelt = [bytes_as_chars(judge, row) for row in ids]
    han, flat = sum(len(HAN.findall(text)) for text in docs), [token for row in ids for token in row]
    parts, used, size = sum(map(judge.is_byte, flat)), set(flat), len(judge)
    plain = [line for text in docs for line in text.split("\n") if line and not HAN.search(line)]
    low, high = interval(np.random.default_rng(1), [len(row) for row in ids], [len(row) for row in first_ids])
    all_first = sum(map(len, first_ids))
    expected = dict(documents=len(docs), bytes=n_bytes, chars=chars, han_chars=han, tokens=tokens, tokens_per_char=tokens / chars, bytes_per_token=n_bytes / tokens,
                    byte_fallback_tokens=parts, byte_fallback_rate=parts / tokens, unk_tokens=0, unk_rate=0, coverage=1 - sum(n for n, _ in spelt) / chars,
                    han_coverage=1 - sum(n for _, n in spelt) / han if han else None, pieces_used=len(used), utilisation=len(used) / size, reduction_vs_first=1 - tokens / all_first,
                    cost_vs_first=tokens / all_first)
    if len(judge) > len(first):
        expected.update(new_pieces_used=sum(token >= len(first) for token in used), new_utilisation=sum(token >= len(first) for token in used) / (size - len(first)),
                        lines_without_han=len(plain), changed_lines=sum(judge.encode(line) != first.encode(line) for line in plain))
    for key, value in expected.items():
        check(found[key] == value if value is None else abs(found[key] - value) <= 1e-12 * abs(value), f"{names}: {key} is {found[key]}, {value} expected")
    for context in found["context"]:
        check(abs(context["chars"] - context["tokens"] * chars / tokens) < 1e-6 and abs(context["han_chars"] - context["tokens"] * han / tokens) < 1e-6, f"{names}: {context}")
    for key, value in (("low", low), ("high", high)):
        check(abs(found[key] - value) <= 0.12 * (high - low), f"{names}: {key} is {found[key]}, {value} expected")
    return expected


@test
def every_measure_is_what_its_definition_gives(folder):
    """Two tokenizers over domains that a JSON field names: each number of report.json from sentencepiece's ids, intervals by other random numbers, and all files."""
    import xml.etree.ElementTree as tree
    import sentencepiece
    sets = {"RedPajamaWikipedia": documents("en.valid.jsonl.zst", 23), "RedPajamaZh": documents("zh.valid.jsonl.zst", 23)}
    rows = [{"text": text, "meta": {"redpajama_set_name": name}} for pair in zip(*sets.values()) for name, text in zip(sets, pair)]
    (folder / "mixed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    paths = {"base": BASE, "more": extended(folder)}
    report = stage("vocab.measure", folder / "out", in_text=folder / "mixed.jsonl", set_set_field="meta.redpajama_set_name", set_context="4096,32768",
                   set_parity="RedPajamaZh/RedPajamaWikipedia", **{f"in_tokenizers__{name}": path for name, path in paths.items()})
    first = sentencepiece.SentencePieceProcessor(model_file=str(BASE))
    sets["total"] = [row["text"] for row in rows]
    table = list(csv.DictReader(open(folder / "out" / "efficiency.csv", encoding="utf-8")))
    check(len(table) == 6, f"{len(table)} rows of efficiency.csv")
    page, plain = [(folder / "out" / name).read_text(encoding="utf-8") for name in ("efficiency.md", "efficiency.txt")]
    for found in report["tokenizers"]:
        judge = sentencepiece.SentencePieceProcessor(model_file=str(paths[found["name"]]))
        check(found["vocab_size"] == len(judge) and [item["name"] for item in found["sets"]] == sorted(sets)[:2], f"{found['name']}: sets and size")
        ids = {name: [judge.encode(text) for text in docs] for name, docs in sets.items()}
        for item in found["sets"] + [found["total"]]:
            name = item["name"]
            expected = check_set(item, sets[name], judge, ids[name], first, [first.encode(text) for text in sets[name]], f"{found['name']}, {name}")
            row = next(row for row in table if row["set"] == name and int(row["vocab_size"]) == len(judge))
            for key in expected.keys() & row.keys():
                check(abs(float(row[key] or "nan") - expected[key]) <= 6e-7 if expected[key] is not None else row[key] == "", f"efficiency.csv: {key} of {name} is {row[key]}, {expected[key]} expected")
            check(all(str(expected["tokens"]) in text.replace(",", "") for text in (page, plain)), f"{expected['tokens']} tokens stand not in the tables")
        zh, en = ([len(row) for row in ids[name]] for name in ("RedPajamaZh", "RedPajamaWikipedia"))
        parity = found["parity"][0]
        low, high = 1 - interval(np.random.default_rng(2), zh, en)[::-1]
        check(abs(parity["tokens_ratio"] - sum(zh) / sum(en)) < 1e-12, f"parity: {parity}")
        check(max(abs(parity["low"] - low), abs(parity["high"] - high)) <= 0.12 * (high - low), f"parity: {parity}, {low} to {high} expected")
        first_id = len(first) if found["extends_first"] and len(judge) > len(first) else 0
        counts = [0] * len(judge)
        for row in ids["total"]:
            for token in row:
                counts[token] += 1
        pieces = sorted(counts[token] for token in range(first_id, len(judge)) if not (judge.is_byte(token) or judge.is_control(token) or judge.is_unknown(token)))
        usage = found["piece_counts"]
        check([usage["pieces"], usage["p01"], usage["p10"], usage["p50"]] == [len(pieces)] + [pieces[(len(pieces) - 1) // part] for part in (100, 10, 2)], str(usage))
    changed = report["tokenizers"][1]["total"]["changed_lines"]
    check(changed > 50, f"{changed} changed lines: too few to tell")
    picture = tree.parse(folder / "out" / "efficiency.svg").getroot()
    check(picture.tag.endswith("svg") and "more" in "".join(picture.itertext()), "efficiency.svg")
