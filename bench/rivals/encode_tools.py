# SPDX-License-Identifier: MIT
"""encode_tools.py MODEL BYTES THREADS TOOL FILE...: text to ids by gigatoken or sentencepiece, rows like bench/encode's.

Documents of .jsonl.zst files (read by zstdcat) up to BYTES of text; the best of three passes, each with an encoder just made, lists of plain
ids handed to Python. Needs numpy and the tool.
"""
import json
import os
import subprocess
import sys
import time

import numpy as np

FACTOR = np.uint64(0x9E3779B97F4A7C15)


def documents(path, limit):
    reader = subprocess.Popen(["zstdcat", path], stdout=subprocess.PIPE)
    docs, size = [], 0
    for line in reader.stdout:
        if size >= limit:
            break
        text = json.loads(line)["text"]
        docs.append(text)
        size += len(text.encode())
    reader.kill()
    return docs, size


def weighted(values):
    with np.errstate(over="ignore"):
        return (FACTOR * np.arange(1, len(values) + 1, dtype=np.uint64) * np.asarray(values, dtype=np.uint64)).sum(dtype=np.uint64)


def encoder(tool, model, threads):
    if tool == "gigatoken":
        import gigatoken
        return gigatoken.Tokenizer.from_sentencepiece(model).encode_batch_list
    import sentencepiece
    processor = sentencepiece.SentencePieceProcessor(model_file=model)
    return lambda texts: processor.encode_as_ids(texts, num_threads=threads)


def main():
    model, limit, threads, tool = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    for path in sys.argv[5:]:
        docs, size = documents(path, limit)
        best = 0.0
        for _ in range(3):
            encode, ids, spent = encoder(tool, model, threads), [], 0.0
            encode(["warm up"])
            for at in range(0, len(docs), 512):
                began = time.perf_counter()
                part = encode(docs[at:at + 512])
                spent += time.perf_counter() - began
                ids += part
            best = max(best, size / spent / 1e6)
        print(f"{tool},{path},{model},{threads},{size},{best:.1f},{sum(map(len, ids))},{int(weighted([weighted(x) for x in ids])):016x}")


main()
