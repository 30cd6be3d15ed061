"""A corpus, a sampler, a tuner and an exporter for kerasgen, from outside of it."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

from kerasgen.corpora.base import CorpusSource, CorpusTally, Document
from kerasgen.errors import CorpusArgumentError, CorpusUnavailableError, ExportArgumentError, ExportError
from kerasgen.exporters.base import Artefact, Exporter
from kerasgen.exporters.staging import BESIDE, staged, write_report
from kerasgen.files.path_arguments import path_argument
from kerasgen.generation.config import GenerationConfig
from kerasgen.models.base import LanguageModel
from kerasgen.runtime import Runtime, metadata
from kerasgen.samplers import arithmetic
from kerasgen.samplers.base import TokenSampler, is_number, require
from kerasgen.tuners.base import TuneJob, TuneReport
from kerasgen.tuners.settings import GradientTuner


@dataclass(frozen=True)
class Fortunes(CorpusSource):
    """The entries of a fortune file, which stand between lines of one percent sign."""

    contract_version: ClassVar[int] = 1

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

    contract_version: ClassVar[int] = 1
    inputs: ClassVar[tuple[str, ...] | None] = ("a",)

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

    contract_version: ClassVar[int] = 1

    def tune_job(self, job: TuneJob) -> TuneReport:
        """Tune in place; see `FineTuner.tune`."""
        from kerasgen.tuners import training

        def freeze() -> None:
            for weight in job.model.causal_lm.weights:
                weight.trainable = weight.path.endswith("bias")

        return training.run(job, self, prepare=freeze)


@dataclass(frozen=True)
class NpzExporter(Exporter):
    """Write a GPT-2's weights as one NumPy archive, in their order; `kerasgen.load_artefact` runs it in Keras."""

    contract_version: ClassVar[int] = 1
    suffixes: ClassVar[tuple[str, ...]] = (".npz",)
    runtime: ClassVar[str | None] = "kerasgen_extras:NpzRuntime"

    def export(self, model: LanguageModel, path: str | os.PathLike[str], *, overwrite: bool = False) -> Artefact:
        """Write into a folder of its own, read again, compare, and move what was written to its place."""
        path = path_argument(path, ExportArgumentError)
        import numpy as np
        from keras_hub.models import GPT2Backbone

        if not isinstance(model.backbone, GPT2Backbone):
            raise ExportArgumentError(f"The exporter 'npz' writes GPT-2. Received: {type(model.backbone).__name__}.")
        weights = [np.asarray(weight) for weight in model.backbone.weights]
        config = {key: value for key, value in model.backbone.get_config().items() if isinstance(value, int | float)}
        tokenizer = metadata.tokenizer_settings(model.tokenizer)
        with staged(path, overwrite=overwrite, exporter="npz", beside=BESIDE) as stage:
            metadata.tokenizer_path(stage).write_text(model.tokenizer.to_tokenizer_json(), encoding="utf-8")
            with stage.open("wb") as file:
                np.savez(file, *weights)
            with np.load(stage) as written:
                if not all(np.array_equal(written[f"arr_{n}"], weight) for n, weight in enumerate(weights)):
                    raise ExportError("What was written is not what the model holds.")
            report = write_report(stage, {"config": config, "tokenizer": tokenizer}, exporter="npz")
        return Artefact(path=path, exporter="npz", report=report)


class NpzRuntime(Runtime):
    """The model of a NumPy archive, which Keras computes.

    Args:
        path: what `NpzExporter` wrote.
        found: the JSON beside it.
    """

    def __init__(self, path: Path, found: dict[str, Any]) -> None:
        import numpy as np
        from keras_hub.models import GPT2Backbone, GPT2CausalLM

        self.tokenizer = metadata.read_tokenizer(path, found["tokenizer"])
        backbone = GPT2Backbone(**found["config"])
        with np.load(path) as written:
            backbone.set_weights([written[f"arr_{n}"] for n in range(len(backbone.weights))])
        self.model = LanguageModel(
            causal_lm=GPT2CausalLM(backbone=backbone, preprocessor=None), tokenizer=self.tokenizer, source=str(path)
        )
        self.max_sequence_length = backbone.max_sequence_length

    def generate_checked(
        self, prompts: Sequence[Sequence[int]], config: GenerationConfig, *, end_token_id: int | None
    ) -> list[list[int]]:
        """Return the ids after each prompt, up to an end token of the tokenizer; see `Runtime`."""
        from kerasgen.generation import generate_ids

        found = generate_ids(self.model, prompts, config, logprobs=False)
        return [list(several[0].token_ids) for several in found]
