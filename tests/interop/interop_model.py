# SPDX-License-Identifier: MIT
"""Model folders against transformers and bitsandbytes: forward, 4-bit folders both ways, import, generation."""
import json
import shutil

import numpy as np
import torch
from transformers import (AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM, MixtralConfig,
                          MixtralForCausalLM)

from harness import (GOLDEN, QUICKSTART, check, check_close, hanmix, logits_of, quickstart_model, random_ids, refused, save_ids,
                     stage, tensors, test)

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
def shapes_of_models(folder):
    """Numbers of experts and of those chosen, heads of their own size, one shared key head, a tied Mixtral."""
    def moe(**more):
        return MixtralForCausalLM(MixtralConfig(**{**dict(vocab_size=300, hidden_size=96, intermediate_size=160, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2,
                                                          max_position_embeddings=128, initializer_range=0.2, tie_word_embeddings=False, attn_implementation="eager"), **more}))

    def dense(**more):
        return LlamaForCausalLM(LlamaConfig(**{**dict(vocab_size=300, hidden_size=64, intermediate_size=172, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=4,
                                                      max_position_embeddings=128, initializer_range=0.2, attn_implementation="eager"), **more}))
    cases = [lambda e=e, k=k: moe(num_local_experts=e, num_experts_per_tok=k) for e, k in ((4, 1), (3, 3), (1, 1), (8, 2))]
    cases += [lambda: moe(num_local_experts=3, num_key_value_heads=6, tie_word_embeddings=True), lambda: dense(head_dim=16), lambda: dense(num_key_value_heads=1, rope_theta=5e5, rms_norm_eps=1e-6)]
    for i, make in enumerate(cases):
        torch.manual_seed(70 + i)
        (folder / str(i)).mkdir()
        forward_agrees(folder / str(i), make(), 300, 70 + i)


@test
def stored_types_and_shards(folder):
    """F16, BF16 and F32 on disk, in one file and in many; what is read is what transformers reads."""
    for kind in (torch.float16, torch.bfloat16, torch.float32):
        for shard in ("100KB", "5GB"):
            at = folder / f"{kind}-{shard}"
            torch.manual_seed(80)
            config = MixtralConfig(vocab_size=180, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2, num_local_experts=6,
                                   max_position_embeddings=64, initializer_range=0.15, tie_word_embeddings=False)
            MixtralForCausalLM(config).to(kind).save_pretrained(str(at / "model"), max_shard_size=shard)
            check((len(list((at / "model").glob("*.safetensors"))) == 1) == (shard == "5GB"), "shards")
            loaded = AutoModelForCausalLM.from_pretrained(str(at / "model"), dtype=torch.float32, attn_implementation="eager").eval()
            ids = random_ids(80, 2, 40, 180)
            check_close(f"{kind}, {shard}", ours(at, at / "model", ids)["logits"], logits_of(loaded, ids), FORWARD_LIMIT)


@test
def unsupported_models_are_refused(folder):
    for i, (more, word) in enumerate(((dict(attention_bias=True), "attention_bias"), (dict(mlp_bias=True), "mlp_bias"), (dict(hidden_act="gelu"), "hidden_act"),
                                      (dict(rope_scaling={"rope_type": "linear", "factor": 2.0}), "rope_scaling"))):
        LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4, **more)).save_pretrained(str(folder / str(i)))
        save_ids(folder / "ids.safetensors", random_ids(81, 1, 8, 64))
        said = refused("eval.logits", folder / "out", 4, in_model=folder / str(i), in_ids=folder / "ids.safetensors")
        check(word in said and len(said.strip().splitlines()) == 1, said)


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
        # its own products: in training mode they take f32 weights; for inference it repacks to bf16 where the CPU can
        stage("qlora.quantize", folder / f"f32-{double}", in_model=QUICKSTART / "base", set_double_quant=double, set_compute_dtype="f32")
        check_close("bitsandbytes' own products", ours(folder, folder / f"f32-{double}", ids)["logits"], logits_of(four_bit(folder / f"f32-{double}").train(), ids), FORWARD_LIMIT)


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
    check(model.generation_config.bos_token_id == 1 and model.generation_config.eos_token_id == 2, "generation_config.json")
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
