"""Reads a finished set back with numpy only and recomputes what can be recomputed without the tools that made it.

python check.py DIR      prints one line per check; exit status 1 if one fails.
"""
import hashlib
import json
import pathlib
import struct
import sys

import numpy as np

from nf4_numpy import dequantise_numpy, quantise_numpy

DTYPES = {"F64": np.float64, "F32": np.float32, "I64": np.int64, "U8": np.uint8, "BF16": np.uint16}
FAILED = []


def read(path):
    raw = pathlib.Path(path).read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:8 + size])
    header.pop("__metadata__", None)
    end = max((e["data_offsets"][1] for e in header.values()), default=0)
    assert len(raw) == 8 + size + end, path
    out = {}
    for name, e in header.items():
        lo, hi = e["data_offsets"]
        a = np.frombuffer(raw[8 + size + lo:8 + size + hi], DTYPES[e["dtype"]]).reshape(e["shape"])
        out[name] = widen(a) if e["dtype"] == "BF16" else a
    return out


def widen(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def round_bf16(x):
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def folder(path):
    out = {}
    for f in sorted(pathlib.Path(path).glob("*.safetensors")):
        out.update(read(f))
    return out


def say(ok, text):
    print(("ok    " if ok else "FAIL  ") + text)
    if not ok:
        FAILED.append(text)


def check_nf4(root):
    index = json.loads((root / "nf4/index.json").read_text())["cases"]
    bytes_bad = value_bad = absmax_bad = 0
    for label, entry in index.items():
        t = read(root / f"nf4/{label}.safetensors")
        text = bytes(t["quant_state"]).decode()
        assert text == entry["quant_state_text"]
        want = t.get("formula_dequantised_f32", t["dequantised_f32"])
        value_bad += int((dequantise_numpy(t, text) != want).sum())
        q = quantise_numpy(t["input"], False)
        bytes_bad += int((q["packed"] != t["packed"].ravel()).sum())
        if label.endswith("plain"):
            absmax_bad += int((q["absmax"] != t["absmax"]).sum())
    say(value_bad == 0, f"nf4: {len(index)} files, dequantised f32 by formula, mismatches {value_bad}")
    say(bytes_bad == 0 and absmax_bad == 0, f"nf4: packed bytes {bytes_bad}, absmax {absmax_bad} mismatches")


def check_bnb(root):
    base = folder(root / "mixtral/model")
    mark = ".weight.quant_state.bitsandbytes__nf4"
    for name in ("dq_gate4bit", "plain_gate4bit", "dq_gate16bit", "plain_gate16bit"):
        t = folder(root / "bnb4bit" / name)
        modules = [k[: -len(mark)] for k in t if k.endswith(mark)]
        worst, bad = 0.0, 0
        for m in modules:
            part = {"packed": t[m + ".weight"], "absmax": t[m + ".weight.absmax"]}
            for k in ("nested_absmax", "nested_quant_map"):
                if f"{m}.weight.{k}" in t:
                    part[k] = t[f"{m}.weight.{k}"]
            w = base[m + ".weight"]
            bad += int((quantise_numpy(w, False)["packed"] != part["packed"].ravel()).sum())
            d = dequantise_numpy(part, bytes(t[m + mark]).decode()) - w
            worst = max(worst, float(np.sqrt((d ** 2).mean() / (w ** 2).mean())))
        same = all(np.array_equal(t[k], base[k]) for k in base if k[: -len(".weight")] not in modules)
        say(bad == 0 and same and 0.05 < worst < 0.13, f"bnb4bit/{name}: {len(modules)} linears, byte mismatches {bad}, worst relative rms error {worst:.3f}, rest bit-equal to the base: {same}")


def scale(config, module):
    leaf = module.split(".")[-1]
    r = config["rank_pattern"].get(leaf, config["r"])
    return config["alpha_pattern"].get(leaf, config["lora_alpha"]) / (np.sqrt(r) if config["use_rslora"] else r)


def check_merge(root):
    base, prefix = folder(root / "mixtral/model"), "base_model.model."
    adapter, config = folder(root / "peft/adapter"), json.loads((root / "peft/adapter/adapter_config.json").read_text())
    for name, two_roundings in (("merged_f32_adapter", False), ("merged_bf16_adapter", True)):
        merged, bad, total = folder(root / "peft" / name), 0, 0
        for key in (k for k in adapter if k.endswith("lora_A.weight")):
            module = key[len(prefix):-len(".lora_A.weight")]
            a, b = adapter[key], adapter[key.replace("lora_A", "lora_B")]
            delta = ((b.astype(np.float64) @ a) * scale(config, module)).astype(np.float32)
            delta = round_bf16(delta) if two_roundings else delta
            want = round_bf16(base[module + ".weight"] + delta)
            got = merged[module + ".weight"]
            step = np.abs(want) * 2.0 ** -7 + np.abs(delta) * (2.0 ** -8 if two_roundings else 0) + 1e-30
            bad += int((np.abs(got - want) > step).sum())
            total += int((got != want).sum())
        saved = all(np.array_equal(merged[k], round_bf16(adapter[prefix + k])) for k in ("model.embed_tokens.weight", "lm_head.weight"))
        say(bad == 0 and saved, f"peft/{name}: bf16(W + s*B@A), {total} values one step away, {bad} farther; embed and head as in the adapter: {saved}")


def close(a, b, limit):
    return abs(a - b) <= limit


def check_losses(root):
    for path, keys in (("mixtral", ("full", "sliding", "padded")), ("llama", ("untied", "tied"))):
        r = json.loads((root / path / "results.json").read_text())
        for k in keys:
            pairs = [(r[k]["f32"][n], r[k]["f64"][n]) for n in r[k]["f64"] if n in r[k]["f32"]]
            say(all(close(a, b, 3e-6) for a, b in pairs), f"{path}/{k}: losses f32 and f64 differ by at most {max(abs(a - b) for a, b in pairs):.1e}")
    r = json.loads((root / "train/results.json").read_text())
    for k in ("micro", "micro_aux", "tokens", "micro_w_bf16"):
        d = r[k]["largest_difference_f32_f64"]
        say(d["micro_lm_loss"] < 2e-5, f"train/{k}: micro losses over the run differ by at most {d['micro_lm_loss']:.1e}, grad norms {d['grad_norm']:.1e}")


def cross_entropy(logits, labels):
    z, y = logits[:, :-1].astype(np.float64).reshape(-1, logits.shape[-1]), labels[:, 1:].ravel()
    keep = y != -100
    z, y = z[keep], y[keep]
    top = z.max(1)
    return float((top + np.log(np.exp(z - top[:, None]).sum(1)) - z[np.arange(len(y)), y]).mean())


def check_cross_entropy(root):
    for path, batch, logits, name, pick in (
            ("mixtral", "batch", "full.outputs_f64", "logits", lambda r: r["full"]["f64"]["lm_loss"]),
            ("mixtral", "batch", "sliding.outputs_f64", "logits", lambda r: r["sliding"]["f64"]["lm_loss"]),
            ("llama", "tied.batch", "tied.outputs_f64", "logits", lambda r: r["tied"]["f64"]["lm_loss"]),
            ("peft", "nf4.batch", "nf4.logits", "truth", lambda r: r["nf4"]["lm_loss"]["truth"]),
            ("bnb4bit", "dq_gate16bit.batch", "dq_gate16bit.logits", "truth_w_f32", lambda r: r["dq_gate16bit"]["lm_loss"]["truth_w_f32"])):
        got = cross_entropy(read(root / path / f"{logits}.safetensors")[name], read(root / path / f"{batch}.safetensors")["labels"])
        want = pick(json.loads((root / path / "results.json").read_text()))
        say(close(got, want, 1e-10), f"{path}/{logits}: cross entropy from the stored logits {got:.9f}, recorded {want:.9f}")


def check_balance(root):
    t, r = read(root / "mixtral/full.outputs_f64.safetensors"), json.loads((root / "mixtral/results.json").read_text())
    z = np.concatenate([t[k] for k in sorted(t) if k.startswith("router")])
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    chosen = np.zeros_like(p)
    np.put_along_axis(chosen, np.argsort(-p, axis=1)[:, :2], 1, axis=1)
    got = z.shape[1] * float((chosen.mean(0) * p.mean(0)).sum())
    say(close(got, r["full"]["f64"]["aux_loss"], 1e-12), f"mixtral: aux loss from the stored router logits {got:.12f}")


def check_train(root):
    r = json.loads((root / "train/results.json").read_text())
    h = r["hyperparameters"]
    for n, e in enumerate(r["micro"]["f32"]):
        w, s = h["warmup"], h["steps"]
        want = h["lr"] * (n / w if n < w else 0.5 * (1 + np.cos(np.pi * (n - w) / (s - w))))
        if not close(e["lr"], want, 1e-15):
            say(False, f"train: lr of step {n}")
    first, last = folder(root / "train/initial_adapter"), folder(root / "train/micro.final_adapter")
    say(first.keys() == last.keys(), f"train: adapters hold the same {len(first)} tensors; lr follows the formula")


def check_text(root):
    cases = [json.loads(line) for line in open(root / "tokenizers/cases.jsonl", encoding="utf-8")]
    say(len({len(c["ids"]) for c in cases}) == 1, f"tokenizers: {len(cases)} texts, {len(cases[0]['ids'])} encodings each")
    r = json.loads((root / "generate_text/results.json").read_text())
    say(all(x["same_choice_in_f64"] for runs in r["models"].values() for x in runs), "generate_text: float64 makes the same greedy choices")


def main():
    root = pathlib.Path(sys.argv[1])
    for check in (check_nf4, check_bnb, check_merge, check_losses, check_cross_entropy, check_balance, check_train, check_text):
        check(root)
    files = [p for p in root.rglob("*") if p.is_file() and "generate" not in p.relative_to(root).parts[:1]]
    print(f"{len(files)} files, {sum(p.stat().st_size for p in files) / 1e6:.2f} MB, sha256 of all names and contents "
          + hashlib.sha256(b"".join(str(p.relative_to(root)).encode() + hashlib.sha256(p.read_bytes()).digest() for p in sorted(files))).hexdigest())
    sys.exit(bool(FAILED))


if __name__ == "__main__":
    main()
