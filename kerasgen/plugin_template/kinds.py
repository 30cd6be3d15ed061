"""The kinds of plugins that a new package can hold, and how people call them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from kerasgen import keywords
from kerasgen.errors import ArgumentError


@dataclass(frozen=True)
class Kind:
    """A kind of plugin.

    Args:
        name: as `--with` takes it, which its files are called by as well.
        group: the last part of its entry-point group, such as `"corpora"`.
        class_name: of the template.
        usage: a line of Python that uses it, for the README.
    """

    name: str
    group: str
    class_name: str
    usage: str


KINDS: Final = (
    Kind("corpus", "corpora", "PlaceholderCorpus", 'kg.Pipeline(corpus="placeholder:path=texts.txt")'),
    Kind("sampler", "samplers", "PlaceholderSampler", 'pipe.generate("春", sampler="placeholder:share=0.3")'),
    Kind("exporter", "exporters", "PlaceholderExporter", 'pipe.export("poet.placeholder")'),
    Kind("model", "models", "PlaceholderModel", 'kg.Pipeline(model="placeholder:layers=2")'),
    Kind("tuner", "tuners", "PlaceholderTuner", 'kg.Pipeline(corpus="sample", tuner="placeholder:epochs=2")'),
    Kind("constraint", "constraints", "PlaceholderConstraint", 'pipe.generate("", constraint="placeholder:digits=4")'),
)
_SPELLED: Final = {
    **{kind.name: kind for kind in KINDS},
    **{kind.group: kind for kind in KINDS},
    **dict.fromkeys(("model source", "model-source", "model_source", "source"), KINDS[3]),
    **dict.fromkeys(("runtime", "format"), KINDS[2]),
}


def asked_for(texts: Iterable[str] | None) -> tuple[Kind, ...]:
    """Return the kinds that text names, in the order of `KINDS`; all for None.

    Args:
        texts: names of kinds, singular or plural, in each text several with commas between.

    Raises:
        ArgumentError: a name is of no kind, or there is none.
    """
    if texts is None:
        return KINDS
    words = [word.strip().lower() for text in texts for word in text.split(",") if word.strip()]
    names = ", ".join(kind.name for kind in KINDS)
    for word in words:
        if word not in _SPELLED:
            raise ArgumentError(
                f"A package holds plugins of these kinds: {names}. Received: {word!r}."
                f"{keywords.did_you_mean(word, _SPELLED)}"
            )
    chosen = {_SPELLED[word].name for word in words}
    if not chosen:
        raise ArgumentError(f"Say what the package shall hold: {names}. Received: none of them.")
    return tuple(kind for kind in KINDS if kind.name in chosen)
