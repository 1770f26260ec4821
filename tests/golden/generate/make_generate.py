"""Greedy continuations of two small trained models."""
import sentencepiece as spm
import torch
from transformers import AutoModelForCausalLM

from common import DATA, load_folder, load_json, save_json, save_tensors, topic_dir, versions, write_readme
from reference import Decoder

MODELS = {"stories260K-llama-hf": "dense", "stories260K-mixtral-hf": "mixtral"}


def greedy(model, prompt, count):
    """ids of the continuation, and per new token: log-probability, and its lead over the second best."""
    out = model.generate(torch.tensor([prompt]), max_new_tokens=count, min_new_tokens=count, do_sample=False, use_cache=True,
                         return_dict_in_generate=True, output_logits=True, pad_token_id=0)
    new = out.sequences[0, len(prompt):].tolist()
    logp = torch.cat(out.logits).float().log_softmax(-1)
    top = logp.topk(2, dim=-1).values
    chosen = logp.gather(1, torch.tensor(new)[:, None])[:, 0]
    return new, chosen.tolist(), (top[:, 0] - top[:, 1]).tolist()


def by_reference(config, weights, prompt, new):
    ids = torch.tensor([prompt + new])
    with torch.no_grad():
        logits = Decoder(config, weights).forward(ids)["logits"][0, len(prompt) - 1:-1]
    return logits.argmax(-1).tolist(), logits.log_softmax(-1).gather(1, torch.tensor(new)[:, None])[:, 0]


def main(seed, preset, out):
    folder = topic_dir(out, "generate_text")
    sp = spm.SentencePieceProcessor(model_file=str(DATA / "models" / "tok512.model"))
    result = {"versions": versions(), "tokenizer": "tok512.model, bos id 1 prepended", "models": {}}
    tensors = {}
    for name, kind in MODELS.items():
        source = DATA / "models" / name
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, attn_implementation="eager").eval()
        config = {"rope_theta": 10000.0, "sliding_window": None, **load_json(source / "config.json"), "kind": kind}
        weights = load_folder(source)
        runs = []
        for n, text in enumerate(preset["prompts"]):
            prompt = [1] + sp.encode(text)
            new, logp, lead = greedy(model, prompt, preset["new_tokens"])
            best, truth = by_reference(config, weights, prompt, new)
            tensors[f"{name}.{n}.logprobs_f32"] = torch.tensor(logp)
            tensors[f"{name}.{n}.logprobs_f64"] = truth
            runs.append({"prompt": text, "prompt_ids": prompt, "new_ids": new, "text": sp.decode(prompt[1:] + new), "smallest_lead": min(lead),
                         "same_choice_in_f64": best == new, "largest_logprob_difference_f32_f64": (torch.tensor(logp).double() - truth).abs().max().item()})
        result["models"][name] = runs
    save_tensors(folder / "logprobs.safetensors", tensors)
    save_json(folder / "results.json", result)
    worst = max(r["largest_logprob_difference_f32_f64"] for runs in result["models"].values() for r in runs)
    write_readme(folder, f"""
# generate_text: greedy continuation of stories260K (dense and Mixtral-shaped)

Models: `stories260K-llama-hf`, `stories260K-mixtral-hf` of `../models`, f32, transformers {versions()['transformers']} `generate`, do_sample False, KV cache, eager attention;
exactly {preset['new_tokens']} new tokens (eos is never taken: min_new_tokens masks it). Prompts through tok512.model with bos id 1 in front.
`results.json`: prompt, prompt_ids, new_ids, text, smallest lead of the best token over the second (log-probability), agreement with float64.
`logprobs.safetensors`: `MODEL.N.logprobs_f32` F32 [{preset['new_tokens']}] log-softmax of the f32 logits at the chosen ids (before any masking); `MODEL.N.logprobs_f64` F64 teacher-forced by generate/reference.py.
Tolerance: ids equal (f64 makes the same choices); log-probabilities {worst:.1e} measured, limit 1e-3.
""")
