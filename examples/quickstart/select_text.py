#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Choose the quickstart's text from a larger collection: same input, same files.

usage: select_text.py COLLECTION [OUT]

COLLECTION holds {zh,en}.jsonl.zst, one {"text": ...} a line, and {zh,en}.index.tsv.zst with
line, source, path, title, bytes. Only the sources of QUOTA are taken: each may be redistributed
(LICENCES.md). Documents of a source come in the order of a hash of their path, held-out ones
first, so the two sets never share a document. Long ones are cut at a line end.
OUT gets {zh,en}{,.valid}.jsonl.zst and SOURCES.tsv (file, line, source, path, title, cut).
"""
import hashlib
import io
import json
import pathlib
import sys

import zstandard

SEED = "hanmix-quickstart-1"
VALID_SHARE = 25             # held-out bytes: one part in so many of the training bytes
MIN_BYTES, MAX_BYTES = 300, 24_000
MIN_HAN = 0.45               # share of a Chinese document's characters: leaves out pages that are mostly code

# training bytes of each source
QUOTA = {
    "zh": {"zhwiki": 1_800_000, "luxun": 500_000, "novels": 450_000, "howtocook": 450_000,
           "oiwiki": 250_000, "trpl": 150_000, "tidb": 150_000, "vuedocs": 80_000,
           "reactdocs": 60_000, "paddle": 40_000, "poetry": 120_000, "classical": 80_000},
    "en": {"books": 1_100_000, "enwiki": 800_000, "digitalgov": 350_000, "web18f": 250_000},
}


def open_zst(path):
    return io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(open(path, "rb")), "utf-8")


def rank(source, path):
    return hashlib.sha256(f"{SEED}\0{source}\0{path}".encode()).digest()


def han_share(text):
    return sum("\u3400" <= c <= "\u9fff" for c in text) / len(text)


def cut(text):
    """At most MAX_BYTES of whole lines."""
    kept, size = [], 0
    for line in text.split("\n"):
        size += len(line.encode()) + 1
        if size > MAX_BYTES:
            break
        kept.append(line)
    return "\n".join(kept)


def documents(folder, lang):
    """{source: [(rank, path, title, text, was cut)]} of every document that may be taken."""
    found = {source: [] for source in QUOTA[lang]}
    with open_zst(folder / f"{lang}.index.tsv.zst") as index, open_zst(folder / f"{lang}.jsonl.zst") as text:
        for row, line in zip(index, text, strict=True):
            _, source, path, title, _ = row.rstrip("\n").split("\t")
            if source not in found:
                continue
            whole = json.loads(line)["text"]
            kept = cut(whole)
            if len(kept.encode()) < MIN_BYTES or (lang == "zh" and han_share(kept) < MIN_HAN):
                continue
            found[source].append((rank(source, path), path, title, kept, kept != whole))
    return {source: sorted(docs) for source, docs in found.items()}


def choose(lang, found):
    """(training, held-out) lists of (source, path, title, text, cut), each mixed by rank."""
    train, valid = [], []
    for source, docs in found.items():
        queue = iter(docs)
        for target, quota in ((valid, QUOTA[lang][source] // VALID_SHARE), (train, QUOTA[lang][source])):
            size = 0
            while size < quota:
                doc = next(queue, None)
                if doc is None:
                    break
                size += len(doc[3].encode())
                target.append((doc[0], source, *doc[1:]))
    return [[d[1:] for d in sorted(s)] for s in (train, valid)]


def write(path, docs):
    body = "".join(json.dumps({"text": d[3]}, ensure_ascii=False) + "\n" for d in docs).encode()
    path.write_bytes(zstandard.ZstdCompressor(level=19).compress(body))


def main():
    folder = pathlib.Path(sys.argv[1])
    out = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else pathlib.Path(__file__).resolve().parent / "text"
    table = ["file\tline\tsource\tpath\ttitle\tcut\n"]
    for lang in QUOTA:
        sets = choose(lang, documents(folder, lang))
        for name, docs in zip((f"{lang}.jsonl.zst", f"{lang}.valid.jsonl.zst"), sets):
            write(out / name, docs)
            for n, (source, path, title, _, was_cut) in enumerate(docs, 1):
                table.append(f"{name}\t{n}\t{source}\t{path}\t{title}\t{'cut' if was_cut else ''}\n")
            size = {s: [sum(d[0] == s for d in docs), sum(len(d[3].encode()) for d in docs if d[0] == s)] for s in QUOTA[lang]}
            print(name, len(docs), "documents", sum(v[1] for v in size.values()), "bytes", size)
    (out / "SOURCES.tsv").write_text("".join(table), encoding="utf-8")


if __name__ == "__main__":
    main()
