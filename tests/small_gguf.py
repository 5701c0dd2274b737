"""A random Llama of two layers as a GGUF file, for tests and measurements."""

import json
from pathlib import Path
from typing import Any

import numpy as np


def write_gguf(path: Path, tokenizer: Any, *, without: str = "-") -> Path:
    """Write a random Llama of two layers as a GGUF file, less the tensors whose name holds `without`."""
    import gguf

    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_rope_dimension_count(8)
    writer.add_layer_norm_rms_eps(1e-5)
    backend = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * len(tokens))
    writer.add_token_merges([" ".join(pair) for pair in backend["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    square = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (32, 32))
    block = square | {"ffn_gate": (64, 32), "ffn_up": (64, 32), "ffn_down": (32, 64)}
    block |= {"attn_norm": (32,), "ffn_norm": (32,)}
    shapes = {f"blk.{at}.{name}": shape for at in range(2) for name, shape in block.items()}
    shapes |= {"token_embd": (len(tokens), 32), "output": (len(tokens), 32), "output_norm": (32,)}
    random = np.random.default_rng(0)
    for name, shape in shapes.items():
        if without not in f"{name}.weight":
            tensor = random.normal(size=shape).astype(np.float32)
            writer.add_tensor(f"{name}.weight", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
