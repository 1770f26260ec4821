#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Whole training steps of the published recipe (recipes/chinese-mixtral-8x7b.yaml) in three ways that need less memory.

published.py BUILD_DIR MODEL_DIR WORK_DIR [WAY ...] [steps=2] [tokens=2048] [accumulate=1] [KEY=VALUE ...]
  file    all rows trained, AdamW in f32, its state in a file
  8bit    all rows trained, 8-bit AdamW, in memory
  new     the rows from 32,000 on trained, 8-bit AdamW, in memory
MODEL_DIR is what `make_model` writes (whole: about 25 GB); KEY=VALUE are further settings of the stage, such as ram=16G.
Each way is planned (exit 0 or the script ends) and run by `hanmix run`; the run's folder in WORK_DIR is removed after it.
CSV: state_gb are values, gradients and moments; a row for each step: optimizer_s are norm and update, work_s all
before; and a row "run": seconds of the stage (opening, steps, state and adapter written), what the process read and
wrote, its peak and planned memory. Only the standard library is needed.
"""
import json, os, resource, shutil, subprocess, sys

from token_ids import ids_write

OLD_VOCAB = 32000
WAYS = {
    "file": {"train_embeddings": "all", "train_head": "all", "state": "file", "ram": "12G"},
    "8bit": {"train_embeddings": "all", "train_head": "all", "optimizer": "adamw8bit", "ram": "20G"},
    "new": {"train_embeddings": "new", "train_head": "new", "optimizer": "adamw8bit", "ram": "20G"},
}
RECIPE = {"rank": 64, "alpha": 128, "dropout": 0.05, "lr": 1e-5, "lr_schedule": "cosine", "warmup": 0.05,
          "targets": ["q_proj", "k_proj", "v_proj", "o_proj", "w1", "w2", "w3"],
          "save_every": 0, "keep": 1}
FIELDS = ("way,layers,tokens,accumulate,ram,parameters,state_gb,row,seconds,tokens_s,work_s,optimizer_s,loss,grad_norm,"
          "read_gb,written_gb,peak_mib,planned_mib,planned_disk_gb")


def grown_model(model, work, vocab):
    """The model's files beside a record that its rows from OLD_VOCAB on are new."""
    folder = os.path.join(work, "grown")
    os.makedirs(folder, exist_ok=True)
    for name in os.listdir(model):
        link = os.path.join(folder, name)
        if name != "hanmix.json" and not os.path.lexists(link):
            os.symlink(os.path.join(os.path.abspath(model), name), link)
    record = {"old_vocab_size": OLD_VOCAB, "new_vocab_size": vocab, "old_tokenizer_sha256": "0" * 64,
              "new_tokenizer_sha256": "1" * 64}
    with open(os.path.join(folder, "hanmix.json"), "w") as out:
        json.dump({"version": 1, "vocab_resize": record}, out)
    return folder


def hanmix(build, *argv):
    done = subprocess.run([f"{build}/cli/hanmix", *argv], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"hanmix {' '.join(argv)}: exit {done.returncode}")
    return done.stdout


def blocks():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_inblock * 512 / 1e9, usage.ru_oublock * 512 / 1e9


def recipe_write(work, model, ids, settings):
    path = os.path.join(work, "recipe.yaml")
    stage = {"id": "lora", "stage": "qlora.train", "in": {"model": model, "ids": ids}, "set": settings}
    with open(path, "w") as out:
        json.dump({"seed": 42, "stages": [stage]}, out)
    return path


def state_bytes(parameters, settings):
    """f32 values and gradients; moments in f32, or in a byte each (scales are 1/64 more)."""
    return parameters * (8 + (2 * 65 / 64 if settings.get("optimizer") == "adamw8bit" else 8))


def measure(build, model, work, way, settings, tokens):
    with open(os.path.join(model, "config.json")) as file:
        config = json.load(file)
    settings = {**RECIPE, **WAYS[way], **settings}
    ids, run_dir = os.path.join(work, "ids.safetensors"), os.path.join(work, "run")
    ids_write(ids, config["vocab_size"], settings["steps"] * settings["accumulate"], tokens)
    shutil.rmtree(run_dir, ignore_errors=True)
    if settings["train_embeddings"] == "new":
        model = grown_model(model, work, config["vocab_size"])
    recipe = recipe_write(work, model, ids, settings)
    planned = json.loads(hanmix(build, "plan", recipe, "--run-dir", run_dir, "--json"))["stages"][0]
    read, written = blocks()
    hanmix(build, "run", recipe, "--run-dir", run_dir, "--quiet")
    read, written = blocks()[0] - read, blocks()[1] - written
    with open(os.path.join(run_dir, "lora", "stage.json")) as file:
        stage = json.load(file)
    with open(os.path.join(run_dir, "lora", "report.json")) as file:
        parameters = json.load(file)["trainable_parameters"]
    with open(os.path.join(run_dir, "lora", "metrics.jsonl")) as file:
        lines = [json.loads(line) for line in file if '"loss"' in line]
    head = (f"{way},{config['num_hidden_layers']},{tokens},{settings['accumulate']},{settings.get('ram', 0)},{parameters},"
            f"{state_bytes(parameters, settings) / 1e9:.1f}")
    for line in lines:
        seconds = lines[0]["tokens"] / line["tok_s"]
        optimizer = line["phase_ms"]["optimizer"] / 1e3
        print(f"{head},{line['step']},{seconds:.1f},{line['tok_s']:.2f},{seconds - optimizer:.1f},{optimizer:.1f},"
              f"{line['loss']:.4f},{line['grad_norm']:.4f},,,,,", flush=True)
    print(f"{head},run,{stage['wall_seconds']:.1f},,,,,,{read:.1f},{written:.1f},{stage['peak_rss_bytes'] / 2**20:.0f},"
          f"{planned['memory_bytes'] / 2**20:.0f},{planned['disk_bytes'] / 1e9:.1f}", flush=True)
    shutil.rmtree(run_dir)


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    build, model, work = sys.argv[1:4]
    ways = [arg for arg in sys.argv[4:] if "=" not in arg]
    settings = dict(arg.split("=", 1) for arg in sys.argv[4:] if "=" in arg)
    tokens = int(settings.pop("tokens", 2048))
    settings = {**settings, **{key: int(settings.get(key, fallback)) for key, fallback in (("steps", 2), ("accumulate", 1))}}
    os.makedirs(work, exist_ok=True)
    print(FIELDS)
    for way in ways or WAYS:
        measure(build, model, work, way, settings, tokens)


main()
