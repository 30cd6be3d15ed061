"""A corpus, a sampler, a tuner and an exporter for kerasgen, from outside of it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from kerasgen.corpora.base import CorpusSource, CorpusTally, Document
from kerasgen.errors import CorpusArgumentError, CorpusUnavailableError, ExportArgumentError, ExportError
from kerasgen.exporters.base import Artefact, Exporter
from kerasgen.models.base import LanguageModel
from kerasgen.samplers import arithmetic
from kerasgen.samplers.base import TokenSampler, is_number, require
from kerasgen.tuners.base import TuneReport
from kerasgen.tuners.settings import GradientTuner


@dataclass(frozen=True)
class Fortunes(CorpusSource):
    """The entries of a fortune file, which stand between lines of one percent sign."""

    path: str | os.PathLike[str]

    def __post_init__(self) -> None:
        if not self.path or not isinstance(self.path, str | os.PathLike):
            raise CorpusArgumentError(f"fortunes: path must be a file. Received: {self.path!r}.")
        object.__setattr__(self, "path", os.fspath(self.path))

    def documents(self, tally: CorpusTally | None = None) -> Iterator[Document]:
        """Yield the entries in their order; empty ones are counted as dropped."""
        tally = CorpusTally() if tally is None else tally
        for number, text in enumerate(self._entries(), start=1):
            if text:
                yield tally.keep(Document(text=text, id=f"{Path(self.path).name}:{number}"))
            else:
                tally.drop("empty")

    def _entries(self) -> Iterator[str]:
        entry: list[str] = []
        try:
            with Path(self.path).open(encoding="utf-8") as file:
                for line in chain(file, ["%"]):
                    if line.strip() != "%":
                        entry.append(line)
                        continue
                    yield "".join(entry).strip()
                    entry.clear()
        except OSError as cause:
            raise CorpusUnavailableError(f"The fortunes can't be read: {cause}", path=self.path) from cause


@dataclass(frozen=True)
class TopA(TokenSampler):
    """A draw among tokens whose probability is at least `a` times the square of the highest one."""

    a: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        require(is_number(self.a) and 0 <= self.a <= 1, "`a` must be from 0 to 1", f"a={self.a!r}")

    def choose(self, xp: Any, logits: Any, uniforms: Any) -> Any:
        """Return one id for each row; `xp` is numpy, or keras.ops inside a compiled graph."""
        probabilities = arithmetic.softmax(xp, logits)
        highest = xp.max(probabilities, axis=-1, keepdims=True)
        kept = arithmetic.exclude(xp, logits, probabilities < self.a * highest * highest)
        return arithmetic.draw(xp, kept, uniforms)


@dataclass(frozen=True, kw_only=True)
class BiasTuner(GradientTuner):
    """Tune the biases alone (Ben Zaken et al. 2021, "BitFit"). The settings are those of `full`."""

    def tune(self, model: LanguageModel, train: Any, held_out: Any = None, **arguments: Any) -> TuneReport:
        """Tune in place; see `FineTuner.tune`."""
        from kerasgen.tuners import training

        def freeze() -> None:
            for weight in model.causal_lm.weights:
                weight.trainable = weight.path.endswith("bias")

        arguments = {"resume": False, "callbacks": (), "sample": None, "verbose": 1} | arguments
        return training.run(model, train, held_out, settings=self, prepare=freeze, **arguments)


@dataclass(frozen=True)
class NpzExporter(Exporter):
    """Write the weights as one NumPy archive, in their order."""

    def export(self, model: LanguageModel, path: Path, *, overwrite: bool = False) -> Artefact:
        """Write, read again, compare, and put in place."""
        import numpy as np

        if path.exists() and not overwrite:
            raise ExportArgumentError(f"{path} is there already. Choose another path, or pass overwrite=True.")
        weights = [np.asarray(weight) for weight in model.backbone.weights]
        partial = path.with_name(f".{path.name}.partial")
        try:
            with partial.open("wb") as file:
                np.savez(file, *weights)
            with np.load(partial) as written:
                if not all(np.array_equal(written[f"arr_{n}"], weight) for n, weight in enumerate(weights)):
                    raise ExportError("What was written is not what the model holds.")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return Artefact(path=path, exporter="npz", report={"files": {path.name: path.stat().st_size}})
