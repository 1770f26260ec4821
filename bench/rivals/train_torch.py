# SPDX-License-Identifier: MIT
"""QLoRA steps of transformers + peft + bitsandbytes on a CPU, over a 4-bit folder that hanmix reads as well.

  train_torch.py prepare MODEL WORK     ids.safetensors and an untrained adapter of rank --rank, the start of both sides
  train_torch.py train MODEL WORK NAME  steps from there; NAME.json: seconds, losses and gradient norms of each, peak memory
  train_torch.py compare WORK NAME...   tables of speed and losses; NAME is NAME.json, or a folder of `hanmix stage qlora.train`

AdamW, constant rate, no clipping, no weight decay, mean loss over the targets; products in bf16, adapters in f32, no recomputation. `--tuned` is what
helps these tools most: rows of an expert padded with zeros to whole multiples of 64, so that oneDNN meets few shapes (run it with tcmalloc preloaded,
too: glibc hands each dequantised weight back to the kernel). Needs torch, transformers below 5 (which fuses the experts, so that bitsandbytes leaves
them alone), peft, bitsandbytes.
"""
import argparse
import json
import pathlib
import statistics
import time

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "w1", "w2", "w3"]
PAD_ROWS = 64


def status_mib(key):
    for line in open("/proc/self/status"):
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    return 0.0


def load(folder):
    import torch
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="sdpa", device_map={"": "cpu"})
    model.config.use_cache = False
    return model


def prepare(a):
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import save_file
    a.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    model = load(a.model)
    vocab = model.config.vocab_size
    weights = 1.0 / torch.arange(1, vocab - 2)  # as words are: the n-th most frequent token 1/n as often
    ids = torch.multinomial(weights, a.steps * a.tokens, replacement=True).reshape(a.steps, 1, a.tokens) + 3
    save_file({"input_ids": ids}, str(a.work / "ids.safetensors"))
    config = LoraConfig(r=a.rank, lora_alpha=2 * a.rank, lora_dropout=0.0, target_modules=TARGETS, bias="none", task_type="CAUSAL_LM")
    get_peft_model(model, config).save_pretrained(str(a.work / "start"))


def pad_experts():
    """Rows of zeros give zeros and no gradient."""
    import torch
    from transformers.models.mixtral.modeling_mixtral import MixtralBlockSparseTop2MLP as Expert
    plain = Expert.forward

    def padded(self, x):
        rows = x.shape[0]
        return plain(self, torch.nn.functional.pad(x, (0, 0, 0, -rows % PAD_ROWS)))[:rows]

    Expert.forward = padded


def train(a):
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file
    torch.set_num_threads(a.threads)
    if a.tuned:
        pad_experts()
    model = PeftModel.from_pretrained(load(a.model), str(a.work / "start"), is_trainable=True).train()
    left = [name for name, p in model.named_parameters() if ".experts." in name and "lora_" not in name and p.dtype != torch.uint8]
    if left:
        raise SystemExit(f"{len(left)} matrices of experts are not 4-bit, {left[0]} among them: transformers 5 or newer?")
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=a.lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, fused=True)
    log = {"tokens": a.tokens, "seconds": [], "loss": [], "grad_norm": []}
    for ids in load_file(str(a.work / "ids.safetensors"))["input_ids"][:a.steps]:
        begin = time.perf_counter()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, float("inf"))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        log["loss"].append(loss.item())
        log["grad_norm"].append(norm.item())
        log["seconds"].append(time.perf_counter() - begin)
        print(f"{a.name} step {len(log['loss'])}: loss {log['loss'][-1]:.5f}, {log['seconds'][-1]:.2f} s", flush=True)
    log["peak_mib"] = status_mib("VmHWM")
    (a.work / f"{a.name}.json").write_text(json.dumps(log))


def read(work, name):
    if (work / f"{name}.json").exists():
        return json.loads((work / f"{name}.json").read_text())
    steps = [json.loads(line) for line in (work / name / "metrics.jsonl").read_text().splitlines()]
    steps = [s for s in steps if "loss" in s]
    return {"seconds": [s["tokens"] / s["step"] / s["tok_s"] for s in steps], "loss": [s["loss"] for s in steps], "grad_norm": [s["grad_norm"] for s in steps],
            "tokens": steps[0]["tokens"], "peak_mib": max(s["rss"] for s in steps) / 2 ** 20}


def compare(a):
    logs = {name: read(a.work, name) for name in a.names}
    first = logs[a.names[0]]
    rate = {name: log["tokens"] / statistics.median(log["seconds"][a.warmup:]) for name, log in logs.items()}
    print("side,tokens,steps,tokens_s,slowest_s,fastest_s,peak_mib,ratio_of_" + a.names[0])
    for name, log in logs.items():
        timed = log["seconds"][a.warmup:]
        print(f"{name},{log['tokens']},{len(timed)},{rate[name]:.1f},{max(timed):.3f},{min(timed):.3f},{log['peak_mib']:.0f},{rate[a.names[0]] / rate[name]:.2f}")
    print("step," + ",".join(f"loss_{n}" for n in a.names) + "," + ",".join(f"norm_{n}" for n in a.names))
    for i in range(len(first["loss"])):
        print(f"{i + 1}," + ",".join(f"{logs[n]['loss'][i]:.5f}" for n in a.names) + "," + ",".join(f"{logs[n]['grad_norm'][i]:.5f}" for n in a.names))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["prepare", "train", "compare"])
    p.add_argument("paths", nargs="+")
    p.add_argument("--tokens", type=int, default=512)
    p.add_argument("--steps", type=int, default=8)
    p.add_argument("--warmup", type=int, default=2, help="steps left out of the speed")
    p.add_argument("--rank", type=int, default=8)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--lr", type=float, default=1e-4)
    p.add_argument("--tuned", action="store_true")
    a = p.parse_args()
    if a.what == "compare":
        a.work, a.names = pathlib.Path(a.paths[0]), a.paths[1:]
        return compare(a)
    a.model, a.work = a.paths[0], pathlib.Path(a.paths[1])
    if a.what == "prepare":
        return prepare(a)
    a.name = a.paths[2]
    return train(a)


if __name__ == "__main__":
    main()
