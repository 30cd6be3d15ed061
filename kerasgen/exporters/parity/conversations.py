"""The conversations with which an artefact's chat template is proved, and what the model reads of them."""

from __future__ import annotations

from typing import Any, Final

from kerasgen.corpora.base import Conversation
from kerasgen.errors import ChatTemplateError
from kerasgen.models import chat
from kerasgen.models.base import LanguageModel

_SYSTEM: Final = {"role": "system", "content": "Answer in one word."}
_ASKED: Final = {"role": "user", "content": "Is it 1 + 1 = 2?\nOr \u6625\u98a8?"}
_SAID: Final = {"role": "assistant", "content": "Yes."}
_AGAIN: Final = {"role": "user", "content": "And now, at 7:30?"}
TALKS: Final = ([_ASKED], [_SYSTEM, _ASKED], [_SYSTEM, _ASKED, _SAID, _AGAIN])


def asked(model: LanguageModel) -> list[dict[str, Any]]:
    """Return conversations that wait for an answer: `messages`, the `text` that the template writes, and its `ids`.

    There are none where the model has no template; one that its template refuses, such as one with a system turn, is
    left out.
    """
    template = chat.template_of(model)
    found: list[dict[str, Any]] = []
    for messages in TALKS if template is not None else ():
        assert template is not None
        try:
            text = template.render(Conversation(tuple(messages)), add_generation_prompt=True)
        except ChatTemplateError:
            continue
        found.append({"messages": messages, "text": text, "ids": model.tokenizer.encode_with_special(text, "all")})
    return found
