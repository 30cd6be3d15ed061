"""The report of a pipeline: the figures of its last run, and the page of everything that is known about it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from kerasgen import specs
from kerasgen.errors import ArgumentError

if TYPE_CHECKING:
    from kerasgen.evaluation.base import Evaluation, TextScore
    from kerasgen.exporters.base import Artefact

TEXTS: Final = 3
"""Held-out texts that are coloured where a call names none."""
CHARACTERS: Final = 400
"""Of each of them, at most."""
CHOICES: Final = 5
"""Other tokens that are shown of each place."""


class RunReport:
    """The report of a pipeline's last run, and the call that writes its page.

    It has every attribute of `kerasgen.TuneReport`, and prints as that does. It is false before the first run.

    Args:
        pipeline: whose run it is.
    """

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline

    def __call__(
        self,
        path: str | os.PathLike[str],
        *,
        texts: str | Sequence[str] | None = None,
        evaluation: Evaluation | None = None,
        artefacts: Sequence[Artefact] | None = None,
        language: Literal["en", "zh"] | None = None,
        title: str | None = None,
    ) -> Path:
        """Write all that is known about the pipeline as one page, and return its path.

        Args:
            path: of the file, which is replaced; its name ends in `.html` or `.htm`.
            texts: what is coloured by how much it surprises the model, with its other choices on hover; None for some
                held-out documents, if the model is loaded and there are any, and `[]` for none.
            evaluation: the result of `evaluate`; None for the last one of this pipeline, if there is one.
            artefacts: results of `export`; None for all that this pipeline has exported.
            language: of the page's own words, `"en"` or `"zh"`; None for that of the variable `KERASGEN_LANGUAGE`, or
                English.
            title: of the page; None for the model's and the corpus's names.

        Raises:
            ArgumentError: an argument is wrong, or there is nothing to show yet.
            KerasgenError: the file can't be written.
        """
        from kerasgen.reports import page

        page.check(path, language=language)
        pipeline = self._pipeline
        return page.write(
            path,
            report=pipeline._report,
            evaluation=pipeline._evaluation if evaluation is None else evaluation,
            scores=self._scores(texts),
            artefacts=pipeline._artefacts if artefacts is None else artefacts,
            language=language,
            title=title,
        )

    def _scores(self, texts: str | Sequence[str] | None) -> list[TextScore]:
        if texts is None:
            return self._held_out()
        listed = specs.strings([texts] if isinstance(texts, str) else texts)
        if listed is None:
            raise ArgumentError(f"`texts` must be a text or a list of texts. Received: {texts!r:.80}.")
        if not listed:
            return []
        # Short texts share a row, and of a large model each further row of a batch takes seconds.
        scores: list[TextScore] = self._pipeline.score(listed, batch_size=1, top_logprobs=CHOICES)
        return scores

    def _held_out(self) -> list[TextScore]:
        """Return the scores of some held-out documents; none where the model would have to be loaded first.

        A conversation is scored as the model's chat template writes it, any other document by its beginning.
        """
        pipeline = self._pipeline
        if pipeline._model is None or pipeline.corpus is None or not pipeline.held_out:
            return []
        chosen = list(islice(pipeline._corpus().side("held_out"), TEXTS))
        if not any(document.conversation for document in chosen):
            return self._scores([document.text[:CHARACTERS] for document in chosen])
        from kerasgen.evaluation.perplexity import score_documents

        return score_documents(pipeline._whole_model("score"), chosen, batch_size=1, top_logprobs=CHOICES)

    @property
    def _figures(self) -> Any:
        return self._pipeline._report

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_pipeline":
            raise AttributeError(name)
        if self._figures is None:
            raise AttributeError(f"There is no {name!r}, since nothing has been tuned yet. Call fit() first.")
        return getattr(self._figures, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self._figures)})

    def __bool__(self) -> bool:
        return self._figures is not None

    def __eq__(self, other: object) -> bool:
        return bool(self._figures == (other._figures if isinstance(other, RunReport) else other))

    def __hash__(self) -> int:
        return id(self._figures)

    def __repr__(self) -> str:
        return "RunReport(nothing tuned yet)" if self._figures is None else repr(self._figures)

    def __str__(self) -> str:
        return repr(self) if self._figures is None else str(self._figures)

    def _repr_html_(self) -> str | None:
        return None if self._figures is None else self._figures._repr_html_()
