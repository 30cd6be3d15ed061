"""`dpo`: the model learns to prefer the better of two answers, without a model of rewards."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from kerasgen.bounds import Bounds, NonNegativeFloat, NonNegativeInt, PositiveFloat
from kerasgen.errors import TuneArgumentError
from kerasgen.tuners.base import TuneJob
from kerasgen.tuners.lora import LoraTuner
from kerasgen.tuners.report import TuneReport

if TYPE_CHECKING:
    from kerasgen.corpora.base import Document
    from kerasgen.tuners.objective import Objective

Smoothing: TypeAlias = Annotated[float, Bounds(minimum=0, below=0.5)]
"""A share of pairs that are taken to be the wrong way round."""
_BETAS = {"sigmoid": 0.1, "ipo": 0.1, "orpo": 0.1, "simpo": 2.0}
_RATES = {"full": 5e-6, "adapters": 5e-5}


@dataclass(frozen=True, kw_only=True)
class DpoTuner(LoraTuner):
    """Tune on pairs of a better and a worse answer, all weights or adapters. The other settings are `LoraTuner`'s.

    The reference is the model as it came, with adapters that it carries. Its log-probabilities are computed once,
    before the first step. Weights of parts only say what is learned: a pair counts as a whole. The vocabulary is kept
    unless `vocabulary` asks for another.

    Args:
        rank: columns of the thin matrices of adapters; 0 tunes every weight.
        loss: `"sigmoid"` is DPO's. `"ipo"` bounds how far the answers are driven apart. `"orpo"` and `"simpo"` need no
            reference: `"orpo"` learns the better answers too, and `"simpo"` compares mean log-probabilities.
        beta: how much a departure from the reference costs; the smaller, the further the model moves. For `"orpo"` the
            weight of the preference beside the better answers' loss. None is 0.1, and 2 for `"simpo"`.
        label_smoothing: the share of pairs that are taken to be the wrong way round, from 0 to below 0.5; of
            `"sigmoid"` and `"simpo"`.
        gamma: by how much `"simpo"` wants the better answer's reward to be higher.
        learning_rate: as in `GradientTuner`; None is 5e-6 for every weight, and 5e-5 for adapters.

    Source: Rafailov et al. 2023, arXiv 2305.18290; Azar et al. 2023, arXiv 2310.12036 (IPO); Hong et al. 2024, arXiv
    2403.07691 (ORPO); Meng et al. 2024, arXiv 2405.14734 (SimPO).
    """

    _learns_pairs: ClassVar[bool] = True

    rank: NonNegativeInt = 0
    loss: Literal["sigmoid", "ipo", "orpo", "simpo"] = "sigmoid"
    beta: PositiveFloat | None = None
    label_smoothing: Smoothing = 0.0
    gamma: NonNegativeFloat = 0.5
    learning_rate: PositiveFloat | Any = None

    def __post_init__(self) -> None:
        self._check_choice("loss", tuple(_BETAS))
        if self.beta is None:
            object.__setattr__(self, "beta", _BETAS[self.loss])
        if self.learning_rate is None:
            object.__setattr__(self, "learning_rate", _RATES["adapters" if self.rank else "full"])
        super().__post_init__()
        if self.label_smoothing and self.loss not in ("sigmoid", "simpo"):
            raise TuneArgumentError(
                f"label_smoothing is for loss='sigmoid' and 'simpo'. Leave it out. Received: loss={self.loss!r}."
            )
        if self.packing == "concatenate":
            raise TuneArgumentError("Pairs are kept whole: packing must be 'auto', 'best_fit' or 'none'.")
        if self.learn != "parts":
            raise TuneArgumentError("A prompt of pairs is only read. Leave out learn='all'.")
        if not self.rank:
            for name in ("rank_stabilized", "use_dora", "quantize", "targets"):
                if getattr(self, name):
                    raise TuneArgumentError(
                        f"{name} is for adapters, and rank=0 tunes every weight. Give a rank too, such as rank=16. "
                        f"Received: {name}={getattr(self, name)!r}."
                    )

    def check_documents(self, documents: Callable[[], Iterable[Document]]) -> None:
        """Raise unless each document has a worse text; see `FineTuner.check_documents`.

        Raises:
            TuneArgumentError: some have none; names them.
        """
        unpaired = (document.id for document in documents() if not document.rejected)
        first = list(islice(unpaired, 5))
        if first:
            more = sum(1 for _ in unpaired)
            raise TuneArgumentError(
                f"The dpo tuner learns from pairs, and {len(first) + more:,} documents have no rejected answer: "
                f"{', '.join(map(repr, first))}{f' and {more:,} more' if more else ''}. Make pairs with chosen= and "
                "rejected= of a jsonl or csv corpus, or with Document.of(…, rejected=…), or use the lora or full tuner."
            )

    def objective(self) -> Objective:
        """Return what the run minimizes."""
        from kerasgen.tuners.preference_losses import PreferenceLoss
        from kerasgen.tuners.preferences import Preferences

        assert self.beta is not None
        return Preferences(self, PreferenceLoss(self.loss, self.beta, self.label_smoothing, self.gamma))

    def tune_job(self, job: TuneJob) -> TuneReport:
        """Tune every weight, or adapters beside them; see `FineTuner.tune`."""
        self.objective().check(job)
        if self.rank:
            return super().tune_job(job)
        from functools import partial

        from kerasgen.tuners import all_weights, training

        return training.run(job, self, prepare=partial(all_weights.unfreeze, job.model))
