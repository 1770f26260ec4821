# SPDX-License-Identifier: MIT
"""A file of token ids for the bench scripts. Only the standard library is needed."""
import json, random, struct


def ids_write(path, vocab, rows, tokens):
    """Token ids with the frequencies of a language (1/rank)."""
    draw = random.Random(1)
    values = [min(vocab - 1, 2 + int((vocab - 2) ** draw.random())) for _ in range(rows * tokens)]
    header = json.dumps({"input_ids": {"dtype": "I64", "shape": [rows, tokens], "data_offsets": [0, 8 * len(values)]}})
    header += " " * (-len(header) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(header)) + header.encode() + struct.pack(f"<{len(values)}q", *values))
