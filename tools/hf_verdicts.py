"""Analyse tiny random models of transformers: ``python tools/hf_verdicts.py [NAMES...] [--json]``."""

from __future__ import annotations

import sys
from typing import Any

import torch
from zoo_runs import arguments, run_all

_SMALL = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 64, "d_model": 32, "num_layers": 2, "num_heads": 4, "d_kv": 8, "d_ff": 48, "n_embd": 32,
    "n_layer": 2, "n_head": 4, "n_positions": 64, "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4,
    "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "ffn_dim": 48, "num_key_value_heads": 2, "embedding_size": 32,
    "pad_token_id": None, "word_embed_proj_dim": 32, "head_dim": 8,
}  # fmt: skip
_NAMES = ("Bert", "DistilBert", "Roberta", "Albert", "Electra", "MPNet", "GPT2", "GPTNeoX", "OPT", "Bart", "T5", "Llama",
          "Mistral", "Qwen2", "Gemma", "Phi", "DebertaV2")  # fmt: skip


def build(name: str) -> tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any]]:
    """The base model of an architecture with a small configuration, and token ids."""
    config_class = getattr(transformers, f"{name}Config")
    known = config_class().to_dict()
    config = config_class(**{k: v for k, v in _SMALL.items() if k in known})
    config.use_cache = False
    config.return_dict = False
    model = getattr(transformers, f"{name}Model")(config)
    ids = torch.zeros(2, 16, dtype=torch.long)
    extra = {"decoder_input_ids": ids} if name in ("T5", "Bart") else {}
    return model, (), {"input_ids": ids, **extra}


if __name__ == "__main__":
    options = arguments(__doc__ or "").parse_args()
    try:
        import transformers
    except ModuleNotFoundError:
        sys.exit("transformers is not installed; it is no dependency of fxcheck: pip install transformers")
    run_all(options.names or _NAMES, build, options.json)
