# SPDX-License-Identifier: MIT
"""The text of .jsonl and .jsonl.zst files by Python's fastest readers, in rows like bench/read_text's.

usage: read_text_tools.py FILE... (needs orjson 3 and zstandard)
"""
import io
import os
import sys
import time

import orjson
import zstandard


def text_bytes(path):
    total = 0
    with open(path, "rb") as file:
        stream = file
        if path.endswith(".zst"):
            stream = io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(file), 1 << 20)
        for line in stream:
            total += len(orjson.loads(line)["text"].encode())
    return total


print("file,step,threads,repeat,text_mb,seconds,mb_per_s")
for path in sys.argv[1:]:
    for repeat in range(1, 4):
        began = time.perf_counter()
        mb = text_bytes(path) / 1e6
        seconds = time.perf_counter() - began
        print(f"{os.path.basename(path)},orjson,1,{repeat},{mb:.1f},{seconds:.3f},{mb / seconds:.1f}", flush=True)
