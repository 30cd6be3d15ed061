"""A run's losses become a picture."""

from __future__ import annotations

import importlib
import io
from collections.abc import Sequence
from pathlib import Path

from kerasgen.errors import MissingDependencyError
from kerasgen.tuners import checkpoints
from kerasgen.tuners.base import Validation

FILE = "loss.png"


def require() -> None:
    """Say at once if pictures can't be drawn.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        importlib.import_module("matplotlib")
    except ImportError as cause:
        raise MissingDependencyError(
            "loss_curve=True needs the package matplotlib. Install kerasgen[plot], or ask for csv=True instead.",
            package="matplotlib",
            extra="plot",
        ) from cause


def draw(path: Path, losses: Sequence[float], validations: Sequence[Validation]) -> None:
    """Draw the loss of each step and of each validation, in nats a token, into a PNG, whole or not at all.

    Raises:
        CheckpointError: it can't be written.
        MissingDependencyError: matplotlib is not installed.
    """
    require()
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # draws without a display
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.0), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(range(1, len(losses) + 1), losses, linewidth=0.8, label="training")
    if validations:
        axes.plot(
            [found.step for found in validations], [found.loss for found in validations], marker="o", label="held out"
        )
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("nats per token")
    axes.legend()
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    checkpoints.write_bytes(path, drawn.getvalue())
