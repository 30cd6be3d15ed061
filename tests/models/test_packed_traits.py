"""What packed training computes is decided by a decoder's traits, whatever tables of names there are."""

from __future__ import annotations

from described import CONFIGS

from kerasgen.models import packed


def test_traits_decide_what_is_packed() -> None:
    assert all(packed.computes(CONFIGS[name]) for name in ("gpt2", "opt", "llama", "llama_llama3"))
    assert not any(packed.computes(CONFIGS[name]) for name in ("gemma2", "bloom", "mixtral", "olmo2", "mistral"))
