"""Reads and writes a byte-level BPE's `tokenizer.json` of transformers; whatever can't be done exactly is an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from kerasgen.errors import TokenArgumentError
from kerasgen.tokens.added_tokens import AddedToken
from kerasgen.tokens.bpe_files import Contents, error_at, first_problem, pair_of, parse_json, read_text
from kerasgen.tokens.pretokenization import BYTE_OF_CHARACTER, GPT2_PATTERN, Pretokenization

# The parts that do something to a text, and what a part of several steps calls them.
_STEPS: Final = {
    "normalizer": "normalizers",
    "pre_tokenizer": "pretokenizers",
    "post_processor": "processors",
    "decoder": "decoders",
}
_PLACES: Final = ("lstrip", "rstrip", "single_word")
_ONLY = "Only byte-level BPE that cuts text by one regular expression can be read"


def read(path: Path) -> Contents:
    """Read a `tokenizer.json` of transformers, whatever the file is called and whatever lies beside it.

    Raises:
        TokenizerError: it can't be read, or describes another kind of tokenizer.
    """
    content = parse_json(read_text(path), path)
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise error_at("Expected a tokenizer.json of transformers, with a `model`", path)
    return contents(content, path)


def is_byte_level(path: Path) -> bool:
    """Return whether a `tokenizer.json` describes a byte-level BPE that `read` reads.

    One whose special tokens take the blanks beside them, or stand for single words alone, is none: `ByteLevelBPE`
    finds the names of its special tokens as they are written.

    Raises:
        TokenizerError: it can't be read.
    """
    content = parse_json(read_text(path), path)
    if not all(_is_step(content.get(part), inside) for part, inside in _STEPS.items()):
        return True  # `read` says what is wrong
    model, whole = content.get("model"), {**content, "truncation": None, "padding": None}  # what these do, `read` says
    if not isinstance(model, dict) or _why_not_byte_level(whole) is not None or _pretokenization(content) is None:
        return False
    entries = content.get("added_tokens")
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and entry.get("special") and any(entry.get(flag) for flag in _PLACES):
            return False
    ids = model.get("vocab")
    return not model.get("unk_token") or not isinstance(ids, dict) or BYTE_OF_CHARACTER.keys() <= ids.keys()


def contents(content: Mapping[str, Any], path: Path) -> Contents:
    """Parse the content of a `tokenizer.json`.

    Its special tokens are those that it declares, and its start token the one that it puts before a text, or None.

    Raises:
        TokenizerError: it describes another kind of tokenizer, or contradicts itself.
    """
    model = content["model"]
    for part, inside in _STEPS.items():
        if not _is_step(content.get(part), inside):
            raise error_at(f"Its `{part}` must be an object or null, and its `{inside}` a list of objects", path)
    reason = _why_not_byte_level(content)
    cut = None if reason else _pretokenization(content)
    if cut is None:
        steps = _kinds(content.get("pre_tokenizer") or {}, "pretokenizers")
        raise error_at(f"{reason or f'It cuts text in another way before its merges ({steps}).'} {_ONLY}", path)
    ids, merges, added = model.get("vocab"), model.get("merges"), content.get("added_tokens") or []
    if not isinstance(ids, dict) or not isinstance(merges, list) or not isinstance(added, list):
        raise error_at("Its `vocab` must be an object, its `merges` and `added_tokens` lists", path)
    pairs = []
    for index, merge in enumerate(merges):
        pair = pair_of(merge)
        if pair is None:
            raise error_at(f"Merge {index}, counted from 0, is no pair: {merge!r}.", path)
        pairs.append(pair)
    special, ordinary = [], []
    for entry in added:
        token = added_token(entry, path)
        token_id = entry.get("id")
        if ids.setdefault(token.content, token_id) != token_id:
            raise error_at(
                f"The added token {token.content!r} has the id {token_id!r} there, "
                f"and {ids[token.content]!r} in `vocab`.",
                path,
            )
        if entry.get("special"):
            special.append(token.content)
        else:
            ordinary.append(token)
    problem = first_problem(ids, pairs)
    if problem is not None:
        raise error_at(problem.message, path)
    unknown = model.get("unk_token")
    if unknown and not BYTE_OF_CHARACTER.keys() <= ids.keys():
        raise error_at(f"Its model has unk_token={unknown!r} for bytes without a token. {_ONLY}", path)
    return Contents(
        ids,
        pairs,
        start_token=start_token(content.get("post_processor"), path),
        special_tokens=tuple(dict.fromkeys(special)),
        added_tokens=tuple(ordinary),
        usual_special_tokens=False,
        pretokenization=cut,
        drops_missing_bytes=True,
    )


def added_token(entry: Any, path: Path) -> AddedToken:
    """Return the added token that an entry of one of transformers' files stands for.

    Raises:
        TokenizerError: it is no added token.
    """
    try:
        return AddedToken.read(entry if isinstance(entry, dict) else {"content": entry})
    except TokenArgumentError as cause:
        raise error_at(str(cause), path) from cause


def written(contents: Contents) -> str:
    """Return the text of a `tokenizer.json` of transformers, in the form that GPT-2's has."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    ids, cut = contents.vocabulary, contents.pretokenization
    steps: list[dict[str, Any]] = [{"type": "Digits", "individual_digits": True}] if cut.single_digits else []
    steps += [] if cut.pattern is None else [_split(cut.pattern)]
    steps.append({**byte_level, "use_regex": cut.pattern is None})
    special = [AddedToken(token, normalized=False) for token in contents.special_tokens]
    entries = [(token, True) for token in special] + [(token, False) for token in contents.added_tokens]
    added = [
        {"id": ids[token.content], **token.to_json(), "special": special}
        for token, special in sorted(entries, key=lambda entry: ids[entry[0].content])
    ]
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": None,
            "pre_tokenizer": steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps},
            "post_processor": {**byte_level, "trim_offsets": False},
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": "",
                "end_of_word_suffix": "",
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": cut.ignore_merges,
                "vocab": dict(sorted(ids.items(), key=lambda item: item[1])),
                "merges": [f"{left} {right}" for left, right in contents.merges],
            },
        },
        ensure_ascii=False,
        allow_nan=False,
    )


def _why_not_byte_level(content: Mapping[str, Any]) -> str | None:
    model = content["model"]
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        return "Its model is not BPE."
    for setting in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(setting):
            return f"Its model has {setting}={model[setting]!r}."
    for setting in ("truncation", "padding"):
        if content.get(setting):
            return f"It has {setting}={content[setting]!r}, so its ids are not those of the text; set it to null."
    normalizer = content.get("normalizer")
    if normalizer and normalizer != {"type": "Sequence", "normalizers": []}:
        return f"It normalizes text ({_kinds(normalizer, 'normalizers')})."
    steps = _steps(content)
    if not steps or steps[-1].get("type") != "ByteLevel" or steps[-1].get("add_prefix_space") is not False:
        return "Its pre-tokenizer is not GPT-2's ByteLevel without a prefix space (add_prefix_space=false)."
    decoder = content.get("decoder")
    if decoder and decoder.get("type") != "ByteLevel":
        return f"Its decoder is {decoder.get('type')!r}, not ByteLevel."
    return None


def _steps(content: Mapping[str, Any]) -> list[Any]:
    """Return the steps of the file's pre-tokenizer."""
    steps = content.get("pre_tokenizer") or {}
    return list(steps.get("pretokenizers") or []) if steps.get("type") == "Sequence" else [steps]


def _pretokenization(content: Mapping[str, Any]) -> Pretokenization | None:
    """Return how a byte-level BPE cuts a text: each digit apart, by one pattern, or both; None for any other way."""
    *before, last = _steps(content)
    digits = bool(before) and before[0] == {"type": "Digits", "individual_digits": True}
    splits, is_cut_by_gpt2 = before[int(digits) :], last.get("use_regex", True) is not False
    ignores = bool(content["model"].get("ignore_merges"))
    if is_cut_by_gpt2:
        # Only GPT-2's own vocabulary is held to today's letters; others are cut as the library's expression does.
        pattern = GPT2_PATTERN if digits else None
        return None if splits else Pretokenization(pattern, single_digits=digits, ignore_merges=ignores)
    if len(splits) != 1:
        return None
    split_pattern = splits[0].get("pattern")
    pattern = split_pattern.get("Regex") if isinstance(split_pattern, dict) else None
    if not isinstance(pattern, str) or splits[0] != _split(pattern):
        return None
    gpt2 = pattern == GPT2_PATTERN and not digits
    return Pretokenization(None if gpt2 else pattern, single_digits=digits, ignore_merges=ignores)


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _is_step(value: Any, inside: str) -> bool:
    """Whether a part of the file is null, or an object whose inner steps are a list of objects."""
    if not value:
        return True
    if not isinstance(value, dict):
        return False
    steps = value.get(inside) or []
    return isinstance(steps, list) and all(isinstance(step, dict) for step in steps)


def _kinds(step: Mapping[str, Any], inside: str) -> str:
    steps = step[inside] if isinstance(step.get(inside), list) else [step]
    return ", ".join(str(part.get("type")) for part in steps if isinstance(part, dict))


def start_token(processor: Any, path: Path) -> str | None:
    """Return the token that a post-processor puts before a text, or None; one after it is the end token.

    Raises:
        TokenizerError: it puts other tokens there.
    """
    if not processor:
        return None
    if not _is_step(processor, "processors"):
        raise error_at("Its `post_processor` must be an object, and its `processors` a list of objects", path)
    steps = processor.get("processors") or [] if processor.get("type") == "Sequence" else [processor]
    templates = [step for step in steps if step.get("type") != "ByteLevel"]
    if not templates:
        return None
    single = templates[0].get("single")
    if len(templates) > 1 or templates[0].get("type") != "TemplateProcessing" or not isinstance(single, list):
        kinds = _kinds(processor, "processors")
        raise error_at(f"Its post-processor ({kinds}) is no template of a start token and a text. {_ONLY}", path)
    names = [_special_token(part, path) for part in single]
    place = names.index(None) if None in names else len(names)
    before, after = names[:place], names[place + 1 :]
    if len(before) > 1 or len(after) > 1 or None in after:
        raise error_at(
            f"Its post-processor puts {before!r} before a text and {after!r} after it. At most one token before, and "
            "the end token after, can be had.",
            path,
        )
    return before[0] if before else None


def _special_token(part: Any, path: Path) -> str | None:
    """Return the name of the special token that a part of a template stands for; None for the text."""
    if isinstance(part, dict) and "SpecialToken" not in part:
        return None
    token = part["SpecialToken"] if isinstance(part, dict) else None
    name = token.get("id") if isinstance(token, dict) else None
    if not isinstance(name, str):
        raise error_at(f"A part of its post-processor's template is malformed: {part!r:.80}", path)
    return name
