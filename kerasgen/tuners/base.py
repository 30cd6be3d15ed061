"""The tuner contract: a model and tokens become a tuned model and a report."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from kerasgen import deprecations
from kerasgen.errors import TuneArgumentError
from kerasgen.files.path_arguments import path_argument
from kerasgen.keywords import Checked
from kerasgen.tuners.report import TextSample as TextSample
from kerasgen.tuners.report import TuneReport as TuneReport
from kerasgen.tuners.report import Validation as Validation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kerasgen.corpora.base import Document
    from kerasgen.models.base import LanguageModel
    from kerasgen.tokens.encoding import EncodedDocuments


@dataclass(frozen=True, eq=False)
class TuneJob(metaclass=Checked):
    """One run of a tuner: the model, the documents and the settings of the run, all checked at construction.

    Args:
        model: whose weights change.
        train: the documents to learn from, at least one.
        held_out: the documents to validate on before, after and as often as the tuner's settings say; None for none.
        seed: for the order of the rows, dropout and new weights; 0 to 2**64 - 1.
        directory: where the run keeps its checkpoints.
        resume: True goes on from the run's last checkpoint, with the numbers of a run that was never interrupted; False
            starts anew and removes what the directory holds; `"auto"` goes on if the directory holds a run that did not
            finish, and starts anew otherwise.
        callbacks: Keras callbacks, which see one run, one Keras epoch for each pass over the documents, and a
            `MetricsLogger`.
        sample: writes a text with the model as it is; called as often as the tuner's settings say. None for no texts.
        verbose: Keras's: 0 silent, 1 a progress bar, 2 a line an epoch.

    Raises:
        TuneArgumentError: one of them is of another kind or out of range.
    """

    _argument_error = TuneArgumentError

    model: LanguageModel
    train: EncodedDocuments
    held_out: EncodedDocuments | None = None
    _: KW_ONLY
    seed: int
    directory: Path
    resume: bool | Literal["auto"] = False
    callbacks: Sequence[Any] = ()
    sample: Callable[[], str] | None = None
    verbose: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not isinstance(self.seed, Integral) or not 0 <= self.seed < 2**64:
            raise TuneArgumentError(f"`seed` must be a whole number from 0 to 2**64 - 1. Received: {self.seed!r}.")
        check_fit(resume=self.resume, verbose=self.verbose)
        object.__setattr__(self, "directory", path_argument(self.directory, TuneArgumentError, name="directory"))

    @property
    def has_held_out(self) -> bool:
        """Whether there is a held-out token to predict."""
        return self.held_out is not None and self.held_out.targets > 0


def check_fit(*, resume: Any, verbose: Any) -> None:
    """Check what `Pipeline.fit` and a `TuneJob` take alike, before the corpus is read.

    Raises:
        TuneArgumentError: one of them is none of its choices.
    """
    if not (isinstance(resume, bool) or resume == "auto"):
        raise TuneArgumentError(f"`resume` must be True, False or 'auto'. Received: resume={resume!r}.")
    if verbose not in (0, 1, 2):
        raise TuneArgumentError(f"`verbose` must be 0, 1 or 2. Received: verbose={verbose!r}.")


class FineTuner(metaclass=Checked):
    """Tunes a model. Subclasses are frozen dataclasses whose construction imports no Keras."""

    contract_version: ClassVar[int]  # a plugin declares it, see kerasgen.plugins.contract_versions
    _argument_error = TuneArgumentError
    _learns_pairs: ClassVar[bool] = False

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "tune" in vars(cls):
            deprecations.warn(f"A tuner's own `tune`, as {cls.__name__} defines it,", "`tune_job(job)` for it")

    def adapt_vocabulary(
        self,
        model: LanguageModel,
        texts: Callable[[], Iterable[str]],
        held_out: Callable[[], Iterable[str]] | None = None,
        *,
        cache: str | os.PathLike[str] | None = None,
    ) -> Mapping[str, Any]:
        """Fit the model's vocabulary to texts before they are encoded, if the tuner is set to; by default, don't.

        Args:
            model: whose tokenizer and embeddings may be replaced, in place.
            texts: gives the training texts anew at each call.
            held_out: gives the held-out texts, to measure the model on them before its vocabulary changes.
            cache: the directory in which what was counted is kept for later runs, or None to keep nothing.

        Returns:
            What was done and why, as JSON can hold it; see `kerasgen.tuners.vocabulary.adapt`. Empty for nothing.
        """
        return {}

    def check_documents(self, documents: Callable[[], Iterable[Document]]) -> None:
        """Raise a `TuneArgumentError` if this tuner can't learn from the documents; by default, it can from any.

        Args:
            documents: gives the documents of both sides anew at each call, before they are encoded.
        """

    def check_kind(self, *, is_masked: bool | None) -> None:
        """Raise a `TuneArgumentError` if this tuner can't tune such a model; by default, it can tune any.

        Args:
            is_masked: whether it predicts masks; None where that is not known before it is loaded.
        """

    def check_streaming(self) -> None:
        """Raise a `TuneArgumentError` if this tuner can't take documents window by window; by default, it can't.

        A tuner that takes them gets `kerasgen.tokens.streaming.StreamedDocuments` to train on.
        """
        raise TuneArgumentError(
            f"{type(self).__name__} needs all documents at once. Leave streaming out, or use the `full` or `lora` "
            "tuner."
        )

    def load_base(self, load: Callable[[], LanguageModel]) -> LanguageModel:
        """Return the model that shall be tuned, its weights held as the tuner's settings say; by default, as they are.

        Args:
            load: returns the model, which it may have loaded before.
        """
        return load()

    def tune(
        self, model: LanguageModel, train: EncodedDocuments, held_out: EncodedDocuments | None = None, **settings: Any
    ) -> TuneReport:
        """Tune the model in place and return the report.

        A tuner defines `tune_job`, and leaves this as it is.

        Args:
            model: as in `TuneJob`, as are the next two.
            train: the documents to learn from.
            held_out: the documents to validate on, or None.
            **settings: the other fields of `TuneJob`, by name; `seed` and `directory` are needed.

        Raises:
            TuneArgumentError: the settings don't fit the model or the documents; nothing was changed.
            NonFiniteLossError: a loss, a weight or the held-out loss became NaN or infinite; no checkpoint is of it.
            CheckpointError: there is nothing to resume, or it is of another run, or damaged.
            KeyboardInterrupt: after Ctrl-C, once a checkpoint is written.
        """
        return self.tune_job(TuneJob(model, train, held_out, **settings))

    def tune_job(self, job: TuneJob) -> TuneReport:
        """Tune the job's model in place and return the report; raise what `tune` raises.

        Args:
            job: what to tune, on what, and how.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `tune_job(job)`, which tunes the job's model.")
