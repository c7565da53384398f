"""Verdicts of HuggingFace text models with tiny configurations: ``python tools/hf_verdicts.py [NAMES...] [--json]``."""

from __future__ import annotations

import argparse
import functools
import sys
from typing import Any

import torch
from torch import nn
from verdict_table import Example, run

_ENCODER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37,
            "vocab_size": 99, "max_position_embeddings": 64}  # fmt: skip
_DECODER = {**_ENCODER, "num_key_value_heads": 2}
_SEQ2SEQ = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
            "encoder_ffn_dim": 37, "decoder_ffn_dim": 37, "vocab_size": 99, "max_position_embeddings": 64}  # fmt: skip
_T5 = {"d_model": 32, "d_ff": 37, "d_kv": 8, "num_layers": 2, "num_heads": 4, "vocab_size": 99}
_GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 99, "n_positions": 64}

MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertConfig", "BertForMaskedLM", _ENCODER),
    "bert-classifier": ("BertConfig", "BertForSequenceClassification", _ENCODER),
    "bert-relu": ("BertConfig", "BertModel", {**_ENCODER, "hidden_act": "relu"}),
    "distilbert": ("DistilBertConfig", "DistilBertModel",
                   {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 37, "vocab_size": 99, "max_position_embeddings": 64}),
    "roberta": ("RobertaConfig", "RobertaModel", _ENCODER),
    "xlm-roberta": ("XLMRobertaConfig", "XLMRobertaModel", _ENCODER),
    "albert": ("AlbertConfig", "AlbertModel", {**_ENCODER, "embedding_size": 16}),
    "electra": ("ElectraConfig", "ElectraModel", {**_ENCODER, "embedding_size": 16}),
    "mpnet": ("MPNetConfig", "MPNetModel", _ENCODER),
    "deberta-v2": ("DebertaV2Config", "DebertaV2Model", _ENCODER),
    "funnel": ("FunnelConfig", "FunnelModel",
               {"d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 37, "block_sizes": [1, 1], "vocab_size": 99}),
    "layoutlm": ("LayoutLMConfig", "LayoutLMModel", _ENCODER),
    "nystromformer": ("NystromformerConfig", "NystromformerModel", {**_ENCODER, "segment_means_seq_len": 8, "num_landmarks": 8}),
    "roformer": ("RoFormerConfig", "RoFormerModel", _ENCODER),
    "squeezebert": ("SqueezeBertConfig", "SqueezeBertModel", {**_ENCODER, "embedding_size": 32, "intermediate_size": 36}),
    "mobilebert": ("MobileBertConfig", "MobileBertModel", {**_ENCODER, "embedding_size": 32, "intra_bottleneck_size": 32}),
    "fnet": ("FNetConfig", "FNetModel", _ENCODER),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", _GPT),
    "gpt-neo": ("GPTNeoConfig", "GPTNeoModel", {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "vocab_size": 99,
                                                "max_position_embeddings": 64, "attention_types": [[["global", "local"], 1]]}),
    "gpt-neox": ("GPTNeoXConfig", "GPTNeoXModel", _ENCODER),
    "gptj": ("GPTJConfig", "GPTJModel", {**_GPT, "rotary_dim": 4}),
    "codegen": ("CodeGenConfig", "CodeGenModel", {**_GPT, "rotary_dim": 4}),
    "opt": ("OPTConfig", "OPTModel",
            {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 37, "vocab_size": 99,
             "max_position_embeddings": 64, "word_embed_proj_dim": 32}),
    "bloom": ("BloomConfig", "BloomModel", {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 99}),
    "llama": ("LlamaConfig", "LlamaForCausalLM", _DECODER),
    "mistral": ("MistralConfig", "MistralModel", _DECODER),
    "qwen2": ("Qwen2Config", "Qwen2Model", _DECODER),
    "qwen3": ("Qwen3Config", "Qwen3Model", {**_DECODER, "head_dim": 8}),
    "gemma": ("GemmaConfig", "GemmaModel", {**_DECODER, "head_dim": 8}),
    "phi": ("PhiConfig", "PhiModel", _ENCODER),
    "falcon": ("FalconConfig", "FalconModel",
               {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 99}),
    "stablelm": ("StableLmConfig", "StableLmModel", _DECODER),
    "mixtral": ("MixtralConfig", "MixtralModel", {**_DECODER, "num_local_experts": 4}),
    "mamba": ("MambaConfig", "MambaModel", {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 99, "state_size": 4}),
    "t5": ("T5Config", "T5Model", _T5),
    "t5-gated": ("T5Config", "T5Model", {**_T5, "feed_forward_proj": "gated-gelu"}),
    "mt5": ("MT5Config", "MT5Model", _T5),
    "bart": ("BartConfig", "BartModel", _SEQ2SEQ),
    "mbart": ("MBartConfig", "MBartModel", _SEQ2SEQ),
    "pegasus": ("PegasusConfig", "PegasusModel", _SEQ2SEQ),
    "marian": ("MarianConfig", "MarianModel", {**_SEQ2SEQ, "pad_token_id": 0}),
    "blenderbot": ("BlenderbotConfig", "BlenderbotModel", _SEQ2SEQ),
    "m2m-100": ("M2M100Config", "M2M100Model", _SEQ2SEQ),
    "prophetnet": ("ProphetNetConfig", "ProphetNetModel",
                   {"hidden_size": 32, "num_encoder_layers": 2, "num_decoder_layers": 2, "num_encoder_attention_heads": 4,
                    "num_decoder_attention_heads": 4, "encoder_ffn_dim": 37, "decoder_ffn_dim": 37, "vocab_size": 99,
                    "max_position_embeddings": 64}),
}  # fmt: skip
_TWO_SIDED = {"t5", "t5-gated", "mt5", "bart", "mbart", "pegasus", "marian", "blenderbot", "m2m-100", "prophetnet"}


class _Text(nn.Module):
    """Token ids in, the first output tensor out, without a cache."""

    def __init__(self, model: nn.Module, two_sided: bool) -> None:
        super().__init__()
        self.model, self.two_sided = model, two_sided

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        extra = {"decoder_input_ids": ids} if self.two_sided else {}
        return self.model(input_ids=ids, attention_mask=mask, return_dict=False, **extra)[0]


class _Unmasked(_Text):
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=ids, return_dict=False)[0]


def build(name: str) -> Example:
    """The tiny model and two sequences of eight tokens."""
    import transformers

    config_name, class_name, settings = MODELS[name]
    config = getattr(transformers, config_name)(**settings)
    if hasattr(config, "use_cache"):
        config.use_cache = False
    model = getattr(transformers, class_name)(config)
    ids = torch.ones(2, 8, dtype=torch.int64)
    if name in ("fnet", "mamba"):
        return Example(_Unmasked(model, False), (ids,))
    return Example(_Text(model, name in _TWO_SIDED), (ids, torch.ones(2, 8, dtype=torch.int64)))


def main() -> int:
    try:
        import transformers  # noqa: F401
    except ImportError:
        sys.exit("transformers is not installed (it is not a dependency of fxcheck): pip install transformers")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *MODELS], metavar="NAME", help="default: all of " + ", ".join(MODELS))
    parser.add_argument("--mode", default="train")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    names = options.names or list(MODELS)
    return run(((n, functools.partial(build, n)) for n in names), as_json=options.json, mode=options.mode)


if __name__ == "__main__":
    sys.exit(main())
