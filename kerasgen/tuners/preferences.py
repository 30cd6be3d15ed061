"""The objective of preference tuning: pairs of answers, compared under the model and its untuned reference.

The reference's log-probabilities are computed once, before the first step, so that no second model lies in memory. They
are kept beside the token ids for later runs, and in the run's directory for its own resume. Imports Keras: import it
late.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from kerasgen.errors import CheckpointError, TuneArgumentError
from kerasgen.models.base import LanguageModel
from kerasgen.models.scoring import Scores
from kerasgen.tokens.encoding import EncodedDocuments
from kerasgen.tokens.pairs import PairRows, pack_pairs
from kerasgen.tokens.store import StoredDocuments
from kerasgen.tuners import adapters, checkpoints, held_out, sharding
from kerasgen.tuners.base import TuneJob
from kerasgen.tuners.checkpoints import Checkpoint
from kerasgen.tuners.objective import Objective, schedule_of
from kerasgen.tuners.pair_plan import PairPlan
from kerasgen.tuners.pair_trainer import PairTrainer, read_pairs
from kerasgen.tuners.plan import Plan
from kerasgen.tuners.preference_losses import WITHOUT_REFERENCE, PreferenceLoss
from kerasgen.tuners.report import Validation
from kerasgen.tuners.settings import GradientTuner
from kerasgen.tuners.trainer import Trainer

REFERENCE_FILE: Final = "reference.safetensors"
FORMAT: Final = 1

_log = logging.getLogger(__name__)


class Preferences(Objective):
    """A loss over pairs.

    Args:
        settings: the tuner.
        loss: the loss.
    """

    texts = 2

    def __init__(self, settings: GradientTuner, loss: PreferenceLoss) -> None:
        super().__init__(settings)
        self.loss = loss
        self.trainer = partial(PairTrainer, loss=loss)
        self._reference: dict[str, NDArray[Any]] = {}
        self._held_out: tuple[EncodedDocuments, PairRows] | None = None

    def check(self, job: TuneJob) -> None:
        """Raise unless every document has two answers that are learned.

        Raises:
            TuneArgumentError: one has none; says which, by its place. Or there are no training documents.
        """
        if not len(job.train):
            raise TuneArgumentError("There is nothing to train on: there are no training documents.")
        for side, documents in (("training", job.train), ("held-out", job.held_out)):
            if documents is None or not len(documents):
                continue
            learned = documents.targets_by_document > 0
            if documents.rejected is None:
                learned[:] = False
            else:
                learned &= documents.rejected.targets_by_document > 0
            missing = np.flatnonzero(~learned)
            if len(missing):
                raise TuneArgumentError(
                    f"The tuner needs a chosen and a rejected answer of each document. {len(missing):,} of the "
                    f"{len(documents):,} {side} documents have none: {_listed(missing.tolist())} (counted from 0). "
                    "Make pairs with chosen= and rejected= of a jsonl or csv corpus, or with "
                    "Document.of(…, rejected=…)."
                )

    def targets(self, train: EncodedDocuments) -> NDArray[np.int64]:
        """Return how many targets the longer text of each pair has."""
        assert train.rejected is not None
        return np.maximum(super().targets(train), super().targets(train.rejected))

    def plan(self, job: TuneJob, settings: GradientTuner, share: sharding.Share) -> PairPlan:
        """Return the assignment of the pairs to rows, batches and steps."""
        pairs = _packed(job.train, settings)
        return PairPlan(
            encoded=job.train,
            rows=pairs.chosen,
            pairs=pairs,
            reference=np.zeros((len(job.train), 2)),
            **schedule_of(job, settings, share),
        )

    def begin(
        self,
        trainer: Trainer,
        plan: Plan,
        job: TuneJob,
        settings: GradientTuner,
        saved: Checkpoint | None,
        share: sharding.Share,
    ) -> Mapping[str, Any]:
        """Get the reference's log-probabilities: those of the run, or kept ones, or else by the model as it is now."""
        assert isinstance(trainer, PairTrainer)
        assert isinstance(plan, PairPlan)
        if job.held_out is not None and job.has_held_out:
            documents = held_out.sampled_pairs(job.held_out, settings.validation_tokens)
            self._held_out = documents, _packed(documents, settings)
        path = job.directory / REFERENCE_FILE
        found = _read(path) if saved is not None else None
        if found is None:
            key = self._key(job, settings)
            directory = job.train.directory if isinstance(job.train, StoredDocuments) else None
            kept = None if directory is None else directory / f"reference-{key}.safetensors"
            found = None if kept is None else _read(kept)
            if found is None:
                found = self._computed(trainer, plan, settings)
                if kept is not None and share.writes:
                    with suppress(CheckpointError):  # a later run computes them again
                        checkpoints.write_tensors(kept, found)
            if share.writes:
                checkpoints.write_tensors(path, found)
        self._reference = found
        plan.reference[:] = found["train"]
        sharding.together(share, "the reference is there")
        return {"reference": _digest(found)}

    def _computed(self, trainer: PairTrainer, plan: PairPlan, settings: GradientTuner) -> dict[str, NDArray[Any]]:
        assert settings.batch_size is not None
        assert plan.pairs is not None
        found: dict[str, NDArray[Any]] = {"train": plan.reference}
        if self.loss.kind not in WITHOUT_REFERENCE:
            of_pairs, _ = read_pairs(trainer, plan.encoded, plan.pairs, batch_size=settings.batch_size)
            found["train"] = of_pairs["log_probabilities"]
        if self._held_out is not None:
            documents, pairs = self._held_out
            shape = (len(pairs), 2, pairs.chosen.sequence_length)
            uniform = np.random.default_rng(0).random(shape, np.float32)
            of_pairs, of_rows = read_pairs(
                trainer, documents, pairs, batch_size=settings.batch_size, further={"uniform": uniform}
            )
            found |= {"held_out": of_pairs["log_probabilities"], **of_rows}
        if not all(np.isfinite(of).all() for of in found.values()):
            raise TuneArgumentError(
                "The model gives log-probabilities that are NaN or infinite before the first step: its weights hold "
                "such a number, or it overflows. Load it anew, or compute with precision='float32'."
            )
        return found

    def _key(self, job: TuneJob, settings: GradientTuner) -> str:
        """Return a name for what the reference says, which another model, other pairs or other rows would change."""
        held = None if job.held_out is None else job.held_out.digest()
        needed = self.loss.kind not in WITHOUT_REFERENCE
        texts = [job.train.digest(), held, settings.validation_tokens, needed]
        rows = [settings.sequence_length, settings.packing, settings.precision, keras.config.backend()]
        described = json.dumps([FORMAT, digest_of(job.model), *texts, *rows], allow_nan=False)
        return hashlib.sha256(described.encode()).hexdigest()[:32]

    def validate(
        self, trainer: Trainer, plan: Plan, job: TuneJob, settings: GradientTuner
    ) -> Callable[[int], Validation]:
        """Return a function that measures the held-out pairs after so many steps."""
        assert isinstance(trainer, PairTrainer)
        return partial(self._measured, trainer, settings)

    def _measured(self, trainer: PairTrainer, settings: GradientTuner, step: int) -> Validation:
        assert self._held_out is not None
        assert settings.batch_size is not None
        documents, pairs = self._held_out
        worse = documents.rejected
        assert worse is not None
        drawn = {name: self._reference[name] for name in ("drawn", "drawn_nats")}
        found, _ = read_pairs(trainer, documents, pairs, batch_size=settings.batch_size, further=drawn)
        own, tokens = found["log_probabilities"], _learned(documents, pairs)
        cost, rewards = (
            ops.convert_to_numpy(of)
            for of in self.loss(*(_as_rows(of) for of in (own, tokens, self._reference["held_out"])))
        )
        margins = rewards[0, 0] - rewards[0, 1]
        compared = own if self.loss.kind == "sigmoid" else own / tokens
        scores = Scores(nll=-own[:, 0], tokens=tokens[:, 0].astype(np.int64), characters=documents.characters)
        return dataclasses.replace(
            held_out.validation(step, scores),
            loss=float(cost.mean()),
            pair_accuracy=_share_higher(compared[:, 0] - compared[:, 1]),
            reward_accuracy=_share_higher(margins),
            margin=float(margins.mean()),
            divergence=float(found["divergence"].sum() / tokens.sum()),
        )

    def warnings(self, job: TuneJob) -> tuple[str, ...]:
        """Return nothing: every answer is used."""
        return ()


def digest_of(model: LanguageModel) -> str:
    """Return a digest of a model's weights; adapters that add nothing yet are left out."""
    thin = {id(variable): name for name, variable in adapters.thin(model)}
    every = [variable for variable in model.network.weights if not variable.path.endswith("seed_generator_state")]
    arrays = [(id(variable) in thin, np.ascontiguousarray(sharding.gathered(variable))) for variable in every]
    adds = any(
        thin.get(id(variable), "").endswith("lora_kernel_b") and array.any()
        for variable, (_, array) in zip(every, arrays, strict=True)
    )
    digest = hashlib.blake2b()
    for is_thin, array in arrays:
        if adds or not is_thin:
            digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _packed(documents: EncodedDocuments, settings: GradientTuner) -> PairRows:
    assert settings.sequence_length is not None
    packing = settings.packing
    assert packing in ("best_fit", "none")
    return pack_pairs(documents, sequence_length=settings.sequence_length, packing=packing)


def _learned(documents: EncodedDocuments, pairs: PairRows) -> NDArray[np.float64]:
    """Return how many tokens of each answer are learned in its row, float64 `(pairs, 2)`."""
    worse = documents.rejected
    assert worse is not None
    sides = ((documents, pairs.chosen), (worse, pairs.rejected))
    return np.stack(
        [rows.pieces.targets if own.parts is None else rows.pieces.learned(own.parts) for own, rows in sides],
        axis=1,
    ).astype(np.float64)


def _as_rows(of_pairs: NDArray[Any]) -> Any:
    """Return figures `(pairs, 2)` as one row of a batch, float32 `(1, 2, pairs)`."""
    return ops.convert_to_tensor(of_pairs.T[None].astype(np.float32))


def _share_higher(differences: NDArray[Any]) -> float:
    """Return the share of differences above 0, of which an equal one is half."""
    return float(0.5 * (1.0 + np.sign(differences)).mean())


def _digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def _read(path: Path) -> dict[str, NDArray[Any]] | None:
    """Return kept arrays, or None where there are none or they are damaged."""
    if not path.is_file():
        return None
    try:
        return checkpoints.read_tensors(path)
    except CheckpointError as damage:
        _log.warning("The reference's log-probabilities are computed anew: %s", damage)
        return None


def _listed(places: list[int]) -> str:
    more = f" and {len(places) - 5:,} more" if len(places) > 5 else ""
    return ", ".join(map(str, places[:5])) + more
