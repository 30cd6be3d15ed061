"""Small tokenizers of KerasHub families other than GPT-2 and OPT."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import pytest
from tiny import tiny_vocabulary

from kerasgen import backend

LLAMA3_SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>")

# Enough of a text that a SentencePiece model of a few hundred pieces can be trained from it.
SENTENCES = [
    "the spring wind comes over the river and the willow",
    "the moon stands on the water and the boat does not move",
    "in the autumn the wild geese go south over the hills",
    "a man who waits at the river hears the rain on the boat",
]


def keras_hub() -> Any:
    backend.use()
    import keras_hub

    return keras_hub


def llama3_tokenizer() -> Any:
    vocabulary, merges = tiny_vocabulary(300, last=LLAMA3_SPECIAL)
    return keras_hub().tokenizers.Llama3Tokenizer(vocabulary=vocabulary, merges=[" ".join(m) for m in merges])


@cache
def sentence_piece_proto(*, dummy_prefix: bool) -> bytes:
    sentencepiece = pytest.importorskip("sentencepiece", reason="the package sentencepiece is not installed")
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_writer=written,
        vocab_size=340,
        model_type="bpe",
        byte_fallback=True,
        add_dummy_prefix=dummy_prefix,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        pad_id=0,
        bos_id=2,
        eos_id=1,
        unk_id=3,
        pad_piece="<pad>",
        bos_piece="<bos>",
        eos_piece="<eos>",
        unk_piece="<unk>",
        minloglevel=2,
    )
    return written.getvalue()


def gemma_tokenizer(*, dummy_prefix: bool = False) -> Any:
    return keras_hub().tokenizers.GemmaTokenizer(proto=sentence_piece_proto(dummy_prefix=dummy_prefix))
