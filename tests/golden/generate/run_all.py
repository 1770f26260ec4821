"""Makes one complete set of recorded reference outputs.

python run_all.py --seed 20261 --preset shared --out ..   [--only nf4,mixtral,...]
"""
import argparse
import importlib
import pathlib
import time

import common
from presets import PRESETS

README = """# Recorded outputs of the reference tools ({preset} set, seed {seed})

Each folder has its own README (files, dtypes, shapes, arithmetic, measured tolerance) and a `results.json` or `index.json` with scalars and tool versions.
Everything is f32 eager on one CPU thread unless said; "f64" or "truth" is `reference.py` of the generator, an independent implementation in float64.

| folder | proves |
|---|---|
| `nf4/` | value -> 4-bit code -> value, packing, absmax, double quantisation, to the bit |
| `mixtral/` | reading sharded bf16 checkpoints; Mixtral forward, router, losses, all gradients; sliding window; padding |
| `llama/` | dense LLaMA forward and gradients, tied and untied head |
| `bnb4bit/` | reading (and writing) pre-quantised bitsandbytes folders, router quantised or not; logits for both weight-rounding policies |
| `peft/` | adapter files, LoRA scaling (rank_pattern, alpha_pattern, rsLoRA), gradients of every trainable, merging and its roundings |
| `train/` | AdamW, clipping, cosine schedule, accumulation, loss normalisation, aux loss: a {steps}-step trajectory |
| `adamw8/` | AdamW with 8-bit moments: maps, codes, 120 steps against bitsandbytes, f32 and double |
| `tokenizers/` | token ids of real SentencePiece models (`tokenizers/models/`), invalid UTF-8, transformers slow and fast |
| `bpe/` | the merge lists of sentencepiece's BPE trainer on Han runs |
| `resize/` | rows of new pieces in a grown vocabulary: the published script's rule and the bare mean |
| `generate_text/` | greedy generation with small trained models (`models/`), log-probabilities |

Regenerate (requirements.txt has the exact versions; the generator lies in ../generate and reads models/ and tokenizers/models/ here and the quickstart text):
`python run_all.py --seed {seed} --preset {preset} --out DIR`; verify a set with numpy alone: `python check.py DIR`.
The outputs depend on torch's kernels in the last bits; the stored files are the reference, a rerun elsewhere agrees within the tolerances.
"""
TOPICS = ["nf4", "mixtral", "llama", "bnb4bit", "peft", "train", "adamw8", "tokenizers", "bpe", "resize", "generate"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--preset", choices=sorted(PRESETS), required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--only", default=",".join(TOPICS))
    args = parser.parse_args()
    common.setup()
    preset = dict(PRESETS[args.preset], name=args.preset)
    for topic in args.only.split(","):
        began = time.time()
        importlib.import_module(f"make_{topic}").main(args.seed, preset, args.out)
        print(f"{topic}: {time.time() - began:.1f} s", flush=True)
    out = pathlib.Path(args.out)
    (out / "README.md").write_text(README.format(preset=args.preset, seed=args.seed, steps=preset["train"]["steps"]))
    for path in out.rglob("*.safetensors"):
        path.chmod(0o644)


if __name__ == "__main__":
    main()
