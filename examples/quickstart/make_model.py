#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Make base/: a small Mixtral whose experts really differ, from two independently trained LLaMAs.

usage: make_model.py STORIES260K.bin LLAMA2XS.bin TOK512.model [OUT]    (numpy, sentencepiece, protobuf)

Both parents have width 64, 5 layers, 8 heads, 4 key/value heads and the same 512 pieces; their
feed-forward widths are 172 and 192. Embeddings, norms and attention are the first parent's (A).
Per layer there are four experts of 192 neurons, top 2. With A's neurons ordered by strength,
expert e lacks every sixth one, starting at the e-th, and has neurons of B in their place.
B lives in another basis, so its neurons are stitched in: the least-squares map from A's hidden
states to B's on the same text goes into their rows of w1 and w3. The expert's w2 is then fitted by
ridge regression, so that its output approximates what A's feed-forward gives: the four are made
of different neurons and have different errors, and the whole still writes stories.
The router's rows are the centred means of four clusters of hidden states. The calibration text is
sampled from A with a fixed seed. Everything is float64 until the bf16 rounding at the end.
"""
import json
import pathlib
import sys

import numpy as np
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

SEED = 20261
EXPERTS, TOP_K, WIDTH = 4, 2, 192
LACK = 6                             # an expert lacks one in so many of A's neurons
SEQUENCES, LENGTH = 64, 160          # calibration text
RIDGE = 1e-3
ROUTER_SCALE = 1.0                   # standard deviation of a router row's logits
THETA, EPS, POSITIONS = 10000.0, 1e-5, 512


class Parent:
    """The legacy llama2.c file: seven int32, then f32 tensors, each for all layers (tied head)."""

    def __init__(self, path):
        raw = pathlib.Path(path).read_bytes()
        self.d, self.f, self.n_layers, self.h, self.kv, self.v, seq = np.frombuffer(raw, "<i4", 7)
        self.c = self.d // self.h
        flat, at = np.frombuffer(raw, "<f4", offset=28).astype(np.float64), 0

        def take(*shape):
            nonlocal at
            at += int(np.prod(shape))
            return flat[at - int(np.prod(shape)):at].reshape(shape)

        n, d, f, kv_rows = self.n_layers, self.d, self.f, self.kv * self.c
        self.embed, self.norm1 = take(self.v, d), take(n, d)
        self.q, self.k, self.val, self.o = take(n, d, d), take(n, kv_rows, d), take(n, kv_rows, d), take(n, d, d)
        self.norm2 = take(n, d)
        self.w1, self.w2, self.w3 = take(n, f, d), take(n, d, f), take(n, f, d)
        self.norm = take(d)
        take(seq, self.c)                # tables of cosines and sines
        assert self.v > 0 and at == len(flat), "not a tied llama2.c model"

    def rope(self, x):
        """x [B, T, heads, c], rotated on adjacent pairs."""
        angle = np.arange(x.shape[1])[:, None] * THETA ** (-np.arange(self.c // 2) * 2 / self.c)
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        y = np.empty_like(x)
        y[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
        y[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
        return y

    def attention(self, i, u):
        rows, t, group = len(u), u.shape[1], self.h // self.kv
        q = self.rope((u @ self.q[i].T).reshape(rows, t, self.h, self.c)).swapaxes(1, 2)
        k = self.rope((u @ self.k[i].T).reshape(rows, t, self.kv, self.c)).repeat(group, 2).swapaxes(1, 2)
        v = (u @ self.val[i].T).reshape(rows, t, self.kv, self.c).repeat(group, 2).swapaxes(1, 2)
        score = np.where(np.tri(t, dtype=bool), q @ k.swapaxes(2, 3) / np.sqrt(self.c), -np.inf)
        p = np.exp(score - score.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        return (p @ v).swapaxes(1, 2).reshape(rows, t, self.d) @ self.o[i].T

    def forward(self, ids):
        """ids [B, T]; logits of the last position [B, V], and the feed-forwards' inputs, [B, T, d] per layer."""
        x, inner = self.embed[ids], []
        for i in range(self.n_layers):
            x = x + self.attention(i, rms(x) * self.norm1[i])
            u = rms(x) * self.norm2[i]
            inner.append(u)
            x = x + neurons(u, self.w1[i], self.w3[i]) @ self.w2[i].T
        return (rms(x[:, -1]) * self.norm) @ self.embed.T, inner


def rms(x):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS)


def neurons(u, w1, w3):
    a = u @ w1.T
    return a / (1 + np.exp(-a)) * (u @ w3.T)


def sampled_text(parent, rng):
    """Stories by A: [SEQUENCES, LENGTH] ids, drawn token by token after <s>."""
    ids = np.ones((SEQUENCES, 1), int)
    while ids.shape[1] < LENGTH:
        logits = parent.forward(ids)[0]
        logits[:, :3] = -np.inf
        drawn = (logits + rng.gumbel(size=logits.shape)).argmax(1)
        ids = np.concatenate([ids, drawn[:, None]], 1)
    return ids


def fit(x, y, ridge=RIDGE):
    """W [out, in] with x W^T ~ y."""
    gram = x.T @ x
    return np.linalg.solve(gram + ridge * np.trace(gram) / len(gram) * np.eye(len(gram)), x.T @ y).T


def experts(a, b, i, ua, ub):
    """Four (w1, w2, w3) of layer i; ua, ub: hidden states of both parents on the same tokens."""
    stitch = fit(ua, ub)                                   # u_b ~ stitch u_a
    b1, b3 = b.w1[i] @ stitch, b.w3[i] @ stitch
    ha, hb = neurons(ua, a.w1[i], a.w3[i]), neurons(ua, b1, b3)
    wanted = ha @ a.w2[i].T
    by_strength = np.argsort(-np.linalg.norm(a.w2[i], axis=0) * ha.std(0))
    result, error = [], []
    for e in range(EXPERTS):
        own = np.delete(by_strength, np.s_[e::LACK])
        other = np.arange(e, b.f, EXPERTS)
        other = np.concatenate([other, np.setdiff1d(np.arange(b.f), other)])[:WIDTH - len(own)]
        h = np.concatenate([ha[:, own], hb[:, other]], 1)
        w2 = fit(h, wanted)
        result.append((np.concatenate([a.w1[i][own], b1[other]]), w2, np.concatenate([a.w3[i][own], b3[other]])))
        error.append(np.linalg.norm(h @ w2.T - wanted) / np.linalg.norm(wanted))
    print(f"layer {i}: relative error of the experts on A's output", np.round(error, 3))
    return result


def router(u, rng):
    """[EXPERTS, d]: centred means of clusters of hidden states (Lloyd's algorithm), scaled."""
    centre = u.mean(0)
    means = u[rng.choice(len(u), EXPERTS, replace=False)]
    for _ in range(20):
        near = ((u[:, None] - means) ** 2).sum(-1).argmin(1)
        means = np.stack([u[near == e].mean(0) if (near == e).any() else means[e] for e in range(EXPERTS)])
    gate = means - centre
    return gate * ROUTER_SCALE / (u @ gate.T).std(0)[:, None]


def half_split(w, heads):
    """Rows of adjacent-pair RoPE in the order of half-split RoPE."""
    return w.reshape(heads, -1, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def tensors(a, b, rng):
    text = sampled_text(a, rng)
    ua, ub = ([layer.reshape(-1, p.d) for layer in p.forward(text)[1]] for p in (a, b))
    result = {"model.embed_tokens.weight": a.embed, "lm_head.weight": a.embed, "model.norm.weight": a.norm}
    for i in range(a.n_layers):
        name = f"model.layers.{i}."
        result[name + "input_layernorm.weight"] = a.norm1[i]
        result[name + "post_attention_layernorm.weight"] = a.norm2[i]
        for key, w in (("q", half_split(a.q[i], a.h)), ("k", half_split(a.k[i], a.kv)), ("v", a.val[i]), ("o", a.o[i])):
            result[f"{name}self_attn.{key}_proj.weight"] = w
        gate = router(ua[i], rng)
        result[name + "block_sparse_moe.gate.weight"] = gate
        top = np.argsort(-(ua[i] @ gate.T), axis=1)[:, :TOP_K]
        print(f"layer {i}: share of the experts", np.round(np.bincount(top.ravel(), minlength=EXPERTS) / top.size, 3))
        for e, (w1, w2, w3) in enumerate(experts(a, b, i, ua[i], ub[i])):
            for key, w in (("w1", w1), ("w2", w2), ("w3", w3)):
                result[f"{name}block_sparse_moe.experts.{e}.{key}.weight"] = w
    return result


def bf16(x):
    """Bytes of x rounded to bfloat16, ties to even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2").tobytes()


def save_tensors(path, made):
    """One safetensors file: length, JSON header padded to 8 bytes, the data."""
    header, data, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name, value in sorted(made.items()):
        data.append(bf16(value))
        header[name] = {"dtype": "BF16", "shape": list(value.shape), "data_offsets": [at, at + len(data[-1])]}
        at += len(data[-1])
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(data))


def save_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def merges(sp):
    """Every split of a piece into two pieces, in the order of HF's converter: score, then longer left half."""
    score = {sp.id_to_piece(i): sp.get_score(i) for i in range(len(sp))}
    found = [(-score[p], -n, p[:n], p[n:]) for p in score for n in range(1, len(p)) if p[:n] in score and p[n:] in score]
    return [[left, right] for _, _, left, right in sorted(found, key=lambda m: m[:2])]


def special(sp, i):
    return {"id": i, "content": sp.id_to_piece(i), "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": True}


def save_tokenizer(model, out):
    """tokenizer.model, tokenizer.json and companions in the form of Mixtral's.

    The 512 pieces were made with remove_extra_whitespaces, which HF's tokenizers do not know;
    Mixtral's model has it off, so it is switched off here. Pieces and scores stay as they are.
    """
    proto = sentencepiece_model_pb2.ModelProto.FromString(pathlib.Path(model).read_bytes())
    proto.normalizer_spec.remove_extra_whitespaces = False
    blob = proto.SerializeToString()
    (out / "tokenizer.model").write_bytes(blob)
    sp = sentencepiece.SentencePieceProcessor(model_proto=blob)
    bos = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    first, second = ({"Sequence": {"id": x, "type_id": n}} for n, x in enumerate("AB"))
    fast = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [special(sp, i) for i in range(3)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": None,
        "post_processor": {"type": "TemplateProcessing", "single": [bos, first],
                           "pair": [bos, first, {"SpecialToken": {"id": "<s>", "type_id": 1}}, second],
                           "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": {sp.id_to_piece(i): i for i in range(len(sp))}, "merges": merges(sp)}}
    (out / "tokenizer.json").write_text(json.dumps(fast, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    save_json(out / "special_tokens_map.json", {k: {"content": v, **plain} for k, v in names.items()})
    save_json(out / "tokenizer_config.json", {
        "add_bos_token": True, "add_eos_token": False,
        "added_tokens_decoder": {str(i): {"content": sp.id_to_piece(i), **plain, "special": True} for i in range(3)},
        **names, "clean_up_tokenization_spaces": False, "legacy": True, "model_max_length": POSITIONS,
        "sp_model_kwargs": {}, "tokenizer_class": "LlamaTokenizer", "use_default_system_prompt": False})


def save_configs(a, out):
    save_json(out / "config.json", {
        "architectures": ["MixtralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
        "hidden_act": "silu", "hidden_size": int(a.d), "initializer_range": 0.02, "intermediate_size": WIDTH,
        "max_position_embeddings": POSITIONS, "model_type": "mixtral", "num_attention_heads": int(a.h),
        "num_experts_per_tok": TOP_K, "num_hidden_layers": int(a.n_layers), "num_key_value_heads": int(a.kv),
        "num_local_experts": EXPERTS, "output_router_logits": False, "rms_norm_eps": EPS, "rope_theta": THETA,
        "router_aux_loss_coef": 0.02, "sliding_window": None, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16", "transformers_version": "4.57.6", "use_cache": True, "vocab_size": int(a.v)})
    save_json(out / "generation_config.json", {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2,
                                               "transformers_version": "4.57.6"})


def main():
    a, b = Parent(sys.argv[1]), Parent(sys.argv[2])
    out = pathlib.Path(sys.argv[4]) if len(sys.argv) > 4 else pathlib.Path(__file__).resolve().parent / "base"
    out.mkdir(parents=True, exist_ok=True)
    made = tensors(a, b, np.random.default_rng(SEED))
    save_tensors(out / "model.safetensors", made)
    save_configs(a, out)
    save_tokenizer(sys.argv[3], out)


if __name__ == "__main__":
    main()
