# SPDX-License-Identifier: MIT
"""What a training step minimises and what it moves, against torch: routers, full matrices, masks, norms, schedules."""
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from harness import QUICKSTART, check, check_close, hanmix, logits_of, quickstart_model, random_ids, stage, tensors, test
from interop_model import FORWARD_LIMIT, ours
from interop_train import random_adapter
from torch_loop import (IGNORE, Plan, adapter_tensors, compare_adapters, compare_logs, compare_update, hanmix_train, torch_train)


def plain_batches(seed, plan, rows=2, length=24, vocab=512):
    ids = random_ids(seed, plan.steps * plan.accumulate * rows, length, vocab).reshape(-1, rows, length)
    return [(batch, None, None) for batch in ids]


def trained(model):
    """A peft model with its factors and saved modules trainable."""
    for name, p in model.named_parameters():
        p.requires_grad_("lora_" in name or "modules_to_save" in name)
    return model.train()


def follows(folder, model, data, plan, base=QUICKSTART / "base", aux=True, **settings):
    before = adapter_tensors(model)
    theirs = torch_train(trained(model), data, plan, aux)
    report, steps, _ = hanmix_train(folder, data, plan, in_model=base, in_adapter=folder / "start", **settings)
    compare_logs(steps, theirs, aux)
    compare_adapters(folder / "run" / "adapter", model, before)
    return report


@test
def router_loss_in_training(folder):
    """aux is transformers' load_balancing_loss over all layers; its gradient reaches every factor."""
    for norm, schedule in (("tokens", "cosine"), ("micro", "linear")):
        at = folder / norm
        at.mkdir()
        plan = Plan(aux=0.3, norm=norm, schedule=schedule)
        follows(at, random_adapter(at / "start"), plain_batches(20, plan), plan)


@test
def router_is_trained(folder):
    plan = Plan(aux=0.05, schedule="constant", warmup=0, clip=0.5)
    model = random_adapter(folder / "start", modules_to_save=["gate"])
    report = follows(folder, model, plain_batches(21, plan), plan, set_train_gate="true")
    ids = random_ids(22, 2, 30, 512)
    loaded = PeftModel.from_pretrained(quickstart_model(), str(folder / "run" / "adapter")).eval()
    check_close("logits of our adapter in peft", logits_of(loaded, ids), logits_of(model.eval(), ids), 2e-4)
    check(report["trainable_parameters"] == sum(p.numel() for p in model.parameters() if p.requires_grad), "trainable_parameters")


@test
def factors_of_head_and_router(folder):
    """LoRA on lm_head and the routers, as peft places it; the first update of a warm-up has rate 0."""
    torch.manual_seed(23)
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["lm_head", "gate", "w2"], task_type="CAUSAL_LM", use_rslora=True)
    model = get_peft_model(quickstart_model(), config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(0, 0.05)
    model.save_pretrained(str(folder / "start"), save_embedding_layers=False)
    plan = Plan(steps=5, decay=0.2, aux=0.1)
    follows(folder, model, plain_batches(23, plan), plan)


@test
def labels_and_masks(folder):
    """Right padding with attention_mask, labels with -100; uneven numbers of targets in the micro-batches."""
    for norm in ("tokens", "micro"):
        at = folder / norm
        at.mkdir()
        plan = Plan(norm=norm, aux=0.1)
        gen = torch.Generator().manual_seed(24)
        data = []
        for ids, _, _ in plain_batches(24, plan):
            lengths = torch.randint(5, ids.shape[1] + 1, (ids.shape[0],), generator=gen)
            mask = (torch.arange(ids.shape[1])[None] < lengths[:, None]).long()
            labels = ids.masked_fill((mask == 0) | (torch.rand(ids.shape, generator=gen) < 0.3), IGNORE)
            data.append((ids, labels, mask))
        follows(at, random_adapter(at / "start"), data, plan)
    # padding on any side is no target without labels either
    holes = [(torch.rand(ids.shape, generator=gen) > 0.3).long().index_fill_(1, torch.tensor([0]), 1) for ids, _, _ in data]
    data = [(ids, None, mask) for (ids, _, _), mask in zip(data, holes)]
    at = folder / "mask"
    at.mkdir()
    follows(at, random_adapter(at / "start"), data, plan)


def small_llama(tied=False, seed=30):
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(vocab_size=200, hidden_size=48, intermediate_size=112, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2,
                                        max_position_embeddings=64, tie_word_embeddings=tied, initializer_range=0.15, attn_implementation="eager"))


def small_mixtral(seed=31, **more):
    torch.manual_seed(seed)
    return MixtralForCausalLM(MixtralConfig(vocab_size=180, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2,
                                            num_local_experts=6, num_experts_per_tok=2, max_position_embeddings=64, initializer_range=0.15,
                                            tie_word_embeddings=False, attn_implementation="eager", **more))


@test
def grouped_query_llama_trains(folder):
    base = small_llama()
    base.save_pretrained(str(folder / "base"))
    config = LoraConfig(r=6, lora_alpha=12, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(base, config)
    model.save_pretrained(str(folder / "start"))
    plan = Plan(clip=0.3)
    report = follows(folder, model, plain_batches(30, plan, vocab=200), plan, base=folder / "base", aux=False)
    check(report["targets"] == {k: 2 for k in ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")}, str(report["targets"]))


@test
def every_weight_trains(folder):
    """Full parameters: every gradient, norms included, and the model written, for Mixtral and LLaMA, tied and not."""
    for name, make, vocab in (("mixtral", small_mixtral, 180), ("llama", small_llama, 200), ("tied", lambda: small_llama(True), 200)):
        at = folder / name
        at.mkdir()
        model = make()
        model.save_pretrained(str(at / "base"))
        before = {k: v.clone() for k, v in model.state_dict().items()}
        plan = Plan(steps=5, decay=0.1, decay_all=True, aux=0.1 if name == "mixtral" else 0.0, extra={"set_train_all": "true", "set_dump_gradients": 1})
        data = plain_batches(31, plan, vocab=vocab)
        grads = []
        theirs = torch_train(model.train(), data, plan, name == "mixtral",
                             lambda m: grads.append({n: p.grad.clone() for n, p in m.named_parameters()}))
        report, steps, _ = hanmix_train(at, data, plan, in_model=at / "base")
        compare_logs(steps, theirs, name == "mixtral")
        found = tensors(at / "run" / "gradients-1.safetensors")
        found.pop("loss")
        check(set(found) == set(grads[0]), f"gradients of {sorted(set(found) ^ set(grads[0]))[:4]}")
        for key, grad in grads[0].items():
            check_close_quiet(f"gradient of {key}", found[key], grad)
        written = tensors(at / "run" / "model")
        check(name != "tied" or "lm_head.weight" not in written, "a tied head is written")
        worst = max(compare_update(key, written[key], model.state_dict()[key], before[key]) for key in written)
        loaded = AutoModelForCausalLM.from_pretrained(str(at / "run" / "model"), dtype=torch.float32, attn_implementation="eager").eval()
        ids = random_ids(32, 1, 20, vocab)
        check_close("logits of the model written", logits_of(loaded, ids), logits_of(model.eval(), ids), 2e-4)
        check(report["trainable_parameters"] == sum(p.numel() for p in model.parameters()), "trainable_parameters")
        print(f"    {name}: {len(written)} tensors, worst update {worst:.2g}")


def check_close_quiet(what, found, wanted, limit=1e-4):
    found, wanted = found.double(), wanted.double()
    size = float(wanted.norm())
    error = float((found - wanted).norm())
    check(error <= limit * size or error < 1e-9, f"{what}: {error / max(size, 1e-30):.3g} of its size {size:.3g}")


@test
def an_expert_without_tokens(folder):
    """Few tokens, many experts: those not chosen have gradient 0 and do not move."""
    model = small_mixtral(seed=33)
    model.save_pretrained(str(folder / "base"))
    ids = random_ids(33, 1, 4, 180)
    plan = Plan(steps=1, accumulate=1, warmup=0, extra={"set_train_all": "true", "set_dump_gradients": 1})
    grads = {}
    torch_train(model.train(), [(ids, None, None)], plan, True, lambda m: grads.update({n: p.grad.clone() for n, p in m.named_parameters()}))
    hanmix_train(folder, [(ids, None, None)], plan, in_model=folder / "base")
    found, written, before = tensors(folder / "run" / "gradients-1.safetensors"), tensors(folder / "run" / "model"), tensors(folder / "base")
    idle = [k for k, g in grads.items() if ".experts." in k and not g.any()]
    check(idle, "every expert has tokens: the test shows nothing")
    for key in grads:
        check_close_quiet(f"gradient of {key}", found[key], grads[key])
    for key in idle:
        check(not found[key].any() and torch.equal(written[key], before[key]), f"{key} moved")


@test
def rates_of_every_schedule(folder):
    """Shares and numbers of warm-up steps, the floor; lr in metrics is the rate used."""
    from torch_loop import Plan as P
    model = small_llama()
    model.save_pretrained(str(folder / "base"))
    from transformers import get_scheduler
    for schedule, warmup, floor in (("linear", 3, 0), ("constant", 4, 0), ("cosine", 0.25, 0), ("cosine", 2, 1e-4), ("linear", 0, 0), ("constant", 0, 0)):
        plan = P(steps=10, accumulate=1, schedule=schedule, warmup=warmup, lr=1e-3, extra={"set_min_lr": floor} if floor else {})
        at = folder / f"{schedule}-{warmup}-{floor}"
        at.mkdir()
        _, steps, _ = hanmix_train(at, plain_batches(34, plan, rows=1, length=8, vocab=200), plan, in_model=folder / "base", set_rank=1, set_targets="[q_proj]")
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-3)
        name = "cosine_with_min_lr" if floor else {"constant": "constant_with_warmup"}.get(schedule, schedule)
        import math
        first = math.ceil(warmup * 10) if warmup < 1 else warmup
        scheduler = get_scheduler(name, optimizer, first, 10, scheduler_specific_kwargs={"min_lr": floor} if floor else None)
        rates = []
        for _ in range(10):
            rates.append(scheduler.get_last_lr()[0])
            optimizer.step()
            scheduler.step()
        check_close(f"{schedule}, warm-up {warmup}, floor {floor}", [s["lr"] for s in steps], rates, 1e-12)


@test
def embedding_of_a_tied_model(folder):
    """Trained in full, the head follows; peft loads the adapter, transformers the merged model."""
    model = small_llama(True)
    model.save_pretrained(str(folder / "base"))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for name, p in model.named_parameters():
        p.requires_grad_(name == "model.embed_tokens.weight")
    plan = Plan(steps=4)
    data = plain_batches(35, plan, vocab=200)
    theirs = torch_train(model.train(), data, plan, aux=False)
    _, steps, _ = hanmix_train(folder, data, plan, in_model=folder / "base", set_train_embeddings="all", set_targets="[]")
    compare_logs(steps, theirs, aux=False)
    key = "model.embed_tokens.weight"
    compare_update(key, tensors(folder / "run" / "adapter")["base_model.model." + key], model.state_dict()[key], before[key])
    base = AutoModelForCausalLM.from_pretrained(str(folder / "base"), dtype=torch.float32, attn_implementation="eager")
    ids = random_ids(36, 1, 20, 200)
    check_close("peft", logits_of(PeftModel.from_pretrained(base, str(folder / "run" / "adapter")).eval(), ids), logits_of(model.eval(), ids), 1e-4)
    stage("qlora.merge", folder / "merged", in_model=folder / "base", in_adapter=folder / "run" / "adapter")
    loaded = AutoModelForCausalLM.from_pretrained(str(folder / "merged"), dtype=torch.float32, attn_implementation="eager").eval()
    check_close("merged", logits_of(loaded, ids), logits_of(model, ids), 1e-4)
    check_close("ours", ours(folder, folder / "merged", ids)["logits"], logits_of(loaded, ids), FORWARD_LIMIT)
