#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Predictions of `hanmix plan --bench` beside what then happens.

plan_accuracy.py BUILD_DIR WORK_DIR CASE:STEPS ...   where CASE is one of
  quickstart                the training stage of recipes/quickstart.yaml, everything before it run first
  road                      the whole of recipes/quickstart.yaml, planned before anything has run; seconds of all stages
  PRESET,TOKENS[,RAM]       a model of make_model (small, wide1, mixtral-8x7b) made in WORK_DIR/PRESET unless it
                            is there, rank 8 on all linears, one sample of TOKENS, weights limited to RAM
One CSV row per case: predicted and measured seconds of the stage (of the whole command, digests of
inputs too) and of one step, predicted and measured peak
memory; ratio is predicted / measured. Only the standard library is needed.
"""
import json, os, shutil, subprocess, sys, time

from token_ids import ids_write

FIELDS = ("case,steps,compute,plan_s,predicted_s,measured_s,ratio,predicted_step_s,measured_step_s,step_ratio,"
          "planned_mib,peak_mib,over_mib,over_percent")


def run(argv):
    begun = time.monotonic()
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(argv)}: exit {done.returncode}")
    return done.stdout, time.monotonic() - begun


def prepare(build, work, case, steps):
    """The recipe, its overrides and the run folder."""
    run_dir = os.path.join(work, "run")
    shutil.rmtree(run_dir, ignore_errors=True)
    if case in ("quickstart", "road"):
        recipe = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "recipes", "quickstart.yaml")
        if case == "quickstart":
            run([f"{build}/cli/hanmix", "run", recipe, "--run-dir", run_dir, "--until", "valid_en", "--quiet"])
        return recipe, [f"lora.set.steps={steps}"], run_dir
    preset, tokens, *ram = case.split(",")
    model, ids = os.path.join(work, preset), os.path.join(work, "ids.safetensors")
    if not os.path.exists(os.path.join(model, "config.json")):
        run([f"{build}/bench/make_model", "--out", model, "--preset", preset])
    with open(os.path.join(model, "config.json")) as config:
        ids_write(ids, json.load(config)["vocab_size"], max(8, min(steps, 64)), int(tokens))
    recipe = os.path.join(work, "recipe.yaml")
    with open(recipe, "w") as out:
        settings = {"rank": 8, "steps": steps, **({"ram": ram[0]} if ram else {})}
        stage = {"id": "lora", "stage": "qlora.train", "in": {"model": model, "ids": ids}, "set": settings}
        out.write(json.dumps({"stages": [stage]}))
    return recipe, [], run_dir


def measure(build, work, case, steps):
    recipe, overrides, run_dir = prepare(build, work, case, steps)
    hanmix = f"{build}/cli/hanmix"
    text, plan_s = run([hanmix, "plan", recipe, *overrides, "--run-dir", run_dir, "--bench", "--json"])
    plan = json.loads(text)
    planned = next(s for s in plan["stages"] if s["id"] == "lora")
    predicted, until = (plan, []) if case == "road" else (planned, ["--until", "lora"])
    _, measured = run([hanmix, "run", recipe, *overrides, "--run-dir", run_dir, *until, "--quiet"])
    with open(os.path.join(run_dir, "lora", "stage.json")) as file:
        stage = json.load(file)
    with open(os.path.join(run_dir, "lora", "metrics.jsonl")) as file:
        lines = [json.loads(line) for line in file if '"loss"' in line]
    tokens = lines[0]["tokens"]
    step = sorted(tokens / line["tok_s"] for line in lines)[len(lines) // 2]
    peak, bytes_planned = stage["peak_rss_bytes"] / 2**20, planned["memory_bytes"] / 2**20
    print(f"\"{case}\",{steps},{stage['config']['compute']},{plan_s:.1f},{predicted['estimated_seconds']:.1f},{measured:.1f},"
          f"{predicted['estimated_seconds'] / measured:.3f},{planned['seconds_per_step']:.4f},{step:.4f},"
          f"{planned['seconds_per_step'] / step:.3f},{bytes_planned:.1f},{peak:.1f},{bytes_planned - peak:.1f},"
          f"{100 * (bytes_planned / peak - 1):.1f}", flush=True)


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    build, work = sys.argv[1:3]
    os.makedirs(work, exist_ok=True)
    print(FIELDS)
    for arg in sys.argv[3:]:
        case, _, steps = arg.rpartition(":")
        measure(build, work, case, int(steps))


main()
