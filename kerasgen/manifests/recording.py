"""Makes the manifest of a run that has ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from kerasgen import machine as machines
from kerasgen.errors import RecipeError
from kerasgen.manifests import machine
from kerasgen.manifests.contents import RunManifest
from kerasgen.recipes import writing

if TYPE_CHECKING:
    from kerasgen.tokens.corpus_scan import Surveyed
    from kerasgen.tokens.store import StoredCorpus
    from kerasgen.tuners.report import TuneReport

LARGEST_RECIPE: Final = 1 << 20
"""Characters of a recipe that a manifest holds at most; texts that were given in Python may be more."""


def recorded(
    settings: Mapping[str, Any],
    report: TuneReport,
    surveyed: Surveyed,
    stored: StoredCorpus,
    *,
    weights_digest: str,
    tokenizer_digest: str,
    packages: Iterable[str],
    changed_before: str,
) -> RunManifest:
    """Return the manifest of a run.

    Args:
        settings: the pipeline's arguments.
        report: the run's.
        surveyed: what reading the corpus found.
        stored: the token ids that it was trained and validated on.
        weights_digest: the SHA-256 of the model's weights when the run began.
        tokenizer_digest: that of the tokenizer's data.
        packages: distributions of the plugins that took part.
        changed_before: how the model had been changed before the run, in words; empty if it had not.
    """
    recipe, why = _recipe(settings, changed_before)
    return RunManifest(
        recipe=recipe,
        unrepeatable=why,
        corpus={
            "digest": surveyed.digest,
            "training_digest": surveyed.training_digest,
            "token_ids": stored.train.digest(),
            "held_out_token_ids": stored.held_out.digest(),
            **report.corpus,
        },
        model={"address": report.model, "weights": weights_digest, "tokenizer": tokenizer_digest},
        versions=machine.versions(report.backend, packages),
        machine=machine.machine(),
        environment=machine.environment(),
        backend={
            "name": report.backend,
            "precision": report.precision,
            "device": ", ".join(machines.described(report.backend)["devices"]),
        },
        report=report.to_dict(),
    )


def _recipe(settings: Mapping[str, Any], changed_before: str) -> tuple[dict[str, Any] | None, str]:
    try:
        tables = writing.tables(settings)
    except RecipeError as cause:
        return None, str(cause)
    if len(writing.text_of(tables)) > LARGEST_RECIPE:
        return None, "The texts of the corpus were given in Python, and are too many to be written down."
    return tables, changed_before
