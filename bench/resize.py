#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Growing the vocabulary of a Mixtral-shaped checkpoint in shards: memory, time, what is written, what kills and a full disk leave.

resize.py BUILD_DIR WORK_DIR [--layers N] [--dense] [--far DIR] [--inits mean,...] [--kills N]
  A bf16 folder of N layers (32: the 94 GB of Mixtral-8x7B) in shards of at most 5 GB is made in WORK_DIR/model unless it is there. Both matrices,
  norms and gates hold random numbers; the experts' and attention's bytes are holes in the files unless --dense writes them. 25,000 pieces are added
  to the 32,000 of tests/golden/data/tokenizers/models/mistral-v1-32000.model. One CSV row per run of `hanmix stage vocab.resize`:
  seconds of the whole command (digests of the model before and of the result after included), peak resident memory (VmHWM, mapped pages
  included), the plan's, bytes written and of those MB a second, files linked and copied. After the first run of a --dense model every tensor but
  the two matrices, and the old rows of these, are compared with the model's, byte for byte.
  --far DIR (on another file system) adds a run that must copy; --inits "" leaves the others out. --kills N: SIGKILL after N different times, then the same command to its end, whose
  files must have the bytes of an undisturbed run; also a file size limit in mid-write, exit 6. Only the standard library is needed.
"""
import argparse, hashlib, json, mmap, os, random, resource, shutil, signal, struct, subprocess, sys, time

HIDDEN, HEADS, KV, FFN, EXPERTS, VOCAB, ADDED = 4096, 32, 8, 14336, 8, 32000, 25000
SHARD_BYTES = 5_000_000_000
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
FIELDS = "case,init,layers,model_gb,exit,seconds,peak_mib,planned_mib,written_mib,written_mb_s,files_linked,files_copied"


def tensors(layers):
    yield "model.embed_tokens.weight", (VOCAB, HIDDEN)
    for layer in range(layers):
        at, head = f"model.layers.{layer}.", HIDDEN // HEADS
        for name, rows in (("q", HEADS * head), ("k", KV * head), ("v", KV * head)):
            yield f"{at}self_attn.{name}_proj.weight", (rows, HIDDEN)
        yield at + "self_attn.o_proj.weight", (HIDDEN, HEADS * head)
        yield at + "block_sparse_moe.gate.weight", (EXPERTS, HIDDEN)
        for e in range(EXPERTS):
            yield f"{at}block_sparse_moe.experts.{e}.w1.weight", (FFN, HIDDEN)
            yield f"{at}block_sparse_moe.experts.{e}.w2.weight", (HIDDEN, FFN)
            yield f"{at}block_sparse_moe.experts.{e}.w3.weight", (FFN, HIDDEN)
        yield at + "input_layernorm.weight", (HIDDEN,)
        yield at + "post_attention_layernorm.weight", (HIDDEN,)
    yield "model.norm.weight", (HIDDEN,)
    yield "lm_head.weight", (VOCAB, HIDDEN)


HIGH = bytes(0x3C if b & 1 else 0xBC for b in range(256))  # sign and exponent of about 0.01


def random_bf16(count, seed):
    data = bytearray(random.Random(seed).randbytes(2 * count))
    data[1::2] = data[1::2].translate(HIGH)
    return data


def model_make(folder, layers, dense):
    """The folder, in Hugging Face's layout."""
    shards, used = [[]], 0
    for name, shape in tensors(layers):
        size = 2
        for n in shape:
            size *= n
        if used + size > SHARD_BYTES:
            shards.append([])
            used = 0
        shards[-1].append((name, shape, size))
        used += size
    os.makedirs(folder)
    places, block = {}, random_bf16(1 << 25, 1)
    for number, shard in enumerate(shards):
        file = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        header, at = {"__metadata__": {"format": "pt"}}, 0
        for name, shape, size in shard:
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
            places[name] = file
            at += size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(os.path.join(folder, file), "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            for name, shape, size in shard:
                if "experts" in name or "self_attn" in name:
                    for done in range(0, size if dense else 0, len(block)):
                        out.write(memoryview(block)[:size - done])
                    if not dense:
                        out.seek(size, os.SEEK_CUR)
                else:
                    out.write(random_bf16(size // 2, name))
            out.truncate(8 + len(text) + at)
    total = sum(size for shard in shards for _, _, size in shard)
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as out:
        json.dump({"metadata": {"total_size": total}, "weight_map": places}, out)
    with open(os.path.join(folder, "config.json"), "w") as out:
        json.dump({"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": FFN,
                   "num_hidden_layers": layers, "num_attention_heads": HEADS, "num_key_value_heads": KV, "num_local_experts": EXPERTS,
                   "num_experts_per_tok": 2, "max_position_embeddings": 32768, "rms_norm_eps": 1e-5, "rope_theta": 1e6, "hidden_act": "silu",
                   "router_aux_loss_coef": 0.02, "tie_word_embeddings": False, "torch_dtype": "bfloat16"}, out)


def tensors_of(path):
    """Name -> (first byte, end) in the file, and the file's bytes."""
    with open(path, "rb") as f:
        data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    start = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:start])
    return {k: (start + v["data_offsets"][0], start + v["data_offsets"][1]) for k, v in header.items() if k != "__metadata__"}, data


def record(number, payload):
    size, head = len(payload), bytes([number << 3 | 2])
    while size > 127:
        head, size = head + bytes([size & 127 | 128]), size >> 7
    return head + bytes([size]) + payload


def tokenizers_make(work):
    """The 32,000 pieces, and the same with 25,000 pieces of two to four Han characters after them."""
    with open(os.path.join(ROOT, "tests", "golden", "data", "tokenizers", "models", "mistral-v1-32000.model"), "rb") as base:
        old = base.read()
    choice, pieces = random.Random(2), {}
    while len(pieces) < ADDED:
        pieces["".join(chr(0x4E00 + int(3000 * choice.random() ** 2)) for _ in range(choice.choice((2, 2, 3, 4))))] = None
    new = old + b"".join(record(1, record(1, piece.encode()) + b"\x15" + struct.pack("<f", -1e5 - k)) for k, piece in enumerate(pieces))
    for name, data in (("old", old), ("new", new)):
        os.makedirs(os.path.join(work, name), exist_ok=True)
        with open(os.path.join(work, name, "tokenizer.model"), "wb") as out:
            out.write(data)


class Bench:
    def __init__(self, args):
        self.args, self.work = args, args.work
        self.model = os.path.join(args.work, "model")

    def command(self, init, out):
        return [f"{self.args.build}/cli/hanmix", "stage", "vocab.resize", f"in.model={self.model}", f"in.old={self.work}/old", f"in.new={self.work}/new",
                f"set.init={init}", "--out", out, "--quiet"]

    def row(self, case, init, code, seconds, out):
        info, report = ({}, {})
        if code == 0:
            with open(os.path.join(out, "stage.json")) as f:
                info = json.load(f)
            with open(os.path.join(out, "report.json")) as f:
                report = json.load(f)
        mib = lambda n: f"{n / 1048576:.0f}" if n is not None else ""
        rate = f"{report['bytes_written'] / seconds / 1e6:.0f}" if report else ""
        print(f"{case},{init},{self.args.layers},{self.total / 1e9:.1f},{code},{seconds:.1f},{mib(info.get('peak_rss_bytes'))},{mib(info.get('planned_bytes'))},"
              f"{mib(report.get('bytes_written'))},{rate},{report.get('files_linked', '')},{report.get('files_copied', '')}", flush=True)

    def run(self, case, init, out):
        shutil.rmtree(out, ignore_errors=True)
        begun = time.monotonic()
        code = subprocess.run(self.command(init, out)).returncode
        self.row(case, init, code, time.monotonic() - begun, out)

    def compare(self, out):
        """Exits when a byte of the model is not where it was; linked files are the same."""
        for name in sorted(n for n in os.listdir(self.model) if n.endswith(".safetensors")):
            if os.path.samefile(os.path.join(self.model, name), os.path.join(out, name)):
                continue
            (old, a), (new, b) = (tensors_of(os.path.join(folder, name)) for folder in (self.model, out))
            if old.keys() != new.keys():
                sys.exit(f"{name} holds other tensors")
            for key, (first, end) in old.items():
                at = new[key][0]
                for done in range(0, end - first, 1 << 26):
                    size = min(1 << 26, end - first - done)
                    if a[first + done:first + done + size] != b[at + done:at + done + size]:
                        sys.exit(f"{name}: {key} changed")

    def digests(self, out):
        """Of the files that are not the base's own."""
        found = {}
        for name in sorted(os.listdir(out)):
            path, base = os.path.join(out, name), os.path.join(self.model, name)
            if os.path.exists(base) and os.path.samefile(path, base) or name in ("stage.json", "report.json"):
                continue
            with open(path, "rb") as f:
                found[name] = hashlib.file_digest(f, "sha256").hexdigest()
        return found

    def kills(self, out, seconds):
        """SIGKILL at several times; what is left has no final name, and the next run ends with the bytes of an undisturbed one."""
        wanted = self.digests(out)
        for k in range(self.args.kills):
            shutil.rmtree(out, ignore_errors=True)
            begun = time.monotonic()
            process = subprocess.Popen(self.command("mean", out))
            time.sleep(seconds * (k + 0.5) / self.args.kills)
            process.send_signal(signal.SIGKILL)
            code = process.wait()
            if code == -signal.SIGKILL and os.path.exists(out):
                sys.exit("a killed run left a folder under its final name")
            code = subprocess.run(self.command("mean", out)).returncode
            if code != 0 or self.digests(out) != wanted:
                sys.exit(f"after SIGKILL number {k + 1}: exit {code} or other bytes")
            self.row(f"killed {k + 1} and again", "mean", code, time.monotonic() - begun, out)

    def full(self, out):
        shutil.rmtree(out, ignore_errors=True)
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300 << 20, 300 << 20))
        begun = time.monotonic()
        done = subprocess.run(self.command("mean", out), preexec_fn=limit, stderr=subprocess.PIPE, text=True)
        if done.returncode != 6 or os.path.exists(out) or os.path.exists(out + ".partial"):
            sys.exit(f"file too large: exit {done.returncode}, expected 6, and nothing left behind\n{done.stderr}")
        self.row("file size limit in mid-write", "mean", done.returncode, time.monotonic() - begun, out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("work")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--dense", action="store_true")
    parser.add_argument("--far")
    parser.add_argument("--inits", default="mean,weighted,mean_upstream,zero,copy,normal")
    parser.add_argument("--kills", type=int, default=0)
    args = parser.parse_args()
    bench = Bench(args)
    os.makedirs(args.work, exist_ok=True)
    tokenizers_make(args.work)
    if not os.path.exists(os.path.join(bench.model, "config.json")):
        model_make(bench.model, args.layers, args.dense)
    bench.total = sum(os.path.getsize(os.path.join(bench.model, f)) for f in os.listdir(bench.model))
    out = os.path.join(args.work, "grown")
    print(FIELDS)
    for number, init in enumerate(filter(None, args.inits.split(","))):
        bench.run("linked", init, out)
        if args.dense and number == 0:
            bench.compare(out)
    if args.far:
        bench.run("copied", "mean", os.path.join(args.far, "grown"))
        shutil.rmtree(os.path.join(args.far, "grown"), ignore_errors=True)
    if args.kills:
        begun = time.monotonic()
        bench.run("linked", "mean", out)
        bench.kills(out, time.monotonic() - begun)
        bench.full(out)


if __name__ == "__main__":
    main()
