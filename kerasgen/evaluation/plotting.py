"""Draws a tuning run: its losses, its held-out figures, and the figures of its text samples."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kerasgen.errors import ArgumentError, KerasgenError, MissingDependencyError
from kerasgen.evaluation import diversity, overlap
from kerasgen.files import staging
from kerasgen.files.path_arguments import path_argument
from kerasgen.tuners.report import TuneReport

_SMOOTHED = 50


def require_matplotlib() -> None:
    """Raise unless a picture can be drawn.

    Raises:
        MissingDependencyError: the package matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as cause:
        raise MissingDependencyError(
            "A plot needs the package matplotlib. Run: pip install 'kerasgen[plot]'.",
            package="matplotlib",
            extra="plot",
        ) from cause


def plot_training(report: TuneReport, path: str | os.PathLike[str], *, training: Iterable[str] | None = None) -> Path:
    """Draw a run into a PNG file and return its path.

    The first part shows the bits per character of each step and of the held-out documents, on one axis, so that a gap
    between them can be seen; the second how varied each text
    sample is, by distinct-1, -2 and -3; the third, with the training text at hand, how long a passage of it was copied.

    Args:
        report: the report of a run; its samples are there if the tuner's `sample_every` is set.
        path: the path of the file, which is replaced.
        training: the documents that the model was tuned on, read once; or None to leave the third part out.

    Raises:
        ArgumentError: the file's name does not end in `.png`.
        KerasgenError: it can't be written.
        MissingDependencyError: matplotlib is not installed.
    """
    target = path_argument(path)
    if target.suffix.lower() != ".png":
        raise ArgumentError(f"The plot is a PNG file, so its name must end in .png. Received: {str(path)!r}.")
    drawn_figure = figure(report, training=training)
    drawn = io.BytesIO()
    drawn_figure.savefig(drawn, dpi=120, format="png")
    try:
        staging.replace(target, drawn.getvalue())
    except OSError as cause:
        raise KerasgenError(f"The plot can't be written to {target}: {cause}. Choose another path.") from cause
    return target


def figure(report: TuneReport, *, training: Iterable[str] | None = None) -> Any:
    """Return a run's curves as a `matplotlib.figure.Figure`.

    Args:
        report: as for `plot_training`.
        training: as for `plot_training`.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = [sample.step for sample in report.samples]
    texts = [sample.text for sample in report.samples]
    copies = overlap.longest_copies(texts, training) if texts and training is not None else []
    parts = 1 + bool(texts) + bool(copies)
    # No window and no global state: the figure is made without pyplot.

    class ShownFigure(Figure):
        def _repr_png_(self) -> bytes:  # a notebook knows only figures of pyplot by itself
            content = io.BytesIO()
            self.savefig(content, dpi=120, format="png")
            return content.getvalue()

    drawn = ShownFigure(figsize=(7, 2.6 * parts), layout="constrained")
    FigureCanvasAgg(drawn)
    axes = list(drawn.subplots(parts, 1, sharex=True, squeeze=False)[:, 0])
    _draw_losses(axes[0], report)
    if texts:
        for n, line in ((1, ":"), (2, "-"), (3, "--")):
            axes[1].plot(
                steps, [diversity.distinct([text], n) for text in texts], line, marker=".", label=f"distinct-{n}"
            )
        axes[1].set(ylabel="of each sample", ylim=(0, 1.05))
        axes[1].legend(loc="lower right")
    if copies:
        axes[2].plot(steps, [copy.characters for copy in copies], marker=".")
        axes[2].set(ylabel="longest copy (characters)", ylim=(0, None))
    axes[-1].set_xlabel("optimizer steps")
    return drawn


def _draw_losses(axis: Any, report: TuneReport) -> None:
    # The loss of pairs is no nats of text: the bits per character are those of the better answers then.
    training = list(report.losses) if report.margins else bits_per_character(report)
    steps = range(1, len(training) + 1)
    axis.plot(steps, training, linewidth=0.6, alpha=0.4, color="C0", label="training, each step")
    smoothed = smoothed_means(training)
    if smoothed:
        axis.plot(steps, smoothed, linewidth=1.4, color="C0", label="training")
    if report.validations:
        of_each = "loss" if report.margins else "bits_per_character"
        held_steps = [validation.step for validation in report.validations]
        held_out = [getattr(validation, of_each) for validation in report.validations]
        axis.plot(held_steps, held_out, color="C1", marker="o", label="held out")
        errors = [validation.standard_error or 0.0 for validation in report.validations]
        if any(errors) and not report.margins:
            low, high = (
                [value + sign * error for value, error in zip(held_out, errors, strict=True)] for sign in (-1, 1)
            )
            axis.fill_between(held_steps, low, high, color="C1", alpha=0.2, linewidth=0)
    axis.set_ylabel("loss of a pair" if report.margins else "bits per character")
    axis.legend(loc="upper right")


def bits_per_character(report: TuneReport) -> list[float]:
    """Return the loss of each step in the unit of the held-out figures.

    Nats a token become bits per character by the learned tokens and the characters that the run was trained on, so the
    figure is exact for all steps together, and for one nearly so.
    """
    learned = report.tokens - report.read_tokens
    tokens_per_character = learned / report.characters if report.characters else 1.0
    return [loss / math.log(2.0) * tokens_per_character for loss in report.losses]


def smoothed_means(figures: Sequence[float]) -> list[float]:
    """Return moving means over a fiftieth of the figures; empty where that is a single figure."""
    width = len(figures) // _SMOOTHED
    if width < 2:
        return []
    return [
        sum(figures[max(0, n + 1 - width) : n + 1]) / len(figures[max(0, n + 1 - width) : n + 1])
        for n in range(len(figures))
    ]
