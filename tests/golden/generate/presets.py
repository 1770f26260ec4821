"""Shapes and hyper-parameters of the set; other sets (awkward sizes, other seeds) are a matter of another entry in PRESETS.

Row widths of quantised linears are multiples of 64, or not of 16: for the rest (16, 32, 48, 80, 96 ...) bitsandbytes' AVX-512
dequantiser reads the wrong absmax (see nf4/README.md), so no model here may depend on it.
"""

SHARED = {
    "mixtral": dict(vocab_size=264, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                    num_attention_heads=4, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2,
                    rope_theta=1e6, rms_norm_eps=1e-5, max_position_embeddings=512, router_aux_loss_coef=0.02),
    "mixtral_std": 0.08, "sliding_window": 13, "batch": (2, 48), "batch4": (1, 40), "padded": (2, 24, 9), "shards": 3,
    "llama": dict(vocab_size=208, hidden_size=48, intermediate_size=108, num_hidden_layers=2,
                  num_attention_heads=4, num_key_value_heads=1, rope_theta=1e4, rms_norm_eps=1e-5,
                  max_position_embeddings=256),
    "llama_std": 0.09, "llama_batch": (2, 41),
    "lora": dict(r=8, lora_alpha=16), "rslora": dict(r=8, lora_alpha=16, rank_pattern={"w2": 4, "o_proj": 16},
                                                    alpha_pattern={"w2": 12}),
    "train": dict(steps=24, accumulation=2, warmup=4, lr=2e-3, weight_decay=0.1, batch=(2, 32), aux_coef=0.02),
    "nf4_extra": [(64, 96)],
    "tokenizer_lines": (600, 400), "long": 600,
    "prompts": ["Once upon a time", "Lily and Tom went to the park. They saw", "The little dog was very sad because"],
    "new_tokens": 120,
}

PRESETS = {"shared": SHARED}
