"""Tiny models of the architectures that transformers has, with weights sharp enough that attention shows.

One line for each: the name, the `model_type` of its config, and what its config has beside `COMMON`.
"""

from typing import Any

COMMON: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
HEADS = {"head_dim": 8}
ALL_HEADS = {"num_key_value_heads": 4}
WINDOW = {"sliding_window": 16}
MIXED = {**WINDOW, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
STATE = {"layer_types": ["linear_attention", "full_attention", "linear_attention"]}
EXPERTS = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
}
SMALL_EXPERTS = {**EXPERTS, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}
LATENT = {
    **SMALL_EXPERTS, **ALL_HEADS, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8, "v_head_dim": 8, "head_dim": 8,
    "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
}  # fmt: skip
DELTA = {
    **STATE, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8,
}  # fmt: skip
MAMBA2 = {
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_expand": 2,
    "mamba_n_groups": 1,
    "mamba_d_state": 8,
}
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
YARN = {**DYNAMIC, "rope_type": "yarn", "original_max_position_embeddings": 64}
LONG = {
    "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 40,
    "short_factor": [1.0, 1.1, 1.2, 1.5], "long_factor": [2.0, 4.0, 6.0, 8.0],
}  # fmt: skip
LONGROPE = {"rope_parameters": LONG, "original_max_position_embeddings": 40}
SCALED = {**LONGROPE, "rope_parameters": {**LONG, "short_mscale": 1.2, "long_mscale": 1.4}}
CAPPED = {**HEADS, **WINDOW, "query_pre_attn_scalar": 8}
SOFTCAPS = {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 5.0}
NEO = {"num_layers": 2, "window_size": 16, "attention_types": [[["global", "local"], 1]]}
JAMBA = {
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
    "use_mamba_kernels": False,
    "mamba_d_state": 8,
}
GRANITE_HYBRID = {
    **MAMBA2, "num_local_experts": 0, "shared_intermediate_size": 64,
    "layer_types": ["mamba", "attention", "mamba"],
}  # fmt: skip
DBRX = {
    "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
    "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4},
    "n_layers": 3, "n_heads": 4, "d_model": 32,
}  # fmt: skip

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama, dynamic rope": ("llama", {"max_position_embeddings": 40, "rope_parameters": DYNAMIC}),
    "llama, yarn": ("llama", {"rope_parameters": YARN}),
    "mistral, sliding": ("mistral", WINDOW),
    "ministral3": ("ministral3", {**HEADS}),
    "mixtral": ("mixtral", EXPERTS),
    "qwen2": ("qwen2", {}),
    "qwen2_moe": ("qwen2_moe", SMALL_EXPERTS),
    "qwen3": ("qwen3", HEADS),
    "qwen3_moe": ("qwen3_moe", {**HEADS, **SMALL_EXPERTS}),
    "qwen3_next": ("qwen3_next", {**HEADS, **SMALL_EXPERTS, **DELTA}),
    "qwen3_5": ("qwen3_5_text", {**HEADS, **DELTA}),
    "gemma": ("gemma", HEADS),
    "gemma2, softcap": ("gemma2", {**CAPPED, **SOFTCAPS}),
    "gemma3, sliding and global": ("gemma3_text", {**CAPPED, **MIXED}),
    "phi": ("phi", {}),
    "phi3": ("phi3", {}),
    "phi3, longrope": ("phi3", LONGROPE),
    "phimoe, longrope": ("phimoe", {**EXPERTS, **SCALED}),
    "olmo": ("olmo", {}),
    "olmo2": ("olmo2", {}),
    "olmo3": ("olmo3", MIXED),
    "olmoe": ("olmoe", EXPERTS),
    "olmo_hybrid": ("olmo_hybrid", DELTA),
    "gpt2": ("gpt2", {}),
    "gpt_neo": ("gpt_neo", {**NEO, "num_hidden_layers": 2}),
    "gpt_neox": ("gpt_neox", {}),
    "gptj": ("gptj", {"rotary_dim": 4}),
    "gpt_bigcode": ("gpt_bigcode", {}),
    "gpt_oss": ("gpt_oss", {**HEADS, **EXPERTS, **WINDOW}),
    "opt": ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 32}),
    "bloom": ("bloom", {}),
    "mpt": ("mpt", {"max_seq_len": 256}),
    "falcon, alibi": ("falcon", {"alibi": True}),
    "falcon, rotary": ("falcon", {"alibi": False}),
    "falcon_h1": ("falcon_h1", {**MAMBA2, "mamba_d_ssm": 64}),
    "falcon_mamba": ("falcon_mamba", {"state_size": 8}),
    "rwkv": ("rwkv", {"attention_hidden_size": 32}),
    "mamba": ("mamba", {"state_size": 8}),
    "mamba2": ("mamba2", {"num_heads": 8, "head_dim": 8, "n_groups": 1, "state_size": 8}),
    "jamba": ("jamba", {**JAMBA, "num_experts": 2}),
    "bamba": ("bamba", {**MAMBA2, "attn_layer_indices": [1]}),
    "granite": ("granite", {"logits_scaling": 0.5}),
    "granitemoe": ("granitemoe", EXPERTS),
    "granitemoehybrid": ("granitemoehybrid", GRANITE_HYBRID),
    "lfm2": ("lfm2", {"layer_types": ["conv", "full_attention", "conv"]}),
    "starcoder2": ("starcoder2", WINDOW),
    "stablelm": ("stablelm", {}),
    "cohere": ("cohere", {}),
    "cohere2": ("cohere2", MIXED),
    "deepseek_v2": ("deepseek_v2", LATENT),
    "deepseek_v3": ("deepseek_v3", LATENT),
    "glm4": ("glm4", HEADS),
    "smollm3": ("smollm3", {}),
    "ernie4_5": ("ernie4_5", HEADS),
    "exaone4": ("exaone4", MIXED),
    "minimax": ("minimax", {**HEADS, **EXPERTS, **STATE, "block_size": 8}),
    "nemotron": ("nemotron", {}),
    "recurrent_gemma": ("recurrent_gemma", {"attention_window_size": 16, "lru_width": 32}),
    "xglm": ("xglm", {"ffn_dim": 64}),
    "biogpt": ("biogpt", {}),
    "codegen": ("codegen", {"rotary_dim": 4}),
    "persimmon": ("persimmon", {}),
    "dbrx": ("dbrx", DBRX),
    "helium": ("helium", HEADS),
    "hunyuan_v1_dense": ("hunyuan_v1_dense", HEADS),
    "seed_oss": ("seed_oss", HEADS),
    "apertus": ("apertus", {}),
    "diffllama": ("diffllama", {}),
    "llama4, chunked": ("llama4_text", {**HEADS, **EXPERTS, "attention_chunk_size": 16}),
    "nanochat": ("nanochat", {}),
}  # fmt: skip


def build(name: str, *, labels: int | None = None) -> Any:
    """Return the model `name`, in float32 and ready for inference, with the same weights each time.

    With `labels` it is a sequence classifier instead of a language model.
    """
    import torch
    import transformers

    kind, settings = ARCHITECTURES[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        auto: Any = transformers.AutoModelForCausalLM
        if labels is not None:
            auto = transformers.AutoModelForSequenceClassification
            settings = {**settings, "num_labels": labels}
        config = transformers.CONFIG_MAPPING[kind](**{**COMMON, **settings})
        model = auto.from_config(config).float().eval()
        for weight in model.parameters():
            if not weight.any():
                torch.nn.init.normal_(weight, std=0.3)  # biases and sinks that begin as zeros
            elif weight.dim() > 1 and weight.std() < 0.1:
                # As drawn, all logits and all weights of attention are nearly the same.
                weight.data *= 1.4 / (weight.std() * weight.shape[-1] ** 0.5)
    return model
