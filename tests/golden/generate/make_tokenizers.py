"""Token ids by sentencepiece, and by transformers for Mixtral's model."""
import hashlib
import io
import json
import shutil
import tempfile

import sentencepiece as spm
import torch
import zstandard
from transformers import LlamaTokenizer, LlamaTokenizerFast

from common import DATA, TEXT, generator, save_json, topic_dir, versions, write_readme
from hard_strings import FIXED, invalid_bytes, long_strings, random_strings

MODELS = DATA / "tokenizers" / "models"
MIXTRAL = "mistral-v1-32000"
TOKENIZER_CONFIG = {"tokenizer_class": "LlamaTokenizer", "legacy": True, "add_bos_token": True, "add_eos_token": False,
                    "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "clean_up_tokenization_spaces": False,
                    "sp_model_kwargs": {}, "model_max_length": 1000000000000000019884624838656}


def documents(name):
    with open(TEXT / name, "rb") as raw:
        for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(raw), "utf-8"):
            yield json.loads(line)["text"]


def sampled_lines(name, count, gen):
    """Lines of at most 160 characters, plus eight whole documents cut to 1500 characters."""
    docs = list(documents(name))
    lines = [x for d in docs for x in d.split("\n") if 0 < len(x) <= 160]
    picked = [lines[i] for i in torch.randperm(len(lines), generator=gen)[:count]]
    return picked + [docs[i][:1500] for i in torch.randperm(len(docs), generator=gen)[:8]]


def hard(seed, preset):
    gen = generator(seed, "hard")
    if preset["name"] == "shared":
        return FIXED + random_strings(gen, 40) + long_strings(preset["long"])
    pick = [int(i) for i in torch.randint(0, len(FIXED), (520,), generator=gen)]
    joined = [FIXED[a] + ("" if n % 3 else " ") + FIXED[b] for n, (a, b) in enumerate(zip(pick[::2], pick[1::2]))]
    return joined + random_strings(gen, 120) + long_strings(preset["long"])


def huggingface(model):
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(model, f"{folder}/tokenizer.model")
        save_json(f"{folder}/tokenizer_config.json", TOKENIZER_CONFIG)
        return LlamaTokenizer.from_pretrained(folder), LlamaTokenizerFast.from_pretrained(folder)


def encode_all(seed, preset, folder):
    models = {p.stem: spm.SentencePieceProcessor(model_file=str(p)) for p in sorted(MODELS.glob("*.model"))}
    slow, fast = huggingface(MODELS / f"{MIXTRAL}.model")
    gen = generator(seed, "lines")
    zh, en = preset["tokenizer_lines"]
    texts = [("hard", t) for t in hard(seed, preset)]
    texts += [("zh", t) for t in sampled_lines("zh.valid.jsonl.zst", zh, gen)]
    texts += [("en", t) for t in sampled_lines("en.valid.jsonl.zst", en, gen)]
    tally = {"texts": len(texts), "slow_differs_from_sentencepiece": [], "fast_differs_from_sentencepiece": [], "round_trip_fails": []}
    with open(folder / "cases.jsonl", "w", encoding="utf-8") as out:
        for n, (kind, text) in enumerate(texts):
            ids = {name: sp.encode(text) for name, sp in models.items()}
            ids["hf_slow"] = slow.encode(text, add_special_tokens=False)
            ids["hf_fast"] = fast.encode(text, add_special_tokens=False)
            for which in ("slow", "fast"):
                if ids["hf_" + which] != ids[MIXTRAL]:
                    tally[which + "_differs_from_sentencepiece"].append(n)
            if models[MIXTRAL].decode(ids[MIXTRAL]) != text:
                tally["round_trip_fails"].append(n)
            out.write(json.dumps({"kind": kind, "text": text, "ids": ids}, ensure_ascii=False) + "\n")
    with open(folder / "invalid_utf8.jsonl", "w", encoding="utf-8") as out:
        for raw in invalid_bytes(generator(seed, "bytes")):
            out.write(json.dumps({"hex": raw.hex(), "ids": {name: sp.encode(raw) for name, sp in models.items()}}) + "\n")
    tally["lines_where_slow_differs"] = len(tally["slow_differs_from_sentencepiece"])
    tally["lines_where_fast_differs"] = len(tally["fast_differs_from_sentencepiece"])
    return {"models": {n: {"pieces": sp.get_piece_size(), "sha256": sha(MODELS / f"{n}.model")} for n, sp in models.items()}, **tally}


def sha(path):
    return hashlib.sha256(open(path, "rb").read()).hexdigest()


def main(seed, preset, out):
    folder = topic_dir(out, "tokenizers")
    result = {"versions": versions(), "encode": encode_all(seed, preset, folder)}
    save_json(folder / "results.json", result)
    e = result["encode"]
    write_readme(folder, f"""
# tokenizers: ids of real models by sentencepiece {versions()['sentencepiece']}

- `cases.jsonl`: one object a line: `kind` (hard, zh, en), `text`, `ids` = {{name: [ids]}}. Names are those of `models/*.model`, encoded by
  sentencepiece's Python `encode(text)` (no bos/eos, the model's own normaliser and dummy prefix). `hf_slow`, `hf_fast`: Mixtral's model ({MIXTRAL}) through transformers
  {versions()['transformers']} LlamaTokenizer (legacy true) and LlamaTokenizerFast.from_pretrained(folder with tokenizer.model), add_special_tokens=False.
- `invalid_utf8.jsonl`: `hex` bytes that are not UTF-8, `ids` of every sentencepiece model.
- `results.json` `encode`: line numbers (from 0) where slow or fast differ from sentencepiece ({e['lines_where_slow_differs']} and {e['lines_where_fast_differs']} of {e['texts']}: all of them hold <s>, </s> or <unk>,
  which transformers cuts out as special tokens); and where decode(encode(text)) != text (U+2581 decodes to a space).
The zh and en lines are from the held-out texts of examples/quickstart; their licences are in its LICENCES.md.
Tolerance: none, ids are equal or wrong. Beware: LlamaTokenizerFast(vocab_file=..., legacy=True) built directly lacks the Prepend normaliser in this version;
only the from_pretrained route gives Mixtral's behaviour.
""")
