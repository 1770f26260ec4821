"""A decoder in plain torch, written from the specification, for any float dtype (float64 = the truth).

One function per block; two feed-forward kinds: dense, mixtral. Weights come as a dictionary with the
checkpoint's tensor names; LoRA factors as {module path: (A, B, scale)}; a linear may be replaced through `linear`.
"""
import torch

IGNORE = -100


class TwoWeights(torch.autograd.Function):
    """y = x W_forward^T, but dx = dy W_backward (what a kernel that dequantises twice differently computes)."""

    @staticmethod
    def forward(ctx, x, w_forward, w_backward):
        ctx.w = w_backward
        return x @ w_forward.T

    @staticmethod
    def backward(ctx, g):
        return g @ ctx.w, None, None


class Decoder:
    def __init__(self, config, weights, dtype=torch.float64, lora=None, backward_weights=None):
        self.c, self.dtype = config, dtype
        self.p = {k: v if v.dtype == dtype else v.to(dtype) for k, v in weights.items()}
        self.lora = lora or {}
        self.backward_weights = backward_weights or {}

    # ---- blocks -------------------------------------------------------------------------------------------------------
    def linear(self, name, x):
        w = self.p[name + ".weight"]
        other = self.backward_weights.get(name + ".weight")
        y = x @ w.T if other is None else TwoWeights.apply(x, w, other.to(self.dtype))
        if name in self.lora:
            a, b, s = self.lora[name]
            y = y + (x @ a.T) @ b.T * s
        return y

    def norm(self, name, x):
        return self.p[name + ".weight"] * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.c["rms_norm_eps"]))

    def rope(self, x):
        half = x.shape[-1] // 2
        inverse = self.c["rope_theta"] ** (-torch.arange(half, dtype=self.dtype) / half)
        angle = torch.arange(x.shape[1], dtype=self.dtype)[:, None] * inverse
        cos, sin = angle.cos()[None, :, None], angle.sin()[None, :, None]
        lo, hi = x[..., :half], x[..., half:]
        return torch.cat([lo * cos - hi * sin, hi * cos + lo * sin], dim=-1)

    def attention(self, name, x):
        batch, length, d = x.shape
        heads, kv = self.c["num_attention_heads"], self.c["num_key_value_heads"]
        width = d // heads
        q = self.rope(self.linear(name + ".q_proj", x).view(batch, length, heads, width))
        k = self.rope(self.linear(name + ".k_proj", x).view(batch, length, kv, width))
        v = self.linear(name + ".v_proj", x).view(batch, length, kv, width)
        k, v = k.repeat_interleave(heads // kv, dim=2), v.repeat_interleave(heads // kv, dim=2)
        score = torch.einsum("bihc,bjhc->bhij", q, k) * width ** -0.5
        i, j = torch.arange(length)[:, None], torch.arange(length)[None]
        allowed = j <= i
        if self.c.get("sliding_window"):
            allowed &= i - j < self.c["sliding_window"]
        if self.mask is not None:
            allowed = allowed & self.mask.bool()[:, None, None, :]
        p = score.masked_fill(~allowed, float("-inf")).softmax(-1)
        out = torch.einsum("bhij,bjhc->bihc", p, v).reshape(batch, length, d)
        return self.linear(name + ".o_proj", out)

    def swiglu(self, gate, up, down, x):
        a = self.linear(gate, x)
        return self.linear(down, a * torch.sigmoid(a) * self.linear(up, x))

    def routed(self, x, picked, weight, expert):
        """Sum over the selected experts; picked, weight are [rows, k]."""
        out = torch.zeros_like(x)
        for e in range(int(picked.max()) + 1):
            row, slot = torch.where(picked == e)
            if row.numel():
                out = out.index_add(0, row, expert(e, x[row]) * weight[row, slot, None])
        return out

    # ---- feed-forward kinds -------------------------------------------------------------------------------------------
    def ffn_dense(self, i, x):
        name = f"model.layers.{i}.mlp"
        return self.swiglu(name + ".gate_proj", name + ".up_proj", name + ".down_proj", x)

    def ffn_mixtral(self, i, x):
        name = f"model.layers.{i}.block_sparse_moe"
        z = self.linear(name + ".gate", x)
        self.router_logits.append(z)
        top, picked = z.softmax(-1).topk(self.c["num_experts_per_tok"], dim=-1)
        top = top / top.sum(-1, keepdim=True)
        return self.routed(x, picked, top, lambda e, r: self.swiglu(
            f"{name}.experts.{e}.w1", f"{name}.experts.{e}.w3", f"{name}.experts.{e}.w2", r))

    # ---- whole model --------------------------------------------------------------------------------------------------
    def forward(self, ids, labels=None, aux_coef=None, mask=None):
        """Returns logits, hidden states, router logits, lm loss, aux loss, total loss. mask: 1 = token, 0 = padding on the right."""
        self.mask = mask
        self.router_logits = []
        ffn = getattr(self, "ffn_" + self.c["kind"])
        x = self.p["model.embed_tokens.weight"][ids]
        hidden = {"embed": x}
        for i in range(self.c["num_hidden_layers"]):
            name = f"model.layers.{i}"
            x = x + self.attention(name + ".self_attn", self.norm(name + ".input_layernorm", x))
            h = self.norm(name + ".post_attention_layernorm", x).reshape(-1, x.shape[-1])
            x = x + ffn(i, h).view_as(x)
            hidden[f"layer.{i}"] = x
        x = self.norm("model.norm", x)
        hidden["final_norm"] = x
        head = "model.embed_tokens" if "lm_head.weight" not in self.p else "lm_head"
        out = {"logits": x @ self.p[head + ".weight"].T, "hidden": hidden, "router_logits": self.router_logits}
        if self.c["kind"] == "mixtral":
            out["aux_loss"] = mixtral_balance(self.router_logits, self.c["num_experts_per_tok"], mask)
        if labels is not None:
            target = labels[:, 1:].reshape(-1)
            z = out["logits"][:, :-1].reshape(target.numel(), -1)
            keep = target != IGNORE
            each = z[keep].logsumexp(-1) - z[keep].gather(1, target[keep, None])[:, 0]
            out["loss_sum"], out["loss_count"] = each.sum(), int(keep.sum())
            out["lm_loss"] = each.sum() / out["loss_count"]
            if aux_coef is not None:
                out["total_loss"] = out["lm_loss"] + aux_coef * out["aux_loss"]
        return out


def mixtral_balance(router_logits, top_k, mask=None):
    keep = slice(None) if mask is None else mask.reshape(-1).bool()
    z = torch.cat([layer[keep] for layer in router_logits])
    p = z.softmax(-1)
    chosen = torch.nn.functional.one_hot(p.topk(top_k, dim=-1).indices, z.shape[-1]).to(z.dtype)
    return z.shape[-1] * (chosen.mean(0).sum(0) * p.mean(0)).sum()


def leaves(weights, dtype=torch.float64):
    return {k: v.to(dtype).detach().clone().requires_grad_() for k, v in weights.items()}
