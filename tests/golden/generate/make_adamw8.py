"""bitsandbytes' AdamW8bit on CPU, torch's AdamW, and AdamW in double, over the same gradients."""
import bitsandbytes as bnb
import bitsandbytes.functional as F
import numpy as np
import torch

from common import diff, load_tensors, save_json, save_tensors, topic_dir, versions, write_readme

SHAPES = {"whole": (64, 96), "partial": (50, 93), "small": (61, 67)}  # 24 blocks; 18 and 42 values; below 4096
STEPS, KEPT = 120, (1, 2, 10, 120)
HYPER = dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)


def noise(n, stream):
    """Multiples of 2^-24 in [-0.5, 0.5), from integers alone: the test makes the same."""
    x = (np.arange(n, dtype=np.uint64) * 747796405 + np.uint64(stream) * 2891336453 + 277803737) & 0xFFFFFFFF
    for shift, factor in ((16, 2246822519), (13, 3266489917), (16, 1)):
        x = ((x ^ (x >> np.uint64(shift))) * np.uint64(factor)) & 0xFFFFFFFF
    return ((x >> np.uint64(8)).astype(np.float64) / 2**24 - 0.5).astype(np.float32)


def gradient(n, param, step):
    """Sizes 2^0 to 2^-16 side by side within a block, a steady part and a changing one."""
    size = np.exp2(-4.0 * (np.arange(n) % 5)).astype(np.float32)
    return (noise(n, 1000 * (param + 1)) + noise(n, 1000 * (param + 1) + step)) * size


class Nearest:
    """The library's CPU quantiser takes neighbours of the nearest entry for some values; its torch backend does not.
    `lowest`: the lowest code given to second moments."""

    def __init__(self, lowest):
        self.lowest = lowest

    def __enter__(self):
        import bitsandbytes.backends.cpu.ops as ops
        self.ops, self.kept = ops, ops._quant_blockwise_fp32_direct

        def exact(values, code, absmax_out, codes_out, blocksize):
            flat, n = values.reshape(-1), values.numel()
            padded = torch.zeros(-(-n // blocksize) * blocksize)
            padded[:n] = flat
            blocks = padded.view(-1, blocksize)
            absmax = blocks.abs().amax(1)
            scaled = torch.clamp(blocks * (1.0 / absmax.clamp(min=1e-38))[:, None], -1, 1).reshape(-1)[:n]
            found = torch.bucketize(scaled, (code[:-1] + code[1:]) / 2)
            if code[0] == 0:
                found = found.clamp(min=self.lowest)
            codes_out.copy_(found.to(torch.uint8).view(values.shape))
            absmax_out.copy_(absmax)
        ops._quant_blockwise_fp32_direct = exact

    def __exit__(self, *_):
        self.ops._quant_blockwise_fp32_direct = self.kept


def start():
    return {name: torch.nn.Parameter(torch.from_numpy(noise(r * c, 7 + i)).view(r, c).clone())
            for i, (name, (r, c)) in enumerate(SHAPES.items())}


def run(make):
    params = start()
    optimizer, out = make(list(params.values())), {}
    for step in range(1, STEPS + 1):
        for i, p in enumerate(params.values()):
            p.grad = torch.from_numpy(gradient(p.numel(), i, step)).view(p.shape)
        optimizer.step()
        if step in KEPT:
            for name, p in params.items():
                out[f"{name}.{step}"] = p.detach().clone()
                for key, value in optimizer.state[p].items():
                    if key in ("state1", "state2", "absmax1", "absmax2") and step <= 10:
                        out[f"{name}.{step}.{key}"] = value.clone()
    return out


def truth():
    out = {}
    for i, (name, p) in enumerate(start().items()):
        p = p.detach().double()
        m, v = torch.zeros_like(p), torch.zeros_like(p)
        b1, b2 = HYPER["betas"]
        for step in range(1, STEPS + 1):
            g = torch.from_numpy(gradient(p.numel(), i, step)).view(p.shape).double()
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
            p = p * (1 - HYPER["lr"] * HYPER["weight_decay"])
            p = p - HYPER["lr"] * (m / (1 - b1**step)) / ((v / (1 - b2**step)).sqrt() + HYPER["eps"])
            if step in KEPT:
                out[f"{name}.{step}"] = p.clone()
    return out


def main(seed, preset, out):
    folder = topic_dir(out, "adamw8")
    eight = lambda params: bnb.optim.AdamW8bit(params, **HYPER)
    library = run(eight)
    with Nearest(0):
        nearest = run(eight)
    with Nearest(1):
        floored = run(eight)
    full = run(lambda params: torch.optim.AdamW(params, foreach=False, **HYPER))
    double = truth()
    tensors = {"map.signed": F.create_dynamic_map(signed=True), "map.unsigned": F.create_dynamic_map(signed=False)}
    tensors.update({f"floored.{k}": v for k, v in floored.items()})
    tensors.update({f"nearest.{k}": v for k, v in nearest.items() if k.split(".")[1] == "1"})
    tensors.update({f"library.{k}": v for k, v in library.items() if k.count(".") == 1})
    tensors.update({f"truth.{k}": v for k, v in double.items() if k.endswith(f".{STEPS}")})
    save_tensors(folder / "adamw8.safetensors", tensors)
    load_tensors(folder / "adamw8.safetensors")
    moved = {name: double[f"{name}.{STEPS}"] - p.detach().double() for name, p in start().items()}
    results = {"versions": versions(), "hyper": {k: list(v) if isinstance(v, tuple) else v for k, v in HYPER.items()}, "steps": STEPS,
               "relative_error_of_update": {
                   label: {name: diff(got[f"{name}.{STEPS}"].double() - start()[name].detach().double(), moved[name])["rel_rms"]
                           for name in SHAPES} for label, got in (("torch_f32", full), ("nearest", nearest), ("floored", floored), ("library", library))}}
    save_json(folder / "results.json", results)
    e = results["relative_error_of_update"]
    write_readme(folder, f"""
# adamw8: AdamW with 8-bit moments by bitsandbytes {versions()['bitsandbytes']} on CPU

`adamw8.safetensors`: `map.signed`, `map.unsigned` F32 [256] = create_dynamic_map; parameters `whole` [64, 96] (24 blocks of 256),
`partial` [50, 93] (18 blocks and 42 values), `small` [61, 67] (below min_8bit_size 4096: f32 moments) after 1, 2, 10 and {STEPS} steps as
`KIND.NAME.STEP`, moments after 1, 2 and 10 as `KIND.NAME.STEP.state1|state2` (U8) and `.absmax1|absmax2` (F32). Values and gradients are made from
integers (`noise`, `gradient` in make_adamw8.py; the test repeats them): sizes from 1 to 2^-16 lie side by side in every block. KIND:

- `nearest`: bitsandbytes' own step, codes the nearest entries (the formula of its torch backend and of its CUDA kernels), moments after one step;
- `floored`: the same without code 0 for second moments, so that none becomes 0 beside a large one and leaves eps alone in the denominator;
- `library`: with its CPU quantiser, which takes neighbours of the nearest entry for some values (3 % without sign), small ones higher;
- `truth`: AdamW in double, last step only.

Error of the update of {STEPS} steps (rms of the difference from the truth over rms of the update): torch f32 {e['torch_f32']['whole']:.1e},
nearest {e['nearest']['whole']:.3g}, floored {e['floored']['whole']:.3g}, library {e['library']['whole']:.3g} (`partial`: {e['nearest']['partial']:.3g}, {e['floored']['partial']:.3g}, {e['library']['partial']:.3g}).
Tolerance: maps equal; after one step codes and absmax equal but where f32 sums are rounded in another order (absmax 3e-7 relative, one code in 1000 by
one); parameters 1e-6 after one step; after {STEPS} steps a twentieth of the distance between `floored` and the truth.
""")
