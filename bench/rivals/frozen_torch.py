# SPDX-License-Identifier: MIT
"""
What torch reaches where bench/frozen runs ours: a bf16 linear on already decoded weights, and bitsandbytes'
Linear4bit (decoding, then that linear). CSV on the standard output: tool,side,shape,m,threads,gflop_s; the best call
of each cell, weights cold (copies that the caches cannot hold take turns), gradients of the input alone.
Needs torch (CPU) and, for the second, bitsandbytes. Usage: frozen_torch.py [--m 8,32,...] [--tools torch,bnb] [--seconds S]
"""
import argparse
import copy
import itertools
import time

import torch

SHAPES = [(14336, 4096), (4096, 14336), (4096, 4096), (1024, 4096)]
POOL_BYTES = 320 << 20
CALLS = 3


def best_seconds(call, weights, budget):
    best, spent = float("inf"), 0.0
    for count, weight in enumerate(itertools.cycle(weights)):
        begin = time.perf_counter()
        call(weight)
        seconds = time.perf_counter() - begin
        spent += seconds
        if count > 0:
            best = min(best, seconds)
        if count >= CALLS and spent >= budget:
            return best


def linear4bit(rows, cols):
    import bitsandbytes as bnb

    layer = bnb.nn.Linear4bit(cols, rows, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4",
                              compress_statistics=True)
    layer.weight = bnb.nn.Params4bit(torch.randn(rows, cols) * 0.02, requires_grad=False, quant_type="nf4",
                                     compress_statistics=True)
    layer = layer.to("cpu")
    if layer.weight.quant_state is None:
        layer.weight = layer.weight._quantize("cpu")
    layer.weight.quant_state.dtype = torch.bfloat16
    return layer


def measure_torch(rows, cols, sizes, budget):
    copies = max(2, POOL_BYTES // (rows * cols * 2))
    first = torch.randn(rows, cols).mul_(0.02).to(torch.bfloat16)
    weights = [first.clone() for _ in range(copies)]
    for m in sizes:
        x = torch.randn(m, cols).to(torch.bfloat16)
        g = torch.randn(m, rows).to(torch.bfloat16)
        yield "torch", "forward", m, best_seconds(lambda w: torch.nn.functional.linear(x, w), weights, budget)
        yield "torch", "backward", m, best_seconds(lambda w: g @ w, weights, budget)


def measure_bnb(rows, cols, sizes, budget):
    copies = max(2, POOL_BYTES // (rows * cols // 2))
    first = linear4bit(rows, cols)
    layers = [copy.deepcopy(first) for _ in range(min(copies, 6))]
    for m in sizes:
        x = torch.randn(m, cols).to(torch.bfloat16).requires_grad_(True)
        g = torch.randn(m, rows).to(torch.bfloat16)
        with torch.no_grad():
            forward = best_seconds(lambda layer: layer(x), layers, budget)
        yield "bnb", "forward", m, forward
        outputs = {id(layer): layer(x) for layer in layers}
        yield "bnb", "backward", m, best_seconds(
            lambda layer: torch.autograd.grad(outputs[id(layer)], x, g, retain_graph=True), layers, budget)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--m", default="1,8,16,32,64,128,256,512,2048")
    parser.add_argument("--tools", default="torch,bnb")
    parser.add_argument("--shape", default="")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.05)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sizes = [int(m) for m in options.m.split(",")]
    measures = {"torch": measure_torch, "bnb": measure_bnb}
    print("tool,side,shape,m,threads,gflop_s", flush=True)
    total = {}
    shapes = [shape for shape in SHAPES if options.shape in ("", "%dx%d" % shape)]
    for tool in options.tools.split(","):
        for rows, cols in shapes:
            for name, side, m, seconds in measures[tool](rows, cols, sizes, options.seconds):
                rate = 2e-9 * rows * cols * m / seconds
                print(f"{name},{side},{rows}x{cols},{m},{options.threads},{rate:.1f}", flush=True)
                flops, spent = total.get((name, side, m), (0, 0))
                total[name, side, m] = flops + 2e-9 * rows * cols * m, spent + seconds
    for (name, side, m), (flops, spent) in total.items():
        print(f"{name},{side},mean,{m},{options.threads},{flops / spent:.1f}")


if __name__ == "__main__":
    main()
