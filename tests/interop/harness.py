# SPDX-License-Identifier: MIT
"""Running hanmix and telling results: a registry of tests, a program runner, float comparison, small models."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import traceback

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # torch and hanmix take turns; neither is to spin meanwhile
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PROGRAM = pathlib.Path(os.environ.get("HANMIX", ROOT / "build" / "cli" / "hanmix")).resolve()
QUICKSTART = ROOT / "examples" / "quickstart"
GOLDEN = ROOT / "tests" / "golden" / "data"
sys.path.insert(0, str(ROOT / "tests" / "golden" / "generate"))

TESTS = []


class Skip(Exception):
    """A test that cannot run here; the message says why."""


def test(function):
    TESTS.append(function)
    return function


def check(condition, message):
    if not condition:
        raise AssertionError(message)


def check_close(what, ours, theirs, limit):
    """Relative rms error of ours against theirs."""
    ours, theirs = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    check(ours.shape == theirs.shape, f"{what}: shapes {ours.shape} and {theirs.shape}")
    error = np.sqrt(((ours - theirs) ** 2).sum() / max((theirs ** 2).sum(), 1e-300))
    check(error <= limit, f"{what}: relative rms error {error:.3g} exceeds {limit:.3g}")
    print(f"    {what}: {error:.2g}")


def hanmix(*args, code=0, text=None):
    """Run the program; its standard output. A different exit code fails the test with what it said."""
    done = subprocess.run([str(PROGRAM), *map(str, args)], input=text, capture_output=True)
    if done.returncode != code:
        raise AssertionError(f"hanmix {' '.join(map(str, args))}: exit {done.returncode}, expected {code}\n"
                             + done.stderr.decode(errors="replace")[-2000:])
    return done.stdout


def stage_args(settings):
    args = []
    for key, value in settings.items():
        kind, _, rest = key.partition("_")
        for item in (value if isinstance(value, tuple) else (value,)):
            args.append(f"{kind}.{rest.replace('__', '.')}={item}")
    return args


def refused(name, out, code, **settings):
    """A stage that must end with this code; what it says on standard error."""
    done = subprocess.run([str(PROGRAM), "stage", name, *stage_args(settings), "--out", str(out)], capture_output=True, text=True)
    check(done.returncode == code, f"{name}: exit {done.returncode}, expected {code}: {done.stderr[-500:]}")
    return done.stderr


def stage(name, out, code=0, **settings):
    """hanmix stage NAME with in_KEY=... and set_KEY=... as keyword arguments; report.json as a dict. Products are f32 unless asked otherwise."""
    if name in ("qlora.train", "eval.loss", "eval.logits"):
        settings.setdefault("set_compute", "f32")
    hanmix("stage", name, *stage_args(settings), "--out", out, code=code)
    path = pathlib.Path(out) / "report.json"
    return json.loads(path.read_text()) if path.exists() else {}


def tensors(path):
    """All tensors of a file or of a folder's safetensors."""
    path = pathlib.Path(path)
    out = {}
    for file in sorted(path.glob("*.safetensors")) if path.is_dir() else [path]:
        with safe_open(str(file), framework="pt") as f:
            out.update({key: f.get_tensor(key) for key in f.keys()})
    return out


def save_ids(path, ids, **more):
    save_file({"input_ids": torch.as_tensor(ids, dtype=torch.int64), **more}, str(path))


def random_ids(seed, rows, length, vocab):
    gen = torch.Generator().manual_seed(seed)
    return torch.randint(3, vocab, (rows, length), generator=gen)


def logits_of(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.as_tensor(ids)).logits.float().numpy()


def quickstart_model():
    """The shipped base in float32; its weights are exact in bfloat16."""
    from transformers import AutoModelForCausalLM
    return AutoModelForCausalLM.from_pretrained(str(QUICKSTART / "base"), dtype=torch.float32,
                                                attn_implementation="eager").eval()


def documents_of(path, most_bytes=-1):
    """The texts of a .jsonl.zst, or of its first bytes."""
    import zstandard
    with open(path, "rb") as raw:
        text = zstandard.ZstdDecompressor().stream_reader(raw).read(most_bytes)
    rows = text.split(b"\n")
    return [json.loads(line)["text"] for line in (rows[:-1] if text[-1:] != b"\n" else rows) if line]


def documents(name, limit=None):
    return documents_of(QUICKSTART / "text" / name)[:limit]


def main(only):
    import transformers
    import warnings
    torch.set_num_threads(2)
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module="peft")
    passed = failed = skipped = 0
    check(PROGRAM.exists(), f"{PROGRAM} is not there; build first or set HANMIX")
    for function in TESTS:
        name = function.__module__.replace("interop_", "") + "." + function.__name__
        if only and not any(word in name for word in only):
            continue
        folder = pathlib.Path(tempfile.mkdtemp(prefix="hanmix-interop-"))
        begin = time.time()
        try:
            function(folder)
            passed += 1
            print(f"PASS {name} ({time.time() - begin:.1f} s)", flush=True)
        except Skip as reason:
            skipped += 1
            print(f"SKIP {name}: {reason}", flush=True)
        except Exception as error:
            failed += 1
            if not isinstance(error, AssertionError):
                traceback.print_exc(file=sys.stdout)
            print(f"FAIL {name}\n    {error}", flush=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or passed == 0 else 0
