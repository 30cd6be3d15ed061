"""The repeating part of a pipeline: its run as a recipe, as a manifest, and what it would take."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from kerasgen import corpora, models, samplers, tuners
from kerasgen.errors import ArgumentError, RecipeError
from kerasgen.keywords import checked
from kerasgen.manifests import contents as manifests
from kerasgen.publishing.publisher import Publisher
from kerasgen.tuners.report import TuneReport

if TYPE_CHECKING:
    from kerasgen.estimates.estimate import Estimate
    from kerasgen.plugins import Registry
    from kerasgen.tokens.corpus_scan import Survey


class Repeater(Publisher):
    """A publisher whose run can be written down, compared with an earlier one, and estimated.

    Attributes:
        backend: the backend that the run would use, or uses.
        manifest: that of the last run, or None before it.
    """

    backend: str
    manifest: manifests.RunManifest | None
    _asked_backend: str | None

    @checked()
    def to_recipe(self, path: str | os.PathLike[str] | None = None, *, overwrite: bool = False) -> str:
        """Return the pipeline as a recipe, a text in TOML from which `from_recipe` makes an equal pipeline.

        It holds the settings, and no weights: what was tuned is saved by `save`.

        Args:
            path: a file to write it to as well.
            overwrite: replace a file that is there.

        Raises:
            RecipeError: a part has no registered name, or was made in Python alone: a model in memory, a generator of
                texts, a schedule of Keras's.
        """
        from kerasgen.recipes import writing

        if self._is_loaded_with_adapters():
            raise RecipeError(
                "A recipe names a model by its address, and this pipeline was loaded with adapters of its own. Save it "
                "whole with save(…, merge_adapters=True), and name that directory's model."
            )
        text = writing.text_of(writing.tables(self._settings()))
        if path is not None:
            writing.write(path, text, overwrite=overwrite)
        return text

    @classmethod
    @checked()
    def from_recipe(
        cls, recipe: str | os.PathLike[str] | Mapping[str, Any], settings: Mapping[str, Any] | None = None
    ) -> Self:
        """Return the pipeline of a recipe. Every setting is checked, those of later steps too; nothing is loaded.

        Args:
            recipe: the path of a TOML file, its text, or its tables as a dictionary.
            settings: values that replace the recipe's own, by dotted names: `{"tuner.rank": 16}`.

        Raises:
            RecipeError: it can't be read, or settings are wrong. All faults are told at once, with their lines.
        """
        from kerasgen.recipes import assigning, reading

        made = reading.read(recipe, cls, assignments=assigning.named(settings or {})).pipeline
        assert isinstance(made, cls)
        return made

    @classmethod
    @checked()
    def from_manifest(
        cls, manifest: str | os.PathLike[str] | manifests.RunManifest, settings: Mapping[str, Any] | None = None
    ) -> Self:
        """Return the pipeline of a run, to repeat it: `fit` gives the same losses to the bit on the same machine.

        Args:
            manifest: that of the run, the path of its `manifest.json`, or the directory that it lies in.
            settings: values that replace the run's own, by dotted names: `{"tuner.rank": 16}`.

        Raises:
            ArgumentError: the run can't be repeated from its recipe; says why.
            ModelFormatError: the file is no manifest, or a damaged one.
            RecipeError: a plugin of the run is not installed, or has other settings by now.
        """
        run = manifest if isinstance(manifest, manifests.RunManifest) else manifests.RunManifest.read(manifest)
        if run.recipe is None or run.unrepeatable:
            raise ArgumentError(f"This run can't be repeated from its manifest. {run.unrepeatable}")
        return cls.from_recipe(run.recipe, settings)

    @checked()
    def differences(self, manifest: str | os.PathLike[str] | manifests.RunManifest) -> tuple[manifests.Difference, ...]:
        """Return in what this pipeline's run differs from an earlier one; empty where losses are equal to the bit.

        Before `fit`, it compares what is known without a backend: the versions, the machine and the corpus's texts.

        Args:
            manifest: that of the earlier run, the path of its file, or the directory that it lies in.
        """
        run = manifest if isinstance(manifest, manifests.RunManifest) else manifests.RunManifest.read(manifest)
        if self.manifest is not None:
            return run.differences(self.manifest)
        now = self._survey(show=False).found.digest
        of_corpus = manifests.Difference("corpus.digest", run.corpus["digest"], now)
        return (*run.differences_from_here(), *([] if now == run.corpus["digest"] else [of_corpus]))

    @checked()
    def estimate(self) -> Estimate:
        """Return what `fit` will take: memory, time, and about how large each format's file will be.

        Two processes of their own begin the run with few layers of the model, and take some steps. Nothing of this
        pipeline is tuned, and what they read of the corpus is in the cache for the run.

        Raises:
            ArgumentError: there is no corpus, a part of the pipeline has no registered name, or nothing can be
                estimated of the model: its files don't lie here, or it fills masks.
            KerasgenError: a trial failed; the message says why.
        """
        from kerasgen.estimates import estimate

        settings = self._settings() | {"backend": self.backend}
        del settings["generation_config"]
        return estimate.estimate(settings)

    def _is_loaded_with_adapters(self) -> bool:
        """Whether the adapters are a saved pipeline's own; those of a model's address come with the address."""
        return self._saved is not None and self._adapters is not None

    def _settings(self) -> dict[str, Any]:
        """Return the arguments of the constructor, as the pipeline holds them."""
        return {
            "seed": self.seed,
            "held_out": self.held_out,
            "max_documents": self.max_documents,
            "sample": self.sample,
            "backend": self._asked_backend,
            "cache": self.cache,
            "chat_template": self.chat_template,
            "weights": self.weights,
            "streaming": self.streaming,
            "corpus": self.corpus,
            "model": self.model_source,
            "tuner": self.tuner,
            "sampler": self.sampler,
            "generation_config": self.generation_config,
        }

    def _survey(self, *, show: bool) -> Survey:
        """Return a survey that reads the corpus once, for all that its texts decide."""
        from kerasgen.tokens import corpus_scan, store

        corpus = self._corpus()
        division = corpus.division
        digits = hashlib.sha256(json.dumps(division.key, allow_nan=False).encode()).hexdigest()[:16]
        noted = partial(corpus.noted, f"{corpus_scan.VERSION}-survey-{digits}")
        return store.surveying(corpus.documents, held_out=division, show=show, noted=noted)

    def _recorded(
        self, report: TuneReport, survey: Survey, weights_digest: str, changed_before: str
    ) -> manifests.RunManifest:
        from kerasgen.manifests import recording

        named = [(registry, registry.name_of(part)) for registry, part in self._parts().values()]
        return recording.recorded(
            self._settings() | {"backend": self.backend},
            report,
            survey.found,
            self._documents(show=False),
            weights_digest=weights_digest,
            tokenizer_digest=self.tokenizer.digest(),
            packages=[registry.distribution(name) for registry, name in named if name is not None],
            changed_before=changed_before,
        )

    def _spelled_parts(self) -> dict[str, str]:
        """Return how corpus, model, tuner and sampler are written in Python, by name."""
        return {name: spelled(registry, part) for name, (registry, part) in self._parts().items()}

    def _parts(self) -> dict[str, tuple[Registry[Any], Any]]:
        """Return corpus, model, tuner and sampler with the registry of each, by name."""
        return {
            "corpus": (corpora.REGISTRY, self.corpus),
            "model": (models.REGISTRY, self.model_source),
            "tuner": (tuners.REGISTRY, self.tuner),
            "sampler": (samplers.REGISTRY, self.sampler),
        }


def spelled(registry: Registry[Any], value: Any) -> str:
    """Return the quoted spec of a part of a pipeline, or its `repr` where it has none."""
    try:
        return repr(registry.to_text(value))
    except (ArgumentError, TypeError):  # texts, None, KerasHub's own samplers
        return f"{value!r:.200}"
