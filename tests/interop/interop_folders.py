# SPDX-License-Identifier: MIT
"""Folders that go in and out: merging, adapters kept bit for bit, 4-bit folders byte for byte, and what every report holds."""
import hashlib
import json

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from harness import QUICKSTART, check, check_close, hanmix, logits_of, quickstart_model, random_ids, save_ids, stage, tensors, test
from interop_model import FORWARD_LIMIT, dequantised, four_bit, ours
from interop_objective import small_llama
from interop_rows import grown_base
from interop_train import TARGETS, random_adapter

BASE = QUICKSTART / "base"
TEXT = QUICKSTART / "text"
SHORT = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


def raw(tensor):
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def digests_hold(path):
    """digests.tsv names every tensor with dtype, shape and the SHA-256 of its bytes."""
    rows = [line.split("\t") for line in (path / "digests.tsv").read_text().splitlines()]
    rows = [row for row in rows if row[0] != "tensor"]
    found = tensors(path)
    check({row[0] for row in rows} == set(found) and len(rows) == len(found), "digests.tsv does not name each tensor once")
    for name, dtype, shape, digest in rows:
        tensor = found[name]
        check(dtype == SHORT[tensor.dtype] and "".join(c if c.isdigit() else " " for c in shape).split() == list(map(str, tensor.shape)), f"{name}: {dtype} {shape}")
        check(digest == hashlib.sha256(raw(tensor)).hexdigest(), f"{name}: digest")
    return found


@test
def merging_in_every_way(folder):
    """Onto the original and the dequantised base, to every type, in shards; 1 and 2 threads write the same bytes; peft's own merge agrees."""
    model = random_adapter(folder / "adapter", seed=60, modules_to_save=["embed_tokens", "lm_head", "gate"])
    stage("qlora.quantize", folder / "nf4", in_model=BASE)
    over = PeftModel.from_pretrained(dequantised(four_bit(folder / "nf4")), str(folder / "adapter")).eval()
    theirs = {"original": model.merge_and_unload(), "dequantised": over.merge_and_unload()}
    ids = random_ids(61, 2, 40, 512)
    text = folder / "some.txt"
    text.write_text("Once upon a time there was a dog. 从前有一只狗。\n" * 20, encoding="utf-8")
    for onto, source in (("original", BASE), ("dequantised", folder / "nf4")):
        for dtype, kind in (("base", torch.bfloat16), ("f16", torch.float16), ("f32", torch.float32)):
            names = []
            for threads in (1, 2):
                names.append(folder / f"{onto}-{dtype}-{threads}")
                report = stage("qlora.merge", names[-1], in_model=source, in_adapter=folder / "adapter", set_onto=onto, set_dtype=dtype, set_shard_size="1M",
                               set_verify=text, set_threads=threads)
            one, two = ({f.name: f.read_bytes() for f in n.iterdir() if f.suffix == ".safetensors" or f.name in ("digests.tsv", "model.safetensors.index.json", "config.json")} for n in names)
            check(one == two, f"{onto}, {dtype}: 1 and 2 threads differ")
            found = digests_hold(names[0])
            for name, tensor in theirs[onto].state_dict().items():
                check(found[name].dtype == kind, f"{name} is {found[name].dtype}")
                wanted = tensor.float().to(kind)
                apart = (found[name].float() - wanted.float()).abs() > 2e-6 * wanted.float().abs().max()
                steps = (found[name].float() - wanted.float()).abs() / wanted.float().abs().clamp_min(1e-6)
                check(not apart.any() or float(steps[apart].max()) < 2 ** -7 and float(apart.float().mean()) < 2e-3, f"{onto}, {dtype}, {name}: {int(apart.sum())} values apart")
            check("quantization_config" not in json.loads((names[0] / "config.json").read_text()), "a quantization_config is left")
            loaded = AutoModelForCausalLM.from_pretrained(str(names[0]), dtype=torch.float32, attn_implementation="eager").eval()
            check_close(f"logits, {onto}, {dtype}", ours(folder, names[0], ids)["logits"], logits_of(loaded, ids), FORWARD_LIMIT)
            if dtype == "f32":
                check_close("against peft's merge", logits_of(loaded, ids), logits_of(theirs[onto], ids), FORWARD_LIMIT)
                check(report["verify"]["max_abs_logit_difference"] < 1e-2 and report["verify"]["mean_kl"] < 1e-6, str(report["verify"]))
            check(len(list(names[0].glob("*.safetensors"))) > 1 or dtype != "f32", "no shards were written")
            check((names[0] / "tokenizer.model").read_bytes() == (BASE / "tokenizer.model").read_bytes() and (names[0] / "generation_config.json").exists(), "tokenizer files")


@test
def dense_models_merge(folder):
    """LLaMA, tied and not."""
    for tied in (False, True):
        at = folder / str(tied)
        base = small_llama(tied)
        base.save_pretrained(str(at / "base"))
        model = get_peft_model(base, LoraConfig(r=4, lora_alpha=4, target_modules=["q_proj", "gate_proj", "down_proj"], task_type="CAUSAL_LM"))
        with torch.no_grad():
            for name, p in model.named_parameters():
                if "lora_B" in name:
                    p.normal_(0, 0.1)
        model.save_pretrained(str(at / "adapter"))
        stage("qlora.merge", at / "merged", in_model=at / "base", in_adapter=at / "adapter")
        loaded = AutoModelForCausalLM.from_pretrained(str(at / "merged"), dtype=torch.float32, attn_implementation="eager").eval()
        ids = random_ids(62, 1, 30, 200)
        check_close(f"tied {tied}", logits_of(loaded, ids), logits_of(model.eval(), ids), FORWARD_LIMIT)
        check_close("ours", ours(at, at / "merged", ids)["logits"], logits_of(model, ids), FORWARD_LIMIT)


@test
def adapters_keep_every_bit(folder):
    """A step with learning rate 0 is load and save: the tensors come back bit for bit, the settings too."""
    ids = folder / "ids.safetensors"
    save_ids(ids, random_ids(63, 2, 16, 512))
    for name, dtype, more in (("f32", torch.float32, {}), ("bf16", torch.bfloat16, {"use_rslora": True}), ("f16", torch.float16, {"rank_pattern": {"w2": 6}, "alpha_pattern": {"q_proj": 3}}),
                              ("saved", torch.float32, {"modules_to_save": ["embed_tokens", "lm_head", "gate"]}), ("decayed", torch.float32, {})):
        random_adapter(folder / name, seed=64, dtype=dtype, **more)
        settings = dict(set_weight_decay=0.5, set_decay="all") if name == "decayed" else {}
        stage("qlora.train", folder / f"{name}-run", in_model=BASE, in_ids=ids, in_adapter=folder / name, set_lr=0, set_steps=2, **settings)
        before, after = tensors(folder / name), tensors(folder / f"{name}-run" / "adapter")
        check(set(before) == set(after), f"{name}: {sorted(set(before) ^ set(after))[:3]}")
        for key in before:
            check(after[key].dtype == torch.float32 and torch.equal(after[key], before[key].float()), f"{name}: {key} changed")
        ours_, theirs = (json.loads((folder / d / "adapter_config.json").read_text()) for d in (f"{name}-run/adapter", name))
        for key in ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "bias", "peft_type", "task_type"):
            check(ours_[key] == theirs[key], f"{name}: {key} is {ours_[key]}, was {theirs[key]}")
        check(sorted(ours_["target_modules"]) == sorted(theirs["target_modules"]) and sorted(ours_["modules_to_save"] or []) == sorted(theirs["modules_to_save"] or []), name)


@test
def four_bit_folder_is_theirs(folder):
    """Tensor names, codes, absmax, nested absmax and the JSON text of qlora.quantize against what transformers saves, by the rules of tests/golden/data/nf4."""
    for double in (True, False):
        out = folder / f"ours-{double}"
        report = stage("qlora.quantize", out, in_model=BASE, set_double_quant=str(double).lower())
        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=double, bnb_4bit_compute_dtype=torch.bfloat16,
                                    llm_int8_skip_modules=["lm_head", "embed_tokens", "gate"])
        model = AutoModelForCausalLM.from_pretrained(str(BASE), quantization_config=config, dtype=torch.bfloat16)
        model.save_pretrained(str(folder / f"theirs-{double}"))
        found, wanted = tensors(out), tensors(folder / f"theirs-{double}")
        check(set(found) == set(wanted), f"tensors: {sorted(set(found) ^ set(wanted))[:4]}")
        apart = total = 0
        for name, theirs in wanted.items():
            mine = found[name]
            check(mine.dtype == theirs.dtype and mine.numel() == theirs.numel(), f"{name}: {mine.dtype} {tuple(mine.shape)}, {theirs.dtype} {tuple(theirs.shape)}")
            if "quant_state" in name:
                a, b = (json.loads(bytes(t.numpy().tobytes())) for t in (mine, theirs))
                offset = a.pop("nested_offset", 0.0), b.pop("nested_offset", 0.0)
                check(a == b and list(a) == list(b) and abs(offset[0] - offset[1]) <= 1e-6 * abs(offset[1]), f"{name}: {a} {b}")
                check(offset[0] != offset[1] or raw(mine) == raw(theirs), f"{name}: the JSON text differs")
            elif name.endswith("nested_absmax"):
                check_quiet(name, mine, theirs)
            elif name.endswith(".absmax") and double:
                steps = (mine.int() - theirs.int()).abs()
                check(int(steps.max()) <= 1, f"{name}: a code is {int(steps.max())} steps off")
                apart, total = apart + int(steps.sum()), total + steps.numel()
            else:
                check(raw(mine) == raw(theirs), f"{name} differs")
        check(apart <= 3e-3 * max(total, 1000), f"{apart} of {total} codes of absmax one step off")
        ours_, theirs = (json.loads((p / "config.json").read_text())["quantization_config"] for p in (out, folder / f"theirs-{double}"))
        for key in ("load_in_4bit", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant", "quant_method", "bnb_4bit_compute_dtype", "bnb_4bit_quant_storage"):
            check(ours_[key] == theirs[key], f"{key} is {ours_[key]}, theirs {theirs[key]}")
        check(sorted(report["unquantized_tensors"]) == sorted(n for n in found if found[n].dtype == torch.bfloat16 and found[n].dim() == 2), str(report["unquantized_tensors"]))
        by_class = report["bytes_by_class"]
        size = sum(t.numel() * t.element_size() for n, t in found.items() if ".experts." in n)
        check(by_class["expert"] == size and sum(by_class.values()) == sum(t.numel() * t.element_size() for t in found.values()), f"{by_class}, experts {size}")
        print(f"    double_quant {double}: {len(found)} tensors, {apart} of {total} codes of absmax one step off")


def check_quiet(name, mine, theirs):
    check(torch.allclose(mine, theirs, rtol=1e-6, atol=0), f"{name} differs")


@test
def settings_of_quantising(folder):
    """blocksize, skip, compute_dtype: read back by us and by transformers."""
    ids = random_ids(65, 2, 30, 512)
    for name, settings, changed in (("blocks", dict(set_blocksize=256), {}), ("skip", dict(set_skip="lm_head,embed_tokens,gate,o_proj"), {"o_proj": torch.bfloat16}),
                                    ("gate", dict(set_skip="lm_head"), {"gate": torch.uint8}), ("all", dict(set_skip="[]"), {"gate": torch.uint8, "lm_head": torch.uint8}), ("f16", dict(set_compute_dtype="f16"), {"lm_head": torch.float16})):
        out = folder / name
        stage("qlora.quantize", out, in_model=BASE, **settings)
        found = tensors(out)
        for leaf, dtype in changed.items():
            check(all(t.dtype == dtype for n, t in found.items() if n.endswith(f"{leaf}.weight")), f"{name}: {leaf}")
        check_close(name, ours(folder, out, ids)["logits"], logits_of(dequantised(four_bit(out)), ids), FORWARD_LIMIT)


KEYS = {
    "vocab.train": "pieces",
    "vocab.merge": "base_pieces added dropped vocab_size",
    "vocab.check": "lines differing lint han_lines",
    "vocab.measure": "tokenizers",
    "qlora.quantize": "bytes_by_class quantized_tensors unquantized_tensors rms_error",
    "qlora.train": "steps tokens tokens_per_s gflops gemm_peak_fraction peak_rss_bytes planned_bytes phase_seconds targets trainable_parameters final_loss",
    "eval.loss": "sets",
}
MEASURED = "name documents bytes chars han_chars tokens tokens_per_char bytes_per_token byte_fallback_tokens unk_tokens reduction_vs_first"


def has_keys(what, found, keys):
    missing = [key for key in keys.split() if key not in found]
    check(not missing, f"{what} lacks {missing}: {sorted(found)}")


@test
def reports_hold_what_is_promised(folder):
    """Every key and file that the contract names, from one small run over all stages; planned is never below the peak."""
    zh, en = TEXT / "zh.valid.jsonl.zst", TEXT / "en.valid.jsonl.zst"
    (folder / "recipe.yaml").write_text(f"""
run_dir: {folder}/run
seed: 3
stages:
  - {{id: zh, stage: vocab.train, in: {{text: "{zh}"}}, set: {{pieces: 400}}}}
  - {{id: merged, stage: vocab.merge, in: {{base: "{BASE}/tokenizer.model", extra: $zh}}}}
  - {{id: check, stage: vocab.check, in: {{old: "{BASE}", new: $merged, text: {{zh: "{zh}", en: "{en}"}}}}}}
  - {{id: eff, stage: vocab.measure, in: {{text: {{zh: "{zh}", en: "{en}"}}, tokenizers: ["{BASE}", $merged]}}, set: {{sample_bytes: 200K}}}}
  - {{id: grown, stage: vocab.resize, in: {{model: "{BASE}", old: "{BASE}", new: $merged}}}}
  - {{id: packed, stage: corpus.pack, in: {{text: {{zh: {{files: "{zh}", weight: 2}}, en: "{en}"}}, tokenizer: $merged}}, set: {{seq_len: 64, valid_fraction: 0.1, sample_bytes: 100K}}}}
  - {{id: nf4, stage: qlora.quantize, in: {{model: $grown}}}}
  - {{id: lora, stage: qlora.train, in: {{model: $nf4, data: $packed, valid: $packed}}, set: {{steps: 6, eval_every: 3, save_every: 3, keep: 1, train_embeddings: new, train_head: new, aux_coef: 0.02, dump_gradients: 2}}}}
  - {{id: out, stage: qlora.merge, in: {{model: $grown, adapter: $lora}}}}
  - {{id: loss, stage: eval.loss, in: {{model: $nf4, adapter: $lora, text: {{en: "{en}"}}}}, set: {{sample_bytes: 20K}}}}
""", encoding="utf-8")
    hanmix("run", folder / "recipe.yaml")
    reports = {}
    for path in sorted((folder / "run").glob("*/stage.json")):
        about = json.loads(path.read_text())
        has_keys(str(path.parent.name), about, "config inputs wall_seconds peak_rss_bytes planned_bytes memory_peak_bytes")
        check(about["planned_bytes"] >= about["peak_rss_bytes"], f"{path.parent.name}: planned {about['planned_bytes']}, peak {about['peak_rss_bytes']}")
        reports[about["stage"]] = json.loads((path.parent / "report.json").read_text())
    for name, keys in KEYS.items():
        has_keys(name, reports[name], keys)
    for item in reports["vocab.measure"]["tokenizers"]:
        has_keys("vocab.measure", item, "path vocab_size sets")
        for found in item["sets"]:
            has_keys("vocab.measure", found, MEASURED + " low high")
    has_keys("bytes_by_class", reports["qlora.quantize"]["bytes_by_class"], "expert attention gate embed head norm")
    has_keys("eval.loss", reports["eval.loss"]["sets"][0], "name tokens bytes chars nats_per_token bits_per_byte bits_per_char bits_per_byte_low bits_per_byte_high")
    lines = [json.loads(line) for line in (folder / "run" / "lora" / "metrics.jsonl").read_text().splitlines()]
    held_out = json.loads((folder / "run" / "packed" / "report.json").read_text())["valid_windows"]
    for line in lines:
        if "eval" in line:
            check(line["eval"]["valid"]["tokens"] == held_out * 63, "in.valid of a folder is not its valid.hmp")
            has_keys("evaluation", line["eval"]["valid"], "nats_per_token bits_per_byte")
        else:
            has_keys("metrics.jsonl", line, "step tokens loss aux grad_norm lr tok_s phase_ms rss")
    check(lines[0]["step"] == 0 and "eval" in lines[0], "no evaluation before training")
    gradients = tensors(folder / "run" / "lora" / "gradients-2.safetensors")
    check("loss" in gradients and set(gradients) - {"loss"} == set(tensors(folder / "run" / "lora" / "adapter")), "gradients-2.safetensors")
    check(abs(float(gradients["loss"]) - next(l["loss"] for l in lines if l["step"] == 2 and "loss" in l)) < 1e-5, "loss in gradients-2.safetensors")
    for name in ("zh/tokenizer.model zh/pieces.tsv merged/tokenizer.model merged/tokenizer.json merged/tokenizer_config.json merged/special_tokens_map.json merged/added_pieces.tsv "
                 "merged/dropped_pieces.tsv eff/efficiency.csv eff/efficiency.svg eff/efficiency.md grown/hanmix.json grown/tokenizer.model grown/generation_config.json "
                 "nf4/hanmix.json nf4/tokenizer.model nf4/generation_config.json out/digests.tsv out/tokenizer.model out/generation_config.json out/hanmix.json "
                 "packed/train.hmp packed/valid.hmp lora/adapter/adapter_config.json lora/adapter/adapter_model.safetensors lora/tensorboard lora/plots "
                 "manifest.json report.md index.html").split():
        check((folder / "run" / name).exists(), f"{name} is not there")
    check([p.name for p in sorted((folder / "run" / "lora").glob("state-*"))] == ["state-6"], "states kept")
    check(any((folder / "run" / "lora" / "plots").glob("*.svg")), "no plots")
    check((folder / "run" / "merged" / "dropped_pieces.tsv").read_text().splitlines()[0].split("\t")[-2:] == ["piece", "reason"], "dropped_pieces.tsv")
    check((folder / "run" / "zh" / "pieces.tsv").read_text(encoding="utf-8").splitlines()[0].split("\t") == ["rank", "piece", "count"], "pieces.tsv")


@test
def large_models_are_streamed(folder):
    """A model of 400 MB is quantised and merged in a small part of that, and within what was planned."""
    from transformers import MixtralConfig, MixtralForCausalLM
    torch.manual_seed(66)
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = MixtralForCausalLM(MixtralConfig(vocab_size=1000, hidden_size=1024, intermediate_size=4096, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=2,
                                                 num_local_experts=8, max_position_embeddings=64, tie_word_embeddings=False))
    finally:
        torch.set_default_dtype(torch.float32)
    model.save_pretrained(str(folder / "base"))
    size = sum(f.stat().st_size for f in (folder / "base").glob("*.safetensors"))
    adapted = get_peft_model(model, LoraConfig(r=16, lora_alpha=16, target_modules=TARGETS, task_type="CAUSAL_LM", init_lora_weights=False))
    adapted.save_pretrained(str(folder / "adapter"))
    key = "model.layers.1.block_sparse_moe.experts.7.w2"
    part = adapted.base_model.model.get_submodule(key)
    wanted = (part.base_layer.weight.float() + part.lora_B["default"].weight.float() @ part.lora_A["default"].weight.float()).bfloat16()
    for name, args in (("qlora.quantize", {}), ("qlora.merge", {"in_adapter": folder / "adapter"})):
        stage(name, folder / name, in_model=folder / "base", **args)
        about = json.loads((folder / name / "stage.json").read_text())
        peak, planned = about["peak_rss_bytes"], about["planned_bytes"]
        print(f"    {name}: peak {peak >> 20} MiB, planned {planned >> 20} MiB, model {size >> 20} MiB, {about['wall_seconds']:.1f} s")
        check(peak <= planned <= max(1.15 * peak, peak + (48 << 20)), f"{name}: peak {peak >> 20} MiB, planned {planned >> 20} MiB")
        check(peak < size / 2, f"{name}: peak {peak >> 20} MiB for a model of {size >> 20} MiB")
    found = tensors(folder / "qlora.merge")[key + ".weight"]
    check(float((found != wanted).float().mean()) < 1e-3, "the merged values differ")
