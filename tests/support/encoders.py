"""Small masked language models as transformers has them, with weights that a seed draws; see `write_encoders`."""

from __future__ import annotations

import io
import json
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

ARCHIVE = Path(__file__).parents[1] / "models" / "encoders.tar.xz"
TEXTS, TOGETHER = 10_000, 50
TIED = ("decoder.weight", "decoder.bias", "vocab_projector.weight")

_SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
}
COMMON: dict[str, dict[str, Any]] = {
    "roberta": {"model_type": "roberta", **_SMALL, "type_vocab_size": 1, "layer_norm_eps": 1e-5},
    "xlm": {"model_type": "xlm-roberta", **_SMALL, "type_vocab_size": 1, "layer_norm_eps": 1e-5},
    "bert": {"model_type": "bert", **_SMALL},
    "distilbert": {
        "model_type": "distilbert",
        "vocab_size": 96,
        "dim": 16,
        "n_layers": 2,
        "n_heads": 4,
        "hidden_dim": 24,
        "max_position_embeddings": 32,
    },
    "albert": {"model_type": "albert", **_SMALL, "embedding_size": 8},
    "deberta": {
        "model_type": "deberta-v2",
        **_SMALL,
        "type_vocab_size": 0,
        "relative_attention": True,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
    },
}
MODELS: dict[str, dict[str, Any]] = {
    "roberta": {},
    "roberta_types": {"type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu_new"},
    "xlm": {},
    "bert": {},
    "bert_relu": {"hidden_act": "relu", "layer_norm_eps": 1e-5},
    "distilbert": {},
    "albert": {},
    "albert_groups": {"num_hidden_layers": 4, "num_hidden_groups": 2, "inner_group_num": 2, "hidden_act": "gelu"},
    "deberta": {},
}


def drawn(shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Return weights of these shapes, of which none is zero or one."""
    weights = {}
    for index, (name, shape) in enumerate(sorted(shapes.items())):
        noise = np.random.default_rng(index).normal(0.0, 0.3, shape)
        is_scale = name.lower().endswith("norm.weight") and len(shape) == 1
        weights[name] = (noise + is_scale).astype(np.float32)
    return weights


def example(vocabulary_size: int) -> tuple[Any, Any]:
    """Return token ids between start and end tokens, int32 `(2, 14)`, and labels of masked places, -100 elsewhere."""
    draws = np.random.default_rng(0)
    ids = draws.integers(4, vocabulary_size - 1, (2, 14)).astype(np.int32)
    labels = np.where(draws.random(ids.shape) < 0.3, ids, -100).astype(np.int32)
    ids[:, 0], ids[:, -1], labels[:, [0, -1]] = 0, 2, -100
    return np.where(labels >= 0, vocabulary_size - 1, ids).astype(np.int32), labels


def crc(ids: Sequence[Sequence[int]]) -> int:
    return zlib.crc32(json.dumps([list(map(int, of_text)) for of_text in ids]).encode())


@cache
def _files() -> dict[str, bytes]:
    with tarfile.open(ARCHIVE) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive if member.isfile()}


def content(name: str) -> bytes:
    """Return a file of the archive."""
    return _files()[name]


def logits_and_loss(name: str) -> tuple[Any, float]:
    """Return transformers' logits of the example and its masked loss."""
    model = json.loads(content(f"{name}/model.json"))
    return np.load(io.BytesIO(content(f"{name}/logits.npy"))), float(model["loss"])


def write(name: str, folder: Path, *, words: int | None = None) -> Path:
    """Write a transformers directory of one of the models, with a tokenizer of whole words, and return it."""
    from safetensors.numpy import save_file

    from kerasgen.models import encoders
    from kerasgen.tokens.encoder_tokenizers import Special, word_piece

    model = json.loads(content(f"{name}/model.json"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(model["config"]))
    save_file(drawn(model["shapes"]), str(folder / "model.safetensors"), metadata={"format": "pt"})
    names = encoders.named(model["config"]["model_type"]).tokens
    special = Special(*names)
    size = model["config"]["vocab_size"] - 5 if words is None else words
    vocabulary = [special.start, special.pad, special.end, special.unknown, *letters(size), special.mask]
    (folder / "tokenizer.json").write_text(word_piece(vocabulary, special, lowercase=False))
    settings = {"cls_token": special.start, "sep_token": special.end, "pad_token": special.pad}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "mask_token": special.mask}))
    return folder


def letters(count: int) -> list[str]:
    """Return words of one letter, which are cut apart by spaces alone."""
    return [chr(ord("a") + n) if n < 26 else f"w{n}" for n in range(count)]


def tokenizer_folder(name: str, folder: Path, *, saved: bool = False) -> Path:
    """Write a family's tokenizer files, as they are published or as transformers saves them, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if saved:
        (folder / "tokenizer.json").write_bytes(content(f"tokenizers/{name}/saved.json"))
        return folder
    for path, bytes_of_file in _files().items():
        family, _, file = path.removeprefix("tokenizers/").partition("/")
        if path.startswith("tokenizers/") and family == name and file not in ("ids.json", "saved.json"):
            (folder / file).write_bytes(bytes_of_file)
    return folder


def ids_of(name: str) -> dict[str, Any]:
    """Return what transformers says of drawn texts: `first`, `crc` and `masked`."""
    found: dict[str, Any] = json.loads(content(f"tokenizers/{name}/ids.json"))
    return found
