"""Write what transformers says of small masked language models: logits, losses, and the ids of their tokenizers.

    python tests/support/write_encoders.py tests/models/encoders.tar.xz ../shared/data

The weights are drawn by `encoders.drawn` here and in the tests, so that the file holds shapes and no weights. The
tokenizers' vocabularies are small, trained here on posts; their classes are transformers' of each family.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import encoders
import numpy as np
import torch
import transformers
from drawn_texts import drawn, posts

CHINESE = "昨夜雨疏风骤，浓睡不消残酒。試問卷簾人，卻道海棠依舊。"


def logits_of(name: str, folder: Path) -> dict[str, Any]:
    """Write a model's config.json and return its shapes, logits and masked loss."""
    settings = {**encoders.COMMON[name.split("_")[0]], **encoders.MODELS[name]}
    config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
    model = transformers.AutoModelForMaskedLM.from_config(config).eval()
    state = model.state_dict()
    shapes = {key: list(value.shape) for key, value in state.items() if value.is_floating_point()}
    tied = {alias for alias in shapes if alias.endswith(encoders.TIED)}
    weights = encoders.drawn({key: shape for key, shape in shapes.items() if key not in tied})
    model.load_state_dict({key: torch.tensor(value) for key, value in weights.items()}, strict=False)
    model.tie_weights()
    ids, labels = encoders.example(config.vocab_size)
    segments = torch.zeros(ids.shape, dtype=torch.long)
    with torch.no_grad():
        extra = {} if config.model_type in ("distilbert", "deberta-v2") else {"token_type_ids": segments}
        out = model(input_ids=torch.tensor(ids).long(), labels=torch.tensor(labels).long(), **extra)
    model.config.save_pretrained(folder)
    saved = json.loads((folder / "config.json").read_text())
    return {
        "config": {**saved, "architectures": [type(model).__name__]},
        "shapes": {key: shape for key, shape in shapes.items() if key not in tied},
        "loss": float(out.loss),
        "logits": out.logits.numpy().astype(np.float32),
    }


def sentence_pieces(texts: list[str], **settings: Any) -> bytes:
    import sentencepiece

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for text in texts for line in (text[:2000], CHINESE)]),
        model_writer=written,
        vocab_size=600,
        model_type="unigram",
        minloglevel=2,
        **settings,
    )
    return written.getvalue()


def vocabularies(texts: list[str]) -> dict[str, dict[str, bytes]]:
    """Train a vocabulary for each family, as the files in which its models are published."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    texts = [*texts, CHINESE * 20]
    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    pairs.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=700, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    found = json.loads(pairs.to_str())["model"]
    vocab = {**found["vocab"], "<mask>": len(found["vocab"])}
    merges = "#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in found["merges"])
    words = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer(lowercase=True)
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=900, special_tokens=special, show_progress=False)
    )
    ids = words.get_vocab()
    lines = "".join(f"{token}\n" for token in sorted(ids, key=ids.__getitem__))
    albert = {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1, "pad_piece": "<pad>"}
    albert |= {"control_symbols": ["[CLS]", "[SEP]", "[MASK]"]}
    deberta = {"pad_id": 0, "unk_id": 3, "bos_id": 1, "eos_id": 2}
    deberta |= {"pad_piece": "[PAD]", "bos_piece": "[CLS]", "eos_piece": "[SEP]", "unk_piece": "[UNK]"}
    # As in the published files: the space before a mask is the mask's.
    mask = {"__type": "AddedToken", "content": "<mask>", "lstrip": True, "rstrip": False, "normalized": True}
    mask |= {"single_word": False}
    settings = json.dumps({"mask_token": mask}).encode()
    pairs_files = {"vocab.json": json.dumps(vocab, ensure_ascii=False).encode(), "merges.txt": merges.encode()}
    return {
        "roberta": {**pairs_files, "tokenizer_config.json": settings},
        "bert": {"vocab.txt": lines.encode(), "tokenizer_config.json": b'{"do_lower_case": true}'},
        "distilbert": {"vocab.txt": lines.encode(), "tokenizer_config.json": b'{"do_lower_case": false}'},
        "albert": {"spiece.model": sentence_pieces(texts, normalization_rule_name="nmt_nfkc", **albert)},
        "xlm-roberta": {"sentencepiece.bpe.model": sentence_pieces(texts, normalization_rule_name="nmt_nfkc")},
        "deberta-v2": {"spm.model": sentence_pieces(texts, normalization_rule_name="nmt_nfkc_cf", **deberta)},
    }


def ids_of(name: str, files: dict[str, bytes]) -> tuple[dict[str, Any], bytes]:
    """Return the ids that transformers' class gives drawn texts, and the `tokenizer.json` that it writes."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        (folder / "config.json").write_text(json.dumps({"model_type": name}))
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        texts = drawn(encoders.TEXTS)
        ids = [tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"] for text in texts]
        masked = tokenizer(f"a b {tokenizer.mask_token} c")["input_ids"]
        tokenizer.save_pretrained(folder / "saved")
        written = (folder / "saved" / "tokenizer.json").read_bytes()
    parts = [ids[at : at + encoders.TOGETHER] for at in range(0, len(ids), encoders.TOGETHER)]
    return {"first": ids[: encoders.TOGETHER], "crc": [encoders.crc(part) for part in parts], "masked": masked}, written


def main(target: str, shared_data: str) -> None:
    with tempfile.TemporaryDirectory() as place, tarfile.open(target, "w:xz") as archive:

        def add(name: str, content: bytes) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))

        for name in encoders.MODELS:
            found = logits_of(name, Path(place))
            logits = found.pop("logits")
            written = io.BytesIO()
            np.save(written, logits)
            add(f"{name}/model.json", json.dumps(found).encode())
            add(f"{name}/logits.npy", written.getvalue())
        for name, files in vocabularies(posts(Path(shared_data))).items():
            ids, text = ids_of(name, files)
            for file, content in files.items():
                add(f"tokenizers/{name}/{file}", content)
            add(f"tokenizers/{name}/ids.json", json.dumps(ids).encode())
            add(f"tokenizers/{name}/saved.json", text)


if __name__ == "__main__":
    main(*sys.argv[1:])
