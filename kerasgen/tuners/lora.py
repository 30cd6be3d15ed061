"""`lora`: the weights stay, and a product of two thin matrices is learned beside some of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kerasgen.errors import TuneArgumentError
from kerasgen.tuners.base import TuneJob, TuneReport
from kerasgen.tuners.settings import GradientTuner

if TYPE_CHECKING:
    from kerasgen.models.base import LanguageModel


@dataclass(frozen=True, kw_only=True)
class LoraTuner(GradientTuner):
    """Tune low-rank adapters beside the frozen weights. The other settings are `GradientTuner`'s.

    Args:
        rank: columns of the thin matrices.
        alpha: the product is scaled by `alpha / rank`.
        targets: which layers get an adapter, by their roles in a block (`query`, `key`, `value`, `output`, `gate`,
            `up`, `down`, or of several `attention`, `mlp` and `all`) where kerasgen knows the architecture, or by
            Keras's names of them. None is queries and values, and of another architecture what KerasHub names for it.
        form: `"paper"` learns one pair of thin matrices for a projection, as peft does; `"keras"` is that of Keras's
            `EinsumDense`: each head has a first matrix of its own, and all share the second, as in 0.1.0.
        rank_stabilized: scale the product by `alpha / rank ** 0.5` (rsLoRA), in the paper's form.

    Source: Hu et al. 2021, arXiv 2106.09685; Kalajdzievski 2023, arXiv 2312.03732 (rsLoRA).
    """

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] | None = None
    form: Literal["paper", "keras"] = "paper"
    rank_stabilized: bool = False
    learning_rate: float | Any = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_whole("rank", least=1)
        self._check_number("alpha", above=0.0)
        if self.form not in ("paper", "keras"):
            raise TuneArgumentError(f"form must be 'paper' or 'keras'. Received: {self.form!r}.")
        if not isinstance(self.rank_stabilized, bool):
            raise TuneArgumentError(f"rank_stabilized must be True or False. Received: {self.rank_stabilized!r}.")
        if self.rank_stabilized and self.form != "paper":
            raise TuneArgumentError("rank_stabilized is for the paper's form. Leave out form='keras'.")
        if self.targets is not None:
            targets = (self.targets,) if isinstance(self.targets, str) else tuple(self.targets)
            if not targets or not all(isinstance(name, str) and name for name in targets):
                raise TuneArgumentError(f"targets must be names of layers, or None. Received: {self.targets!r}.")
            object.__setattr__(self, "targets", targets)

    def adapt_vocabulary(
        self,
        model: LanguageModel,
        texts: Callable[[], Iterable[str]],
        held_out: Callable[[], Iterable[str]] | None = None,
        *,
        cache: Path | None = None,
    ) -> Mapping[str, Any]:
        """Change the model's vocabulary as `vocabulary` says; by default, not at all.

        New rows of the embeddings would have to be saved beside the adapters, which then fit no other model.
        """
        tuner = self if self.vocabulary is not None else dataclasses.replace(self, vocabulary="keep")
        return super(LoraTuner, tuner).adapt_vocabulary(model, texts, held_out, cache=cache)

    def tune_job(self, job: TuneJob) -> TuneReport:
        """Tune adapters beside the weights; see `FineTuner.tune`.

        Rows of the embedding table that `vocabulary` added are tuned too, and the others stay as they are.

        Adapters of the same rank, alpha and targets that the model carries already, in either form, are tuned further;
        others are merged first.
        """
        from kerasgen.tuners import adapters, training
        from kerasgen.tuners.vocabulary import added_rows

        config = adapters.AdapterConfig(
            rank=self.rank,
            alpha=float(self.alpha),
            targets=self.targets,
            form=self.form,
            rank_stabilized=self.rank_stabilized,
        )
        adapters.check(job.model, config)
        first_added = added_rows(job.model, self.vocabulary or "keep")

        def prepare() -> None:
            adapters.enable(job.model, config, seed=job.seed)
            if first_added is not None:
                adapters.train_token_table(job.model)

        return training.run(job, self, prepare=prepare, first_row=first_added or 0)
