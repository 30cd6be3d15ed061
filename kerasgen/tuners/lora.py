"""`lora`: the weights stay, and a product of two thin matrices is learned beside some of them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from kerasgen.bounds import PositiveFloat, PositiveInt
from kerasgen.errors import TuneArgumentError
from kerasgen.tuners.base import TuneJob
from kerasgen.tuners.report import TuneReport
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
        use_dora: learn each output's magnitude beside its direction (DoRA), in the paper's form.
        quantize: hold the frozen weights in `"int8"`, a scale for each output, or in `"int4"`, one for each 32 of an
            output's inputs (QLoRA); tables of embeddings are held in int8, a scale for each row. Merged, a weight is
            the float that its code stands for, and what the adapters add. None leaves the weights as they are held.

    Source: Hu et al. 2021, arXiv 2106.09685; Kalajdzievski 2023, arXiv 2312.03732 (rsLoRA); Liu et al. 2024, arXiv
    2402.09353 (DoRA); Dettmers et al. 2023, arXiv 2305.14314 (QLoRA).
    """

    rank: PositiveInt = 8
    alpha: PositiveFloat = 16.0
    targets: tuple[str, ...] | None = None
    form: Literal["paper", "keras"] = "paper"
    rank_stabilized: bool = False
    use_dora: bool = False
    quantize: Literal["int8", "int4"] | None = None
    learning_rate: PositiveFloat | Any = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form not in ("paper", "keras"):
            raise TuneArgumentError(f"form must be 'paper' or 'keras'. Received: {self.form!r}.")
        for name in ("rank_stabilized", "use_dora"):
            if not isinstance(getattr(self, name), bool):
                raise TuneArgumentError(f"{name} must be True or False. Received: {getattr(self, name)!r}.")
        self._check_choice("quantize", (None, "int8", "int4"))
        for name in ("rank_stabilized", "use_dora", "quantize"):
            if getattr(self, name) and self.form != "paper":
                raise TuneArgumentError(f"{name} is for the paper's form. Leave out form='keras'.")
        if self.quantize and self.distribution is not None:
            raise TuneArgumentError(
                f"quantize={self.quantize!r} is for one device. Leave it out, or distribution={self.distribution!r}."
            )
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
        cache: str | os.PathLike[str] | None = None,
    ) -> Mapping[str, Any]:
        """Change the model's vocabulary as `vocabulary` says; by default, not at all.

        New rows of the embeddings would have to be saved beside the adapters, which then fit no other model.
        """
        tuner = self if self.vocabulary is not None else dataclasses.replace(self, vocabulary="keep")
        return super(LoraTuner, tuner).adapt_vocabulary(model, texts, held_out, cache=cache)

    def load_base(self, load: Callable[[], LanguageModel]) -> LanguageModel:
        """Return the model, its weights held as `quantize` says; see `FineTuner.load_base`.

        Where new rows of the embeddings may be tuned, the vocabulary is changed first, over floats.
        """
        if self.quantize is None or self.vocabulary not in (None, "keep"):
            return super().load_base(load)
        from kerasgen.models import quantized_base

        with quantized_base.loading(self.quantize):
            model = load()
        from kerasgen.tuners import adapters

        adapters.hold(model, self.quantize)
        return model

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
            use_dora=self.use_dora,
            quantize=self.quantize,
        )
        adapters.check(job.model, config)
        adapters.check_base(job.model, self.quantize)
        first_added = added_rows(job.model, self.vocabulary or "keep")

        def prepare() -> None:
            adapters.enable(job.model, config, seed=job.seed, trains_tokens=first_added is not None)
            if first_added is not None:
                adapters.train_token_table(job.model)

        report = training.run(job, self, prepare=prepare, first_row=first_added or 0)
        held = adapters.held(job.model)
        if not held:
            return report
        scheme = adapters.current(job.model)
        assert scheme is not None
        return dataclasses.replace(report, base=str(scheme.quantize), reasons={**report.reasons, **held})
