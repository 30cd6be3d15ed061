"""Divides a streamed corpus into batches, one window after another. Imports Keras: import it late."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kerasgen.errors import TuneArgumentError
from kerasgen.tokens.encoding import EncodedDocuments
from kerasgen.tokens.streaming import EncodedWindow, Position, StreamedDocuments
from kerasgen.tuners.plan import Batches, Plan


@dataclass
class Counts:
    """Sums over the windows of a run.

    Args:
        documents: documents of the first pass.
        split: those of them that were split.
        shortened: those of them that were shortened.
        targets: tokens to be predicted.
        positions: of rows.
        steps_of_first_pass: optimizer steps of a whole pass; 0 while it isn't known.
    """

    documents: int = 0
    split: int = 0
    shortened: int = 0
    targets: int = 0
    positions: int = 0
    steps_of_first_pass: int = 0


@dataclass
class Progress:
    """Progress of a run through the corpus.

    Args:
        windows: those that come.
        plan: of the window that is read.
        number: of windows before it.
        first_step: of the run that is in it.
        begin: where it begins in the corpus.
        before: sums over the windows before it.
        pass_begins_at: the first step of the pass that it is in.
    """

    windows: Iterator[EncodedWindow] | None = None
    plan: Plan | None = None
    number: int = -1
    first_step: int = 0
    begin: Position = field(default_factory=Position)
    before: Counts = field(default_factory=Counts)
    pass_begins_at: int = 0

    @property
    def end(self) -> int:
        """The step after the last one of the window that is read."""
        return self.first_step + (0 if self.plan is None else self.plan.steps_per_epoch)


@dataclass(frozen=True, eq=False)
class StreamPlan(Plan):
    """The assignment of a streamed corpus to batches and steps. A window takes the place of an epoch.

    Each window is packed by itself, its rows are shuffled, and the next one is read when all of them were trained on.
    With a corpus that fits into one window, every number is that of a run over the stored corpus.

    Args:
        plan_of: the plan of a window's documents.
        progress: where the run is.
    """

    plan_of: Callable[[EncodedDocuments], Plan | None] = lambda _: None
    progress: Progress = field(default_factory=Progress)

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        assert self.max_steps is not None
        return self.max_steps

    @property
    def ends_itself(self) -> bool:
        """Whether the run ends with the last of its epochs: it ends with its last step."""
        return False

    @property
    def shown_epochs(self) -> int:
        """Windows are not numbered before a reader, for nobody knows how many there are."""
        return 1

    def epoch_of(self, step: int) -> int:
        """Return the window that a step is in, and read on until it is there."""
        while step >= self.progress.end:
            self._advance()
        return self.progress.number

    def is_epochs_end(self, step: int) -> bool:
        """Return whether a window ends before this step."""
        return step == self.progress.end

    def batches(self, epoch: int, *, first_step: int) -> Batches:
        """Return the batches of the window that is read, from a step of the run to the window's or the run's end."""
        progress = self.progress
        assert progress.plan is not None
        assert epoch == progress.number
        stop = min(progress.end, self.steps)
        return progress.plan.of_steps(epoch, first_step - progress.first_step, stop - progress.first_step)

    def passes(self, step: int) -> float:
        """Return passes over the corpus after so many steps; of the first one, as long as it isn't over, none."""
        progress, whole = self.progress, self._counts().steps_of_first_pass
        if whole:
            return progress.begin.passes + (step - progress.pass_begins_at) / whole
        return 0.0

    @property
    def fill(self) -> float:
        """Share of positions of the windows so far that hold a real target, 0 to 1."""
        counts = self._counts()
        return counts.targets / counts.positions if counts.positions else 0.0

    @property
    def documents(self) -> int:
        """Training documents of the first pass, as far as it went."""
        return self._counts().documents

    @property
    def split_documents(self) -> int:
        """Those of them that stand in several pieces."""
        return self._counts().split

    @property
    def shortened_documents(self) -> int:
        """Those of them of which turns or a beginning were left out."""
        return self._counts().shortened

    def state(self) -> Mapping[str, Any]:
        """Return where the run is, as JSON can hold it."""
        progress = self.progress
        return {
            "stream": {
                "begin": dataclasses.asdict(progress.begin),
                "number": progress.number,
                "first_step": progress.first_step,
                "pass_begins_at": progress.pass_begins_at,
                "before": dataclasses.asdict(progress.before),
            }
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to where a run was: the documents before its window are read, and not encoded.

        Raises:
            CheckpointError: they are no longer what they were.
        """
        there = state["stream"]
        progress = self.progress
        progress.begin = Position(**there["begin"])
        progress.windows = self._documents().windows(progress.begin)
        window = next(progress.windows)
        progress.plan = self.plan_of(window.train)
        progress.number, progress.first_step = there["number"], there["first_step"]
        progress.pass_begins_at = there["pass_begins_at"]
        progress.before = Counts(**there["before"])

    def tally(self) -> dict[str, Any]:
        """Return what the first pass over the corpus kept and dropped, as far as it went; see `CorpusTally.to_dict`."""
        if self.progress.begin.tally is not None:
            return dict(self.progress.begin.tally)
        stream = self._documents().stream
        assert stream is not None
        return stream.tally.to_dict()

    def _documents(self) -> StreamedDocuments:
        assert isinstance(self.encoded, StreamedDocuments)
        return self.encoded

    def _counts(self) -> Counts:
        """Return the sums with the window that is read."""
        progress, before = self.progress, self.progress.before
        plan = progress.plan
        if plan is None:
            return before
        first_pass = not progress.begin.passes
        return Counts(
            documents=before.documents + (len(plan.encoded) if first_pass else 0),
            split=before.split + (plan.rows.split_documents if first_pass else 0),
            shortened=before.shortened + (plan.rows.shortened_documents if first_pass else 0),
            targets=before.targets + int(plan.rows.targets.sum()),
            positions=before.positions + len(plan.rows) * plan.rows.sequence_length,
            steps_of_first_pass=before.steps_of_first_pass,
        )

    def _advance(self) -> None:
        """Take up the next window of which something is learned."""
        progress = self.progress
        if progress.windows is None:
            progress.windows = self._documents().windows()
        counts, end = self._counts(), progress.end
        progress.plan = None  # its ids are dropped before more are encoded
        started = progress.begin.passes
        for window in progress.windows:
            if window.begin.passes > progress.begin.passes:
                counts.steps_of_first_pass = counts.steps_of_first_pass or end
                progress.pass_begins_at = end
            progress.begin = window.begin
            if window.begin.passes > started + 1:
                break
            plan = self.plan_of(window.train)
            if plan is not None and len(plan.rows):
                progress.before, progress.plan = counts, plan
                progress.number += 1
                progress.first_step = end
                return
        raise TuneArgumentError("There is nothing to train on: the streamed corpus gave no token to learn any more.")


def over(train: StreamedDocuments, first: Plan, plan_of: Callable[[EncodedDocuments], Plan | None]) -> StreamPlan:
    """Return the plan of a streamed corpus.

    Args:
        train: the corpus.
        first: the plan of its first window.
        plan_of: the plan of any window's documents, or None where nothing of them is learned.
    """
    fields = {each.name: getattr(first, each.name) for each in dataclasses.fields(Plan)}
    return StreamPlan(**fields | {"encoded": train}, plan_of=plan_of)
