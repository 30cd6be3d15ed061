"""Tracks whether a model's base weights are still those of its source, so that saving its adapters is enough."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kerasgen.models.base import LanguageModel


class Provenance:
    """Tracks changes of a model's weights since its source loaded them; adapters don't count.

    Args:
        is_source: whether every weight is still as the source brought it.
    """

    def __init__(self, is_source: bool = True) -> None:
        self.is_source = is_source

    def is_adapters_alone(self, model: LanguageModel) -> bool:
        """Return whether the source's model with the adapters is the whole of this one."""
        from kerasgen.tuners import adapters

        return self.is_source and adapters.current(model) is not None

    @contextmanager
    def watching(self, model: LanguageModel) -> Iterator[str]:
        """Find out whether weights other than the adapters' change meanwhile; give their SHA-256 at the beginning."""
        from kerasgen.tuners import adapters

        before = adapters.digest_of_others(model)
        yield before
        if not self.is_source:
            return
        if adapters.current(model) is None or adapters.digest_of_others(model) != before:
            self.is_source = False

    def merge(self, model: LanguageModel) -> None:
        """Add the model's adapters into its weights; nothing happens if there are none."""
        from kerasgen.tuners import adapters

        if adapters.current(model) is not None:
            adapters.merge(model)
            self.is_source = False
