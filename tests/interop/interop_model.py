# SPDX-License-Identifier: MIT
"""Model folders against transformers and bitsandbytes: forward, 4-bit folders both ways, import, generation."""
import json
import shutil

import numpy as np
import torch
from transformers import (AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM, MixtralConfig,
                          MixtralForCausalLM)

from harness import (GOLDEN, QUICKSTART, check, check_close, hanmix, logits_of, quickstart_model, random_ids, save_ids, stage,
                     tensors, test)

FORWARD_LIMIT = 2e-5  # f32 products summed in another order
LLAMA2C = GOLDEN / "models"


def ours(folder, model, ids, **more):
    save_ids(folder / "ids.safetensors", ids)
    stage("eval.logits", folder / "logits", in_model=model, in_ids=folder / "ids.safetensors", **more)
    found = tensors(folder / "logits" / "logits.safetensors")
    shutil.rmtree(folder / "logits")
    return found


def forward_agrees(folder, model, vocab, seed):
    model = model.eval()
    model.save_pretrained(str(folder / "model"), max_shard_size="100KB")
    ids = random_ids(seed, 2, 70, vocab)
    found = ours(folder, folder / "model", ids)
    theirs = torch.as_tensor(logits_of(model, ids))
    check_close("logits", found["logits"], theirs, FORWARD_LIMIT)
    loss = torch.nn.functional.cross_entropy(theirs[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    check_close("loss", found["loss"].flatten(), loss, FORWARD_LIMIT)
    return found, ids


@test
def mixtral_forward(folder):
    torch.manual_seed(1)
    config = MixtralConfig(vocab_size=300, hidden_size=96, intermediate_size=160, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2,
                           num_local_experts=5, num_experts_per_tok=3, max_position_embeddings=128, sliding_window=24, initializer_range=0.2,
                           tie_word_embeddings=False, attn_implementation="eager")
    model = MixtralForCausalLM(config)
    found, ids = forward_agrees(folder, model, 300, 1)
    with torch.no_grad():
        routers = model(input_ids=ids, output_router_logits=True).router_logits
    for layer, theirs in enumerate(routers):
        check_close(f"router {layer}", found[f"router_logits.{layer}"], theirs, FORWARD_LIMIT)


@test
def llama_forward(folder):
    for tied in (False, True):
        torch.manual_seed(2)
        config = LlamaConfig(vocab_size=257, hidden_size=64, intermediate_size=172, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=4,
                             max_position_embeddings=128, tie_word_embeddings=tied, initializer_range=0.2, attn_implementation="eager")
        (folder / str(tied)).mkdir()
        forward_agrees(folder / str(tied), LlamaForCausalLM(config), 257, 2)


def four_bit(path):
    return AutoModelForCausalLM.from_pretrained(str(path), dtype=torch.float32, attn_implementation="eager").eval()


def by_formula(codes, state):
    absmax = state.absmax
    if state.nested:
        absmax = state.state2.code[absmax.long()] * state.state2.absmax.repeat_interleave(state.state2.blocksize)[:absmax.numel()] + state.offset
    nibbles = torch.stack([codes >> 4, codes & 15], dim=1).flatten().long()
    return (state.code[nibbles] * absmax.float().repeat_interleave(state.blocksize)[:nibbles.numel()]).reshape(state.shape)


def dequantised(model):
    """The same model with every 4-bit linear replaced by its exact float32 values: code x absmax."""
    import bitsandbytes as bnb
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, bnb.nn.Linear4bit):
                linear = torch.nn.Linear(child.in_features, child.out_features, bias=False)
                state = child.weight.quant_state
                state.dtype = torch.float32
                codes = child.weight.data.contiguous().view(torch.uint8)  # the CPU code takes no other storage
                whole = child.in_features % state.blocksize == 0  # else its AVX-512 code reads wrong scales: tests/golden/data/nf4/README.md
                values = bnb.functional.dequantize_4bit(codes, state) if whole else by_formula(codes.flatten(), state)
                linear.weight.data = values.float()
                setattr(module, name, linear)
    return model


@test
def our_four_bit_folder_loads(folder):
    for double in ("true", "false"):
        out = folder / f"nf4-{double}"
        report = stage("qlora.quantize", out, in_model=QUICKSTART / "base", set_double_quant=double)
        check(report["quantized_tensors"] == 5 * (4 + 4 * 3), f"{report['quantized_tensors']} tensors are 4-bit")
        check(any("lm_head" in n for n in report["unquantized_tensors"]) and not any("experts" in n for n in report["unquantized_tensors"]), str(report["unquantized_tensors"]))
        ids = random_ids(3, 2, 40, 512)
        model = dequantised(four_bit(out))
        check_close(f"logits, double_quant {double}", ours(folder, out, ids)["logits"], logits_of(model, ids), FORWARD_LIMIT)


@test
def our_codes_are_theirs(folder):
    import bitsandbytes as bnb
    stage("qlora.quantize", folder / "nf4", in_model=QUICKSTART / "base", set_double_quant="false")
    before, after = tensors(QUICKSTART / "base"), tensors(folder / "nf4")
    count = 0
    for name, weight in before.items():
        if name + ".absmax" not in after:
            continue
        code, state = bnb.functional.quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=False)
        check(torch.equal(after[name].flatten(), code.flatten()), f"{name}: codes")
        check(torch.equal(after[name + ".absmax"].flatten(), state.absmax.float().flatten()), f"{name}: absmax")
        count += 1
    check(count == 80, f"{count} tensors compared")


@test
def their_four_bit_folder_is_read(folder):
    for storage in (torch.uint8, torch.bfloat16):
        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32,
                                    bnb_4bit_quant_storage=storage)
        model = AutoModelForCausalLM.from_pretrained(str(QUICKSTART / "base"), quantization_config=config, dtype=torch.float32, attn_implementation="eager").eval()
        out = folder / str(storage).split(".")[1]
        model.save_pretrained(str(out))
        ids = random_ids(4, 2, 40, 512)
        # loaded again as float32, transformers would widen packed codes that are stored as bfloat16, so the model saved is the one compared
        check_close(f"logits, storage {storage}", ours(folder, out, ids)["logits"], logits_of(dequantised(model), ids), FORWARD_LIMIT)


@test
def imported_llama2c_is_the_model(folder):
    stage("import.llama2c", folder / "hf", in_file=LLAMA2C / "stories260K.bin", in_tokenizer=LLAMA2C / "tok512.model")
    expected = tensors(LLAMA2C / "stories260K-llama-hf")
    found = tensors(folder / "hf")
    check(set(expected) == set(found), f"tensors differ: {set(expected) ^ set(found)}")
    for name in expected:
        check(torch.equal(expected[name].float(), found[name].float()), name)
    model = AutoModelForCausalLM.from_pretrained(str(folder / "hf"), dtype=torch.float32, attn_implementation="eager").eval()
    import sentencepiece as spm
    sp = spm.SentencePieceProcessor(model_file=str(LLAMA2C / "tok512.model"))
    ids = [1] + sp.encode("Once upon a time")
    with torch.no_grad():
        theirs = model.generate(torch.tensor([ids]), max_new_tokens=120, do_sample=False, eos_token_id=None, pad_token_id=0)[0].tolist()
    text = hanmix("generate", "--model", folder / "hf", "--prompt", "Once upon a time", "--max-tokens", "120").decode("utf-8")
    check(sp.decode(theirs[1:]).startswith(text.strip()[:300]) or text.strip().startswith(sp.decode(theirs[1:])[:300]),
          f"ours: {text[:200]!r}\n    theirs: {sp.decode(theirs[1:])[:200]!r}")


@test
def merged_model_of_the_quickstart_loads(folder):
    ids = random_ids(5, 1, 30, 512)
    check_close("the shipped base", ours(folder, QUICKSTART / "base", ids)["logits"], logits_of(quickstart_model(), ids), FORWARD_LIMIT)
    check(json.loads((QUICKSTART / "base" / "config.json").read_text())["model_type"] == "mixtral", "model_type")
