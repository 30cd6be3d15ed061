"""What a run of a tuner did: its figures, validations and samples."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from kerasgen.errors import TuneArgumentError
from kerasgen.tuners.report_lines import lines_of

if TYPE_CHECKING:
    from kerasgen.evaluation.base import Evaluation, TextScore
    from kerasgen.exporters.base import Artefact


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
        return "\n".join(lines_of(self))
