"""The tuner contract: a model and tokens become a tuned model and a report."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field, fields
from importlib import import_module
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from kerasgen import deprecations
from kerasgen.errors import TuneArgumentError
from kerasgen.files.path_arguments import path_argument
from kerasgen.keywords import Checked

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kerasgen.corpora.base import Document
    from kerasgen.evaluation.base import Evaluation, TextScore
    from kerasgen.exporters.base import Artefact
    from kerasgen.models.base import LanguageModel
    from kerasgen.tokens.encoding import EncodedDocuments


_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "Mapping": (Mapping,),
    "Sequence": (tuple, list),
}


def _check_kinds(figures: Any) -> None:
    """Raise a `TypeError` at a figure of another kind than its field's, as a damaged file holds it."""
    for each in fields(figures):
        annotation, value = str(each.type), getattr(figures, each.name)
        if value is None and annotation.endswith(" | None"):
            continue
        kinds = _KINDS[annotation.removesuffix(" | None").partition("[")[0]]
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise TypeError(f"{each.name} must be of the kind {annotation}, and is {value!r:.60}")


@dataclass(frozen=True)
class Validation:
    """Figures of a model on held-out documents.

    Args:
        step: optimizer steps finished when it was measured; 0 is before tuning.
        loss: mean nats per target token.
        bits_per_character: bits per code point of text.
        documents: how many were scored; each validation of a run scores the same ones.
        tokens: target tokens of those.
        standard_error: of `bits_per_character`, as that of all such texts; None for a single document.
        pair_accuracy: of pairs, the share in which the better answer is the likelier one (for `loss="sigmoid"` as a
            whole, else by the mean of its tokens); equal ones count half. None without pairs, as the next three. Of
            pairs `loss` is the mean of the tuner's loss, and the other figures are those of the better answers.
        reward_accuracy: the share in which the better answer has the higher reward, which counts from the reference.
        margin: the mean of the better answer's reward less the worse one's.
        divergence: an estimate of how far the model has moved, in nats per learned token: that of the reference from
            the model (KL), at the places of both answers, from one token drawn at each by the reference.
    """

    step: int
    loss: float
    bits_per_character: float
    documents: int = 0
    tokens: int = 0
    standard_error: float | None = None
    pair_accuracy: float | None = None
    reward_accuracy: float | None = None
    margin: float | None = None
    divergence: float | None = None


@dataclass(frozen=True)
class TextSample:
    """A text that the model wrote while it was tuned.

    Args:
        step: optimizer steps finished when it was written.
        text: what it wrote.
    """

    step: int
    text: str


@dataclass(frozen=True)
class TuneReport:
    """The report of a tuning run.

    Args:
        steps: optimizer steps of the whole run, those before a resume included.
        epochs: passes over the training documents, a broken one as a fraction; 0 where a streamed corpus was not yet
            read to its end.
        losses: mean nats per target token of each optimizer step, padding not counted.
        validations: on held-out documents, in rows of `sequence_length` tokens; the first one is before tuning. Empty
            without held-out documents.
        samples: texts written on the way.
        tokens: target tokens trained on since this call began.
        characters: characters of text trained on since this call began.
        seconds: wall-clock of the training steps of this call, compilation included; validations, texts and
            checkpoints not.
        fill: share of the trained positions that held a real token, 0 to 1.
        split_documents: training documents longer than a row, which were split (nothing was cut off).
        documents: training documents; of a streamed corpus those of the windows that were begun in the first pass.
        sequence_length: positions of a row.
        packing: how documents were put into rows.
        parameters: weights of the model, adapters included.
        trainable_parameters: how many of them were tuned.
        backend: Keras's backend of the run.
        precision: the dtype policy of the computation.
        seed: the run's.
        stopped: why it ended: `"finished"`, `"max_steps"`, `"early stopping"` or `"a callback"`.
        resumed_from: the step that a resumed run began with, or None.
        checkpoint: the folder of the run's last checkpoint, or None if none was kept.
        corpus: what reading the corpus kept and dropped, with the reasons; see `CorpusTally.to_dict`.
        accuracies: share of the targets of each optimizer step that were the likeliest token.
        router_losses: of a mixture of experts, what unbalanced routers cost in each optimizer step; the sum of it and
            the loss is minimized, and `losses` shows the loss alone.
        first_step_seconds: wall-clock of this call's first execution, with all that was compiled for it.
        flops_per_token: floating-point operations of training on one token.
        matrix_product_flops: FLOP/s of a large matrix product on this device in this precision, measured at first.
        peak_memory_bytes: the most memory that the process has held until the end of the run.
        steps_per_execution: optimizer steps of an execution.
        reasons: why the backend, the precision, the length of a row and the rows of a batch were taken, each by its
            name here.
        vocabulary: what was done to the vocabulary and why, with figures before and after; see
            `FineTuner.adapt_vocabulary`. Empty if it was kept without a question.
        model: which one was tuned, in words; empty if nobody said.
        batch_size: rows of a batch.
        held_out_documents: documents held out; each validation says how many of them it scored.
        warnings: reasons why the run may not have done what was intended.
        read_tokens: of `tokens`, those of parts that are only read, such as prompts.
        shortened_documents: training documents with parts that are longer than a row, of which the first turns, or the
            beginning of a prompt, were left out.
        base: how the frozen weights beside adapters were stored: `"int8"`, `"int4"`, or else `"float32"`.
        margins: of pairs, the mean of the better answer's reward less the worse one's in each optimizer step; `losses`
            are means over pairs then, and `accuracies` shares of the pairs of which the better answer has the higher
            reward.
        machine: the versions, the processor and the devices of the run; see `kerasgen.machine.described`.
        settings: how the pipeline's corpus, model, tuner and sampler are written, each by its name.
    """

    steps: int
    epochs: float
    losses: Sequence[float]
    validations: Sequence[Validation]
    samples: Sequence[TextSample]
    tokens: int
    characters: int
    seconds: float
    fill: float
    split_documents: int
    documents: int
    sequence_length: int
    packing: str
    parameters: int
    trainable_parameters: int
    backend: str
    precision: str
    seed: int
    stopped: str
    resumed_from: int | None = None
    checkpoint: str | None = None
    corpus: Mapping[str, Any] = field(default_factory=dict)
    accuracies: Sequence[float] = ()
    router_losses: Sequence[float] = ()
    first_step_seconds: float = 0.0
    flops_per_token: float = 0.0
    matrix_product_flops: float = 0.0
    peak_memory_bytes: int = 0
    steps_per_execution: int = 1
    reasons: Mapping[str, str] = field(default_factory=dict)
    vocabulary: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int = 0
    held_out_documents: int = 0
    warnings: Sequence[str] = ()
    model: str = ""
    base: str = "float32"
    read_tokens: int = 0
    shortened_documents: int = 0
    margins: Sequence[float] = ()
    machine: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, figures: Mapping[str, Any]) -> TuneReport:
        """Return the report that `to_dict` described, also one of an earlier version.

        Raises:
            TuneArgumentError: the figures are no report's.
        """
        known = {each.name: figures[each.name] for each in fields(cls) if each.name in figures}
        try:
            known["validations"] = tuple(Validation(**entry) for entry in known["validations"])
            known["samples"] = tuple(TextSample(**entry) for entry in known["samples"])
            for name in ("losses", "accuracies", "router_losses", "margins"):
                known[name] = tuple(float(value) for value in known.get(name, ()))
            report = cls(**known | {"warnings": tuple(map("{:s}".format, known.get("warnings", ())))})
            for part in (report, *report.validations, *report.samples):
                _check_kinds(part)
            str(report)  # what lies deeper in it can be told
        except (KeyError, TypeError, ValueError) as cause:
            raise TuneArgumentError(
                f"These figures are no report of a run: {cause!r:.200}. Give what TuneReport.to_dict returned."
            ) from cause
        return report

    @property
    def loss(self) -> float:
        """Mean nats per target token of the last tenth of the steps; NaN before the first step."""
        last = list(self.losses)[-max(1, len(self.losses) // 10) :]
        return sum(last) / len(last) if last else float("nan")

    @property
    def bits_per_character_before(self) -> float | None:
        """Bits per character of the held-out documents before tuning."""
        return self.validations[0].bits_per_character if self.validations else None

    @property
    def bits_per_character(self) -> float | None:
        """Bits per character of the held-out documents after tuning."""
        return self.validations[-1].bits_per_character if self.validations else None

    @property
    def tokens_per_second(self) -> float:
        """Target tokens trained on per second of wall-clock, compilation included."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def characters_per_second(self) -> float:
        """Characters trained on per second of wall-clock, compilation included."""
        return self.characters / self.seconds if self.seconds else 0.0

    @property
    def padding(self) -> float:
        """Share of the trained positions that held no real target, 0 to 1."""
        return 1.0 - self.fill

    @property
    def accuracy(self) -> float:
        """Share of the targets of the last tenth of the steps that were the likeliest token; NaN without steps."""
        last = list(self.accuracies)[-max(1, len(self.accuracies) // 10) :]
        return sum(last) / len(last) if last else float("nan")

    @property
    def margin(self) -> float:
        """Mean of the margins of the last tenth of the steps; NaN without pairs."""
        last = list(self.margins)[-max(1, len(self.margins) // 10) :]
        return sum(last) / len(last) if last else float("nan")

    @property
    def steady_tokens_per_second(self) -> float:
        """Target tokens per second after this call's first execution, which compiles; 0 if it was the only one."""
        steps = self.steps - (self.resumed_from or 0)
        later, left = steps - self.steps_per_execution, self.seconds - self.first_step_seconds
        return self.tokens * later / steps / left if later > 0 and left > 0 else 0.0

    @property
    def flops_per_second(self) -> float:
        """The model's floating-point operations per second on real tokens, after the first step."""
        return self.steady_tokens_per_second * self.flops_per_token

    @property
    def flops_share(self) -> float:
        """Speed of the run as a share of a plain matrix product's, 0 to about 1."""
        return self.flops_per_second / self.matrix_product_flops if self.matrix_product_flops else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return every figure as JSON can hold it."""
        return asdict(self) | {
            "loss": self.loss if self.losses else None,
            "bits_per_character_before": self.bits_per_character_before,
            "bits_per_character": self.bits_per_character,
            "tokens_per_second": self.tokens_per_second,
            "characters_per_second": self.characters_per_second,
            "padding": self.padding,
            "accuracy": self.accuracy if self.accuracies else None,
            "margin": self.margin if self.margins else None,
            "steady_tokens_per_second": self.steady_tokens_per_second,
            "flops_per_second": self.flops_per_second,
            "flops_share": self.flops_share,
        }

    def to_html(
        self,
        path: str | os.PathLike[str],
        *,
        evaluation: Evaluation | None = None,
        scores: Sequence[TextScore] = (),
        artefacts: Sequence[Artefact] = (),
        language: Literal["en", "zh"] | None = None,
        title: str | None = None,
    ) -> Path:
        """Write the run as one page that a browser shows without a network, and return its path.

        What is not there is not shown. The page holds at most about 400 KB, however long the run: curves are thinned
        to some hundred points, and of samples and texts the first characters are shown.

        Args:
            path: of the file, which is replaced; its name ends in `.html` or `.htm`.
            evaluation: the result of `Pipeline.evaluate`, to be shown with the texts that it wrote.
            scores: results of `Pipeline.score`, whose texts are coloured by how much they surprise the model.
            artefacts: results of `Pipeline.export`, whose proofs are shown.
            language: of the page's own words, `"en"` or `"zh"`; None for that of the variable `KERASGEN_LANGUAGE`, or
                English.
            title: of the page; None for the model's and the corpus's names.

        Raises:
            ArgumentError: an argument is wrong.
            KerasgenError: the file can't be written.
        """
        # The pages stand above this contract, so they are found by name.
        page = import_module("kerasgen.reports.page")
        written: Path = page.write(
            path,
            report=self,
            evaluation=evaluation,
            scores=scores,
            artefacts=artefacts,
            language=language,
            title=title,
        )
        return written

    def plot(self) -> Any:
        """Return the run's curves as a `matplotlib.figure.Figure`, which a notebook shows.

        Raises:
            MissingDependencyError: matplotlib, the extra `plot`, is not installed.
        """
        return import_module("kerasgen.evaluation.plotting").figure(self)

    def _repr_html_(self) -> str:
        html: str = import_module("kerasgen.reports.notebook").of_run(self)
        return html

    def __repr__(self) -> str:
        bits = "" if self.bits_per_character is None else f", {self.bits_per_character:.3f} held-out bits per character"
        of = f" of {' '.join(self.model.split()):.80}" if self.model else ""
        return f"TuneReport({self.steps} steps{of}, loss {self.loss:.3f}{bits}, {self.stopped})"

    def __str__(self) -> str:
        of_each = "a pair" if self.margins else "nats a token"
        lines = [
            f"{self.steps} steps, {_passes(self)} {self.documents:,} documents ({self.stopped})",
            f"loss {self.loss:.3f} {of_each}; {self.trainable_parameters:,} of {self.parameters:,} weights tuned",
            f"{self.tokens_per_second:,.0f} tokens/s, {self.characters_per_second:,.0f} characters/s in "
            f"{self.seconds:.1f} s on {self.backend} ({self.precision}), {self.fill:.0%} of the positions used",
        ]
        if self.model:
            lines.insert(1, f"model: {self.model}")
        if self.flops_share:
            lines.append(
                f"{self.steady_tokens_per_second:,.0f} tokens/s after the first {self.first_step_seconds:.1f} s, "
                f"{self.flops_per_second / 1e9:,.0f} GFLOP/s, {self.flops_share:.0%} of a matrix product's; "
                f"{self.peak_memory_bytes / 2**30:.1f} GiB at most"
            )
        lines += [
            f"{name}: {getattr(self, name)}, for {reason}"
            for name, reason in self.reasons.items()
            if hasattr(self, name)
        ]
        if self.validations:
            last = self.validations[-1]
            error = "" if last.standard_error is None else f" ± {last.standard_error:.3f}"
            of = f", on {last.documents:,} of {self.held_out_documents:,} documents" if last.documents else ""
            lines.append(
                f"held-out bits per character {self.bits_per_character_before:.3f} before, "
                f"{self.bits_per_character:.3f}{error} after{of}, in rows of {self.sequence_length} tokens"
            )
        lines += _pair_lines(self)
        if self.split_documents:
            lines.append(f"{self.split_documents:,} documents were split over rows; nothing was cut off")
        if self.read_tokens:
            learned = self.tokens - self.read_tokens
            lines.append(f"{learned:,} tokens were learned, and {self.read_tokens:,} only read, such as prompts")
        if self.shortened_documents:
            lines.append(
                f"{self.shortened_documents:,} documents were longer than a row: their first turns, the beginning of a "
                "prompt, or of an answer that is longer by itself, were left out"
            )
        lines += _vocabulary_lines(self.vocabulary, of_whole_texts=bool(self.read_tokens))
        lines += [f"warning: {warning}" for warning in self.warnings]
        dropped = self.corpus.get("dropped")
        near = self.corpus.get("near_duplicates")
        if near:
            lines.append(f"{near:,} texts have near-duplicates, which are on the same side of the split")
        if dropped:
            lines.append("dropped: " + ", ".join(f"{count:,} {reason}" for reason, count in dropped.items()))
        return "\n".join(lines)


def _passes(report: TuneReport) -> str:
    return f"{report.epochs:.2f} epochs over" if report.epochs or not report.steps else "within the first pass, on"


def _pair_lines(report: TuneReport) -> list[str]:
    if not report.margins:
        return []
    lines = [f"pairs of the last steps: margin {report.margin:.3f}, {report.accuracy:.0%} the right way round"]
    if report.validations and report.validations[-1].margin is not None:
        first, last = report.validations[0], report.validations[-1]
        lines.append(
            f"held-out pairs: the better answer is the likelier one in {first.pair_accuracy:.0%} before, "
            f"{last.pair_accuracy:.0%} after, and has gained on the other in {last.reward_accuracy:.0%}; margin "
            f"{last.margin:.3f}, loss {first.loss:.3f} before, {last.loss:.3f} after"
        )
        lines.append(f"divergence of the reference from the model: {last.divergence:.4f} nats a token (an estimate)")
    return lines


def _vocabulary_lines(record: Mapping[str, Any], *, of_whole_texts: bool) -> list[str]:
    if not record:
        return []
    lines = [f"vocabulary: {record['choice']} ({record['reason']})"]
    if record["choice"] != "keep":
        before, after = record["before"], record["after"]
        bits = before.get("bits_per_character")
        lines.append(
            f"{before['tokens_per_character']:.2f} tokens a character before, {after['tokens_per_character']:.2f} "
            f"after; {before['vocabulary_size']:,} ids and {before['parameters']:,} weights before, "
            f"{after['vocabulary_size']:,} and {after['parameters']:,} after"
            + (f"; {bits:.3f} held-out bits per character with the old vocabulary" if bits is not None else "")
            + (", prompts with them" if bits is not None and of_whole_texts else "")
        )
    return lines


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
