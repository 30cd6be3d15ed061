"""Adds special tokens to a vocabulary, such as those that a chat template writes around a turn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.pretrained import PretrainedTokenizer
from kerasgen.tokens.pretrained_files import restored, state_of


def with_special_tokens(
    tokenizer: ByteLevelBPE | PretrainedTokenizer, names: Sequence[str], *, end_tokens: Sequence[str] = ()
) -> ByteLevelBPE | PretrainedTokenizer:
    """Return a tokenizer in which these names are special tokens; those that it lacks get the ids behind its last one.

    Args:
        tokenizer: the old one; all its ids stay what they are.
        names: of special tokens; one that is a token already, but not a special one, becomes special.
        end_tokens: of them, those that end a text too when they are generated.
    """
    known = tokenizer.vocabulary
    new = [name for name in dict.fromkeys(names) if name not in known]
    added = {name: tokenizer.vocabulary_size + n for n, name in enumerate(new)}
    if isinstance(tokenizer, ByteLevelBPE):
        contents = tokenizer.contents()
        return ByteLevelBPE.from_contents(
            replace(
                contents,
                vocabulary={**contents.vocabulary, **added},
                special_tokens=tuple(dict.fromkeys((*contents.special_tokens, *names))),
                added_tokens=tuple(token for token in contents.added_tokens if token.content not in names),
                end_tokens=tuple(dict.fromkeys((*contents.end_tokens, *end_tokens))),
            )
        )
    state = state_of(tokenizer)
    if tokenizer.is_json:
        content = json.loads(state["content"])
        entries = {entry["content"]: entry for entry in content.get("added_tokens") or []}
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for name in names:
            place = added.get(name, known.get(name))
            entries[name] = {"id": place, "content": name, **flags, **entries.get(name, {}), "special": True}
        content["added_tokens"] = sorted(entries.values(), key=lambda entry: int(entry["id"]))
        state["content"] = json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
    else:
        state["further"] = {**state["further"], **added}
    state["special_tokens"] = list(dict.fromkeys((*state["special_tokens"], *names)))
    state["end_tokens"] = list(dict.fromkeys((*state["end_tokens"], *end_tokens)))
    return restored(state)
