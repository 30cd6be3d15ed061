"""The card of a model on a hub: Markdown for people, and settings at its top that the hub reads."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from kerasgen import keywords
from kerasgen.errors import HubArgumentError
from kerasgen.publishing.hub_terms import LANGUAGE, LICENCES, REPOSITORY, TASK

FILE: Final = "README.md"
_FENCE: Final = re.compile(r"\A\ufeff?\s*---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_TEXTS: Final = ("base_model", "datasets", "language", "tags", "metrics")  # one text, or a list of texts
_SINGLE: Final = ("license", "license_name", "license_link", "library_name", "pipeline_tag", "base_model_relation")
_RELATIONS: Final = ("adapter", "finetune", "merge", "quantized")


@dataclass
class ModelCard:
    """A model card, to be edited: change `text` and `metadata` as you like before you push it.

    Args:
        text: the card's Markdown, without the settings at its top.
        metadata: those settings, as the Hugging Face hub names them: `license`, `language`, `base_model`, `datasets`,
            `library_name`, `pipeline_tag`, `tags`, `model-index` and others.
    """

    text: str
    metadata: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"ModelCard({len(self.text):,} characters, metadata={sorted(self.metadata)})"

    def __str__(self) -> str:
        """Return the whole file, as it stands in a repository's `README.md`."""
        return self.content

    @property
    def content(self) -> str:
        """The whole file: the settings in YAML between two lines of `---`, and the text."""
        if not self.metadata:
            return self.text
        import yaml

        # A long text in YAML would be broken into lines, and one of them could be `---`.
        settings = yaml.safe_dump(self.metadata, allow_unicode=True, sort_keys=False, width=float("inf"))
        return f"---\n{settings}---\n\n{self.text.lstrip(chr(10))}"

    @classmethod
    def of(cls, content: str) -> ModelCard:
        """Return the card that a file's text holds.

        Args:
            content: such as a `README.md`; without settings at its top, all of it is the text.

        Raises:
            HubArgumentError: the settings can't be read.
        """
        fence = _FENCE.match(content)
        if fence is None:
            return cls(content)
        import yaml

        try:
            settings = yaml.safe_load(fence[1])
        except yaml.YAMLError as cause:
            raise HubArgumentError(
                f"The settings of the model card are no YAML: {' '.join(str(cause).split())}."
            ) from (cause)
        if settings is not None and not isinstance(settings, dict):
            raise HubArgumentError(f"The settings of the model card are no mapping. Received: {settings!r:.80}.")
        return cls(content[fence.end() :].lstrip("\r\n"), settings or {})

    def check(self) -> None:
        """Raise unless the hub takes the card: what it would refuse, and what it would not understand.

        Where `huggingface_hub` is installed, its own reader has the last word.

        Raises:
            HubArgumentError: a setting is of another kind, or has a value that the hub doesn't know.
        """
        if not isinstance(self.text, str):
            raise HubArgumentError(f"A model card's `text` must be text. Received: {self.text!r:.80}.")
        if not isinstance(self.metadata, dict):
            raise HubArgumentError(f"A model card's `metadata` must be a dict. Received: {self.metadata!r:.80}.")
        for name, value in self.metadata.items():
            if not isinstance(name, str):
                raise HubArgumentError(f"The names of a model card's settings are text. Received: {name!r:.80}.")
            self._check_setting(name, value)
        if self.metadata.get("license") == "other" and not self.metadata.get("license_name"):
            raise HubArgumentError(
                "license='other' needs the licence's name. Add license_name='…', and license_link='…' for its text."
            )
        import yaml

        try:
            self.content.encode("utf-8")
            restored = yaml.safe_load(yaml.safe_dump(self.metadata, allow_unicode=True))
        except (yaml.YAMLError, UnicodeError) as cause:
            raise HubArgumentError(f"The model card can't be written as YAML in UTF-8: {cause}.") from cause
        if restored != self.metadata:
            raise HubArgumentError(
                "The model card's settings are not those that a reader of its YAML has. Use text, numbers, True, "
                f"False, lists and dicts. Received: {self.metadata!r:.200}."
            )
        _check_by_hub(self)

    def _check_setting(self, name: str, value: Any) -> None:
        values = value if isinstance(value, list) else [value]
        if name in _SINGLE and not isinstance(value, str):
            raise HubArgumentError(f"The card's {name!r} must be text. Received: {value!r:.80}.")
        if name in _TEXTS and not all(isinstance(each, str) and each for each in values):
            raise HubArgumentError(f"The card's {name!r} must be text, or a list of texts. Received: {value!r:.80}.")
        if name == "license" and value not in LICENCES:
            raise HubArgumentError(
                f"The hub knows no licence {value!r:.80}.{keywords.meant(value, LICENCES)} Write one of its names, "
                "such as 'apache-2.0', 'mit' or 'cc-by-4.0'; or license='other' with license_name and license_link."
            )
        if name == "base_model_relation" and value not in _RELATIONS:
            raise HubArgumentError(f"The card's {name!r} is one of {', '.join(_RELATIONS)}. Received: {value!r:.80}.")
        if name == "pipeline_tag" and not TASK.fullmatch(value):
            raise HubArgumentError(
                f"The card's {name!r} is a task of the hub, such as 'text-generation'. Received: {value!r:.80}."
            )
        wrong = {
            "language": [each for each in values if not LANGUAGE.fullmatch(str(each))],
            "base_model": [each for each in values if not REPOSITORY.fullmatch(str(each))],
            "datasets": [each for each in values if not REPOSITORY.fullmatch(str(each))],
        }.get(name, [])
        if wrong:
            what = "a language's code by ISO 639, such as 'zh'" if name == "language" else "a name on the hub, 'a/b'"
            raise HubArgumentError(f"The card's {name!r} must be {what}. Received: {wrong[0]!r:.80}.")


Card: TypeAlias = ModelCard | str | Callable[[ModelCard], ModelCard | None] | None
"""What a person may push as a card: a card, the text of one, a function that edits one, or None for the one made."""


def given(card: Any) -> ModelCard | None:
    """Return the card that a person gave, checked; None where it is made or edited later.

    Raises:
        HubArgumentError: it is none, or one that the hub refuses.
    """
    if card is None or (callable(card) and not isinstance(card, (str, ModelCard))):
        return None
    content = card if isinstance(card, str) else getattr(card, "content", None)  # of the hub's own class too
    if not isinstance(content, str):
        raise HubArgumentError(
            "`card` must be a ModelCard, the text of one, or a function that edits one. Received: "
            f"{card!r:.80} of type {type(card).__name__}."
        )
    read = card if isinstance(card, ModelCard) else ModelCard.of(content)
    read.check()
    return read


def edited(card: Any, made: ModelCard) -> ModelCard:
    """Return the card to push: the one given, or the one made, after a person's function has edited it.

    Raises:
        HubArgumentError: the function returned something else, or what the hub refuses.
    """
    fixed = given(card)
    if fixed is not None:
        return fixed
    result = made if card is None else card(made)
    result = made if result is None else result
    checked = given(result)
    assert checked is not None or callable(result)
    if checked is None:
        raise HubArgumentError(f"The function given as `card` must return a ModelCard. Received: {result!r:.80}.")
    return checked


def _check_by_hub(card: ModelCard) -> None:
    try:
        from huggingface_hub import ModelCardData
    except ImportError:
        return
    try:
        ModelCardData(**card.metadata).to_yaml()
    except Exception as cause:  # whatever the hub's reader happens to raise
        raise HubArgumentError(f"The hub's own reader refuses the card's settings: {cause}.") from cause
