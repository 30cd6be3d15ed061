"""Write small tokenizers of published families, and the ids that transformers' AutoTokenizer gives by them.

    python tests/support/write_tokenizer_families.py tests/tokens/families.tar.xz ../shared/data

Each family has the normalizer, pre-tokenizer, byte fallback, special and added tokens and template of its published
`tokenizer.json`; where transformers has a class of its own for it, that class makes the file. Only the vocabularies are
small: one byte-level BPE and two SentencePiece models, trained here on posts.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from drawn_texts import drawn, posts
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

COUNT = 300
LLAMA3_CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_CUT = LLAMA3_CUT.replace(r"\p{N}{1,3}", r"\p{N}")
BLOOM_CUT = r" ?[^(\s|[.,!?…。，、।۔،])]+"
CHINESE = "昨夜雨疏风骤，浓睡不消残酒。試問卷簾人，卻道海棠依舊。"


def byte_pairs(texts: list[str], alphabet: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    rust = Tokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    rust.train_from_iterator([*texts, CHINESE * 20], trainer)
    found = json.loads(rust.to_str())["model"]
    return found["vocab"], [tuple(merge) for merge in found["merges"]]


def sentence_pieces(texts: list[str], **settings: Any) -> bytes:
    import sentencepiece

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for text in texts for line in (text[:2000], CHINESE)]),
        model_writer=written,
        vocab_size=700,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        minloglevel=2,
        **settings,
    )
    return written.getvalue()


def byte_level(
    vocab: dict[str, int], merges: Any, cut: Any, special: Any, added: Any = (), **settings: Any
) -> Tokenizer:
    rust = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=settings.get("ignore_merges", False)))
    if settings.get("nfc"):
        rust.normalizer = normalizers.NFC()
    rust.pre_tokenizer = pre_tokenizers.Sequence(cut) if len(cut) > 1 else cut[0]
    rust.decoder = decoders.ByteLevel()
    rust.add_special_tokens(list(special))
    rust.add_tokens(list(added))
    rust.post_processor = processors.ByteLevel(trim_offsets=False)
    start = settings.get("start")
    if start is not None:
        template = {"single": f"{start} $A", "special_tokens": [(start, rust.token_to_id(start))]}
        rust.post_processor = processors.Sequence([rust.post_processor, processors.TemplateProcessing(**template)])
    return rust


def pieces(proto: bytes, *, legacy: bool, prefix: bool, special: Any, added: Any = ()) -> Tokenizer:
    """A SentencePiece model as the published `tokenizer.json` of Llama 2, Mistral, Phi-3 and Gemma write it."""
    from sentencepiece import SentencePieceProcessor
    from transformers.tokenization_utils_base import generate_merges

    model = SentencePieceProcessor(model_proto=proto)
    vocab = {model.id_to_piece(n): n for n in range(model.vocab_size())}
    scores = {token: model.get_score(n) for token, n in vocab.items()}
    rust = Tokenizer(
        models.BPE(
            vocab=vocab, merges=generate_merges(vocab, scores), unk_token="<unk>", fuse_unk=True, byte_fallback=True
        )
    )
    replace = normalizers.Replace(" ", "▁")
    rust.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace]) if prefix else replace
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    rust.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    if not prefix:
        rust.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    rust.add_special_tokens(list(special))
    rust.add_tokens(list(added))
    first = str(special[1].content if legacy else "<bos>")
    rust.post_processor = processors.TemplateProcessing(
        single=f"{first} $A", special_tokens=[(first, rust.token_to_id(first))]
    )
    return rust


def special(*names: str, **flags: bool) -> list[AddedToken]:
    return [AddedToken(name, special=True, normalized=False, **flags) for name in names]


def families(texts: list[str]) -> dict[str, tuple[Any, dict[str, Any]]]:
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    bare = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    def split(pattern: str) -> Any:
        return pre_tokenizers.Split(Regex(pattern), "isolated")

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    vocab, merges = byte_pairs(texts, sorted(alphabet))
    lacking = {token: n for token, n in vocab.items() if token not in ("Ą", "Ć", "ē", "ÿ", "õ")}
    lacking = {token: n for n, token in enumerate(lacking)}
    llama = sentence_pieces(texts)
    gemma = sentence_pieces(
        texts,
        add_dummy_prefix=False,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        eos_piece="<eos>",
        bos_piece="<bos>",
        user_defined_symbols=["\n\n", "▁▁", "<start_of_turn>", "<end_of_turn>"],
    )
    found: dict[str, tuple[Any, dict[str, Any]]] = {}
    ends = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    found["gpt2"] = (
        byte_level(vocab, merges, [plain], special("<|endoftext|>")),
        {"tokenizer_class": "GPT2Tokenizer", **ends},
    )
    found["opt"] = (
        byte_level(vocab, merges, [plain], special("<s>", "<pad>", "</s>", "<unk>"), start="</s>"),
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "</s>",
            "eos_token": "</s>",
            "pad_token": "<pad>",
            "unk_token": "</s>",
        },
    )
    im = special("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    found["smollm2"] = (
        byte_level(lacking, [m for m in merges if set(m) <= lacking.keys()], [pre_tokenizers.Digits(True), plain], im),
        {"tokenizer_class": "GPT2Tokenizer", **ends, "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"},
    )
    llama3 = special("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>")
    found["llama3"] = (
        byte_level(
            vocab, merges[:-30], [split(LLAMA3_CUT), bare], llama3, ignore_merges=True, start="<|begin_of_text|>"
        ),
        {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    )
    think = [AddedToken("<think>", normalized=False), AddedToken("</think>", normalized=False)]
    found["smollm3"] = (
        byte_level(vocab, merges, [split(LLAMA3_CUT), bare], [*llama3, *im[1:]], think, ignore_merges=True),
        {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "bos_token": None},
    )
    found["qwen3"] = (
        byte_level(vocab, merges, [split(QWEN2_CUT), bare], im, think, nfc=True),
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "add_bos_token": False,
            "bos_token": None,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
        },
    )
    runs = [AddedToken(" " * n, normalized=True) for n in (8, 4, 3, 2)]
    found["gpt_neox"] = (
        byte_level(vocab, merges, [plain], special("<|endoftext|>", "<|padding|>"), runs, nfc=True),
        {"tokenizer_class": "GPTNeoXTokenizer", **ends},
    )
    found["bloom"] = (
        byte_level(vocab, merges, [split(BLOOM_CUT), bare], special("<unk>", "<s>", "</s>", "<pad>")),
        {"tokenizer_class": "BloomTokenizer", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"},
    )
    falcon = [pre_tokenizers.Punctuation("contiguous"), plain, pre_tokenizers.Digits(False), split("[0-9][0-9][0-9]")]
    found["falcon"] = (
        byte_level(vocab, merges, falcon, special(">>TITLE<<", ">>ABSTRACT<<", "<|endoftext|>")),
        {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"},
    )
    three = special("<unk>", "<s>", "</s>")
    said = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    found["llama"] = (
        pieces(llama, legacy=True, prefix=True, special=three),
        {"tokenizer_class": "LlamaTokenizer", "legacy": False, **said},
    )
    found["mistral"] = (
        pieces(llama, legacy=True, prefix=True, special=[*three, *special("[INST]", "[/INST]")]),
        {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False, "legacy": False, **said},
    )
    phi3 = special("<|endoftext|>", "<|assistant|>", "<|user|>", "<|end|>", rstrip=True)
    found["phi3"] = (
        pieces(llama, legacy=True, prefix=True, special=[*three, *phi3]),
        {
            "tokenizer_class": "LlamaTokenizer",
            "add_bos_token": False,
            "add_eos_token": False,
            "legacy": False,
            **said,
            "eos_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
        },
    )
    turns = special("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")
    added = [AddedToken("\n\n", normalized=False), AddedToken("▁▁", normalized=False)]
    found["gemma"] = (
        pieces(gemma, legacy=False, prefix=False, special=turns, added=added),
        {
            "tokenizer_class": "GemmaTokenizer",
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "pad_token": "<pad>",
            "unk_token": "<unk>",
        },
    )
    for name, proto, kind in (("llama_model", llama, "LlamaTokenizer"), ("gemma_model", gemma, "GemmaTokenizer")):
        found[name] = (proto, {**found[name.split("_")[0]][1], "tokenizer_class": kind, "add_bos_token": True})
    return found


def write(family: Any, settings: dict[str, Any], directory: Path) -> None:
    directory.mkdir(parents=True)
    if isinstance(family, bytes):
        (directory / "tokenizer.model").write_bytes(family)
    else:
        family.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")


def names_of(directory: Path) -> list[str]:
    """The special and added tokens of a family's file."""
    path = directory / "tokenizer.json"
    found = json.loads(path.read_text(encoding="utf-8"))["added_tokens"] if path.is_file() else []
    return [entry["content"] for entry in found]


def checksums(encoded: list[list[int]]) -> np.ndarray:
    """Two bytes for each list of ids."""
    return np.array([zlib.crc32(np.asarray(ids, "<i4").tobytes()) & 0xFFFF for ids in encoded], "<u2")


def main() -> None:
    target, shared = Path(sys.argv[1]), Path(sys.argv[2])
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    real = posts(shared)
    with tempfile.TemporaryDirectory() as folder, tarfile.open(target, "w:xz", preset=9) as archive:
        for name, (family, settings) in families(real).items():
            directory = Path(folder) / name
            write(family, settings, directory)
            texts = [*drawn(COUNT, names_of(directory)), *real]
            said = ids(AutoTokenizer, directory, texts)
            if not isinstance(family, bytes):
                said |= {f"file_{key}": sums for key, sums in ids(PreTrainedTokenizerFast, directory, texts).items()}
            np.savez_compressed(directory / "expected.npz", **said)
            archive.add(directory, name)
            print(name, said["started"])


def ids(kind: Any, directory: Path, texts: list[str]) -> dict[str, Any]:
    """What a class of transformers makes of the texts, with special tokens as text and found."""
    theirs, splitting = (kind.from_pretrained(directory, split_special_tokens=splits) for splits in (False, True))
    return {
        "plain": checksums(splitting(texts, add_special_tokens=False)["input_ids"]),
        "special": checksums(theirs(texts, add_special_tokens=False)["input_ids"]),
        "started": theirs("a b")["input_ids"],
    }


if __name__ == "__main__":
    main()
