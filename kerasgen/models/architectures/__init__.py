"""The architectures that kerasgen computes by itself, one file of data each.

To add one, write a module with an `ARCHITECTURE` and name it in `_HOMES`. Imports the standard library only.
"""

from __future__ import annotations

from importlib import import_module

from kerasgen.models.architectures.base import Architecture, ByteLevelTokens, Part

# What transformers calls an architecture (`model_type`), and its module. Of those that llama.cpp has one name for, the
# first is what a GGUF file becomes.
_HOMES = {
    "gpt2": "gpt2",
    "opt": "opt",
    "llama": "llama",
    "mistral": "mistral",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "phi3": "phi3",
    "smollm3": "smollm3",
    "gpt_neox": "gpt_neox",
    "bloom": "bloom",
    "falcon": "falcon",
    "olmo2": "olmo2",
    "granite": "granite",
    "starcoder2": "starcoder2",
    "mixtral": "mixtral",
    "qwen2_moe": "qwen2_moe",
    "qwen3_moe": "qwen3_moe",
    "gpt_oss": "gpt_oss",
}
# KerasHub's backbone classes; one of Gemma's may be a Gemma 2, as its settings say.
_BACKBONES = {
    "BloomBackbone": "bloom",
    "FalconBackbone": "falcon",
    "GPTNeoXBackbone": "gpt_neox",
    "GPT2Backbone": "gpt2",
    "GptOssBackbone": "gpt_oss",
    "Gemma3Backbone": "gemma3_text",
    "GemmaBackbone": "gemma",
    "Llama3Backbone": "llama",
    "LlamaBackbone": "llama",
    "MistralBackbone": "mistral",
    "MixtralBackbone": "mixtral",
    "OPTBackbone": "opt",
    "Phi3Backbone": "phi3",
    "Qwen3Backbone": "qwen3",
    "Qwen3MoeBackbone": "qwen3_moe",
    "QwenBackbone": "qwen2",
    "QwenMoeBackbone": "qwen2_moe",
    "SmolLM3Backbone": "smollm3",
}


def backbones() -> list[str]:
    """Return the names of the KerasHub backbone classes that have an architecture."""
    return sorted(_BACKBONES)


def of_backbone(name: str) -> Architecture | None:
    """Return the architecture of a KerasHub backbone class by its name, or None where there is none.

    Where a class holds several, it is the first; `keras_weights.architecture_of` knows which one a model is.
    """
    return named(_BACKBONES[name]) if name in _BACKBONES else None


def named(name: str) -> Architecture | None:
    """Return the architecture that transformers calls so (`model_type`), or None where there is none."""
    if name not in _HOMES:
        return None
    architecture: Architecture = import_module(f"{__name__}.{_HOMES[name]}").ARCHITECTURE
    return architecture


def names() -> list[str]:
    """Return what transformers calls the architectures."""
    return list(_HOMES)


def listed() -> str:
    """Return KerasHub's backbone classes that have an architecture, for a message."""
    *first, last = backbones()
    return f"{', '.join(first)} and {last}"


def named_in_gguf(name: str, *, experts: bool = False) -> Architecture | None:
    """Return the architecture that llama.cpp calls so, or None where there is none.

    Args:
        name: llama.cpp's.
        experts: whether the file says that it has experts, for llama.cpp calls Mixtral as it calls Llama.
    """
    return next((known for known in _all() if known.gguf == name and known.has_experts == experts), None)


def gguf_names() -> list[str]:
    """Return what llama.cpp calls the architectures that it runs."""
    return list(dict.fromkeys(known.gguf for known in _all() if known.gguf is not None))


def byte_level_tokens(backbone: str) -> ByteLevelTokens | None:
    """Return the special tokens of a KerasHub backbone class that reads texts by GPT-2's byte-level BPE, or None."""
    known = of_backbone(backbone)
    return known.tokens if known is not None else None


def _all() -> list[Architecture]:
    return [known for name in _HOMES if (known := named(name)) is not None]


__all__ = [
    "Architecture",
    "ByteLevelTokens",
    "Part",
    "backbones",
    "byte_level_tokens",
    "gguf_names",
    "listed",
    "named",
    "names",
    "named_in_gguf",
    "of_backbone",
]
