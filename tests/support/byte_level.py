"""Small byte-level tokenizers that cut texts as published ones do, trained and written by the `tokenizers` library."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from kerasgen.tokens.pretokenization import LLAMA3_PATTERN, QWEN2_PATTERN

KINDS = ("gpt2", "smollm2", "llama3", "llama3_merged", "qwen2_cut")
START, END = "<|begin_of_text|>", "<|end_of_text|>"
TEXTS = (
    "In 2013 I was at the river, and it's 1234567 years ago.\r\n\r\n  We'LL see what the moon's light does.",
    "the sand and the sea, the sun and the sailor's song; the sailor sang 98 songs\n\nand slept.\t\t  Then he woke.",
    "昨夜雨疏风骤，浓睡不消残酒。試問卷簾人，卻道海棠依舊。",
)


def _cut(kind: str) -> Any:
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind in ("gpt2", "smollm2"))
    if kind == "gpt2":
        return plain
    if kind == "smollm2":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), plain])
    pattern = QWEN2_PATTERN if kind == "qwen2_cut" else LLAMA3_PATTERN
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False), plain])


@cache
def tokenizer_json(kind: str, size: int = 400) -> str:
    """The text of a `tokenizer.json`: of SmolLM2's kind special tokens come first and no start token is put there."""
    starts = kind != "smollm2"
    rust = Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
    rust.pre_tokenizer = _cut(kind)
    rust.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = [] if starts else [END, "<|im_start|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=size - 2 * starts, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    rust.train_from_iterator(TEXTS, trainer)
    if starts:
        rust.add_special_tokens([START, END])
        template = {"single": f"{START} $A", "special_tokens": [(START, rust.token_to_id(START))]}
        byte_level = processors.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=False)
        rust.post_processor = processors.Sequence([byte_level, processors.TemplateProcessing(**template)])
    found = json.loads(rust.to_str())
    if kind == "llama3":  # a whole word that no merge makes, as Llama 3 has some
        ids = found["model"]["vocab"]
        word = next(word for word in ids if len(word) > 4 and word.startswith("Ġ") and word.isalpha())
        pairs = [pair if isinstance(pair, list) else pair.split(" ") for pair in found["model"]["merges"]]
        found["model"]["merges"] = [pair for pair in pairs if "".join(pair) != word]
    return json.dumps(found, ensure_ascii=False)


def directory(path: Path, kind: str, size: int = 400) -> Path:
    """Write a tokenizer's files as transformers has them into a directory."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "tokenizer.json").write_text(tokenizer_json(kind, size), encoding="utf-8")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END}
    settings |= {"bos_token": START} if kind != "smollm2" else {}
    (path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return path
