"""A model's chat template: its own, or one that is given to it with the special tokens that it lacks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from kerasgen.chat.named import NAMED
from kerasgen.chat.template import ChatTemplate
from kerasgen.corpora.base import Conversation
from kerasgen.errors import ChatTemplateError
from kerasgen.models.base import ADDED_TOKENS, CHAT_TEMPLATE, SPECIAL_TOKENS, LanguageModel, MaskedLanguageModel
from kerasgen.tokens.base import Tokenizer

REPORTED = "chat"
"""In an artefact's report, its chat template with the names of the special tokens that it writes."""

_SHORT = Conversation(({"role": "user", "content": "a"},))
# Rows of the embeddings table whose mean a new token's row begins with.
_ROWS_OF_A_MEAN = 64


def template_of(model: LanguageModel) -> ChatTemplate | None:
    """Return the chat template of a model, which may be none in Jinja, or None where it has none."""
    return described(model.tokenizer, model.metadata)


def described(tokenizer: Tokenizer, metadata: Mapping[str, Any]) -> ChatTemplate | None:
    """Return the chat template that a model's metadata hold, or None where they hold none.

    Args:
        tokenizer: the model's.
        metadata: the model's, of which the template and the names of its special tokens are read.
    """
    text = metadata.get(CHAT_TEMPLATE)
    if not isinstance(text, str) or not text:
        return None
    names = {token_id: name for name, token_id in tokenizer.special_tokens.items()}
    ids = {
        "bos_token": tokenizer.start_token_id,
        "eos_token": tokenizer.end_token_id,
        "pad_token": tokenizer.pad_token_id,
    }
    if metadata.get(SPECIAL_TOKENS) is not None:
        del ids["pad_token"]  # the model's files say whether it has one
    own = {name: names[token_id] for name, token_id in ids.items() if token_id is not None and token_id in names}
    known = {name: token for name, token in (metadata.get(SPECIAL_TOKENS) or {}).items() if token in names.values()}
    return ChatTemplate(text, {**own, **known}, tuple(tokenizer.special_tokens), "the model's chat template")


def start_of(tokenizer: Tokenizer) -> str:
    """Return the start token's name as a template writes it; "" where a tokenizer has none."""
    names = {token_id: name for name, token_id in tokenizer.special_tokens.items()}
    return "" if tokenizer.start_token_id is None else names.get(tokenizer.start_token_id, "")


def starts(tokenizer: Tokenizer, metadata: Mapping[str, Any]) -> bool:
    """Return whether all that a model reads begins with its start token: texts, and conversations too.

    A text gets the tokenizer's start token, but a conversation only what the chat template writes. A runtime that puts
    one before whatever it reads must not do so where this is false.
    """
    if tokenizer.start_token_id is None:
        return False
    template = described(tokenizer, metadata)
    if template is None:
        return True
    try:
        text = template.render(_SHORT, add_generation_prompt=True)
    except ChatTemplateError:
        return True
    return text.startswith(start_of(tokenizer))


def needed(model: LanguageModel) -> ChatTemplate:
    """Return the chat template of a model.

    Raises:
        ChatTemplateError: it has none, or what it has is no template.
    """
    template = template_of(model)
    if template is None:
        raise missing(model.source)
    template.check()
    return template


def missing(source: str) -> ChatTemplateError:
    """Return the error that a model has no chat template."""
    return ChatTemplateError(
        f"The model {source!r} has no chat template, which writes a conversation as it was trained to read it. Name "
        f"one when the pipeline is made, chat_template={' or '.join(map(repr, NAMED))}, and tune it on conversations."
    )


def give(model: LanguageModel, chosen: str, *, seed: int) -> bool:
    """Give a model a chat template, in place, and return whether its vocabulary became larger for it.

    Special tokens of a named template that the vocabulary lacks are added behind its last id; the row of each begins as
    the mean of some others that the seed chooses. The token that ends a turn ends generated texts too.

    Args:
        model: the model.
        chosen: the name of a template, or its text.
        seed: of the choice of rows.

    Raises:
        ChatTemplateError: the text is no template, or the model's vocabulary can't be changed.
    """
    from kerasgen.tokens.special_additions import with_special_tokens

    named = NAMED.get(chosen)
    if named is not None:
        named = named.begun_by(start_of(model.tokenizer))
    before = dict(model.metadata)
    model.metadata = before | {CHAT_TEMPLATE: chosen if named is None else named.text}
    tokens = () if named is None else named.tokens
    lacking = [name for name in tokens if name not in model.tokenizer.special_tokens]
    template = needed(model)
    end = named.end_of_turn if named is not None else template.end_of_turn
    ends = [] if end is None or model.tokenizer.special_tokens.get(end) in model.tokenizer.end_token_ids else [end]
    if not lacking and not ends:
        return False
    from kerasgen.models import vocabulary

    tokenizer = vocabulary.adaptable(model.tokenizer)
    if lacking and isinstance(model, MaskedLanguageModel):
        model.metadata = before
        raise ChatTemplateError(
            f"The model {model.source!r} predicts masked tokens and writes no answers; conversations are for causal "
            "models. Take one of those, or chat_template='alpaca', which needs no special tokens, to learn masked "
            f"tokens of conversations. Received: a template with {', '.join(map(repr, lacking))}."
        )
    if tokenizer is None or (lacking and not vocabulary.can_adapt(model)):
        model.metadata = before
        raise ChatTemplateError(
            f"The chat template needs the special tokens {', '.join(map(repr, lacking or ends))}, which the vocabulary "
            f"of the model {model.source!r} can't be given: {vocabulary.why_not(model)}. Use a template of tokens that "
            "it has, or 'alpaca', which needs none."
        )
    longer = with_special_tokens(tokenizer, tokens or ends, end_tokens=ends)
    grown = longer.vocabulary_size - tokenizer.vocabulary_size
    if not grown:
        model.tokenizer = longer
        return False
    import numpy as np

    from kerasgen.models.live import is_live
    from kerasgen.tokens.vocabulary import AdaptedVocabulary

    if is_live(model):
        model.metadata = before
        raise ChatTemplateError(
            f"The chat template needs {', '.join(map(repr, lacking))}, and a CausalLM that was handed over in memory "
            "stays as it is. Name its preset, directory or file, or use 'alpaca', which needs no tokens."
        )
    size = tokenizer.vocabulary_size
    sources: list[tuple[int, ...]] = [(n,) for n in range(size)]
    kept = np.asarray(sorted(tokenizer.vocabulary.values()))
    for token_id in range(size, longer.vocabulary_size):
        name = next(name for name, n in longer.special_tokens.items() if n == token_id)
        digits = hashlib.sha256(f"{seed} {name}".encode()).digest()
        drawn = np.random.default_rng(int.from_bytes(digits[:8], "little"))
        count = min(_ROWS_OF_A_MEAN, len(kept))
        sources.append(tuple(int(n) for n in drawn.choice(kept, count, replace=False)))
    adapted = AdaptedVocabulary(longer, tuple(sources), size, float("nan"))
    record = model.metadata.get(vocabulary.RECORD)
    vocabulary.adapt(model, adapted, record=record or {})
    added = [name for name, token_id in longer.special_tokens.items() if token_id >= size]
    without = {key: value for key, value in model.metadata.items() if key != vocabulary.RECORD or record}
    model.metadata = without | {ADDED_TOKENS: [*model.metadata.get(ADDED_TOKENS, ()), *added]}
    return True


def said(model: LanguageModel) -> dict[str, Any]:
    """Return what an artefact's report says of the model's chat template; nothing where it has none."""
    template = template_of(model)
    if template is None:
        return {}
    return {REPORTED: {CHAT_TEMPLATE: template.text, SPECIAL_TOKENS: dict(template.variables)}}


def end_turns(model: LanguageModel) -> None:
    """Let the token that ends a turn in the model's own chat template end generated texts too, in place."""
    template = template_of(model)
    end = None if template is None else template.end_of_turn
    if end is None or model.tokenizer.special_tokens[end] in model.tokenizer.end_token_ids:
        return
    from kerasgen.models.vocabulary import adaptable
    from kerasgen.tokens.special_additions import with_special_tokens

    tokenizer = adaptable(model.tokenizer)
    if tokenizer is not None:
        model.tokenizer = with_special_tokens(tokenizer, [end], end_tokens=[end])


def first_added(model: LanguageModel) -> int | None:
    """Return the first row of the embedding table that a chat template added, or None where none did."""
    names = model.metadata.get(ADDED_TOKENS, ())
    if not names:  # a tokenizer of another kind may know no special tokens by their names
        return None
    special = model.tokenizer.special_tokens
    return min((special[name] for name in names if name in special), default=None)
