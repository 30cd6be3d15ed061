"""The keeping part of a pipeline: saved into a directory and loaded from one, or from a hub, with adapters apart."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from kerasgen import saved_pipeline
from kerasgen.corpora.base import CorpusSource
from kerasgen.errors import ArgumentError, ModelFormatError
from kerasgen.files.path_arguments import path_argument
from kerasgen.keywords import checked
from kerasgen.models import addresses
from kerasgen.models.base import WeightsDtype
from kerasgen.repeater import Repeater
from kerasgen.tuners.base_weights import Provenance
from kerasgen.tuners.lora import LoraTuner


class Keeper(Repeater):
    """A repeater that can be saved and loaded."""

    _provenance: Provenance
    _trains: bool
    _vocabulary: Mapping[str, Any] | None

    @abstractmethod
    def _choose_backend(self) -> None:
        """Choose the backend anew, after what it depends on has changed."""

    @checked()
    def save(self, path: str | os.PathLike[str], *, merge_adapters: bool = False, overwrite: bool = False) -> Path:
        """Write the pipeline with its model into a directory, whole or not at all, and return its path.

        Adapters tuned by `lora` are saved apart, with the name of the model they belong to, unless they are merged or
        that model's own weights were changed too. Texts given in Python as the corpus, or in a mixture, are not saved.

        Args:
            path: a directory that is not there yet.
            merge_adapters: write the whole model with the adapters added into its weights. The model in memory keeps
                them apart.
            overwrite: replace a pipeline that was saved there before; nothing else is ever replaced.

        Raises:
            ArgumentError: something is in the way, or a part of the pipeline has no registered name.
            KerasgenError: it can't be written.
        """
        target, model = self.check_target(path, overwrite=overwrite), self.model
        arguments = saved_pipeline.Arguments(
            self.corpus,
            self.model_source,
            self.tuner,
            self.sampler,
            self.seed,
            self.held_out,
            self.max_documents,
            self.sample,
            self.generation_config,
            self.weights,
            self.chat_template,
            self.streaming,
        )
        apart = self._provenance.is_adapters_alone(model) and not merge_adapters
        if not apart:
            model = self._whole_model("be saved")
        saved_pipeline.write(
            target,
            arguments,
            model,
            backend=self.backend,
            report=self._report,
            apart=apart,
            overwrite=overwrite,
            manifest=self.manifest,
        )
        return target

    @staticmethod
    def check_target(path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Return the path if `save` could write there, which is worth knowing before a long run.

        Raises:
            ArgumentError: something is in the way.
        """
        return saved_pipeline.check_target(path, overwrite=overwrite)

    @classmethod
    @checked()
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        corpus: str | CorpusSource | Iterable[str] | None = None,
        backend: str | None = None,
        weights: WeightsDtype | None = None,
    ) -> Self:
        """Return a pipeline that `save` wrote. Its model is loaded when it is first needed.

        Args:
            path: the directory, or `"hf://name/poet"` for what `push_to_hub` wrote, with `@revision` if you like.
            corpus: another corpus than the saved one, or the texts, if they were given in Python.
            backend: as for `Pipeline`; weights don't depend on it.
            weights: as for `Pipeline`; None for what they were held in when they were saved. Adapters that were saved
                apart go with the weights that they were tuned beside.

        Raises:
            ModelFormatError: the directory holds no saved pipeline, a damaged one, or one of a later format.
            ModelUnavailableError: the hub can't be reached, or has no such repository.
        """
        if addresses.is_hub_address(path):
            place = addresses.hub_address(str(path))
            directory = None if place.path else saved_pipeline.fetched(place)
            if directory is None:
                raise ModelFormatError(
                    f"{str(place)!r} holds no saved pipeline, which Pipeline.push_to_hub would have written. If it "
                    f"holds a model, open that with Pipeline(model={str(place)!r})."
                )
        else:
            directory = path_argument(path)
        saved = saved_pipeline.read(directory, is_foreign=addresses.is_hub_address(path))
        pipeline = cls.__new__(cls)
        pipeline._restore(saved, corpus=corpus, backend=backend, weights=weights)
        return pipeline

    def _open(self, address: str, **given: Any) -> None:
        """Become the pipeline at a hub's address, or one of the model there.

        Args:
            address: in the place of the corpus.
            **given: other arguments than the defaults.

        Raises:
            ArgumentError: one is a setting that a saved pipeline brings.
        """
        place = addresses.hub_address(address)
        if place.repository.startswith("datasets/"):
            name = f"{place.repository.removeprefix('datasets/')}/{place.path}".rstrip("/")
            raise ArgumentError(f"A dataset of the hub is a corpus: 'datasets:name={name}'. Received: {address!r}.")
        own = sorted(given.keys() - {"backend", "cache", "weights"})
        if own:
            raise ArgumentError(
                f"Pipeline({address!r}) reads a pipeline with its own settings. Received besides: {', '.join(own)}. "
                f"For its model with other settings, write Pipeline(model={address!r}, …), and for another corpus "
                f"Pipeline.load({address!r}, corpus=…)."
            )
        directory = None if place.path else saved_pipeline.fetched(place)
        if directory is None:
            self.__init__(model=address, **given)  # type: ignore[misc]
        else:
            self._restore(saved_pipeline.read(directory, is_foreign=True), **given)

    def _restore(self, saved: saved_pipeline.SavedPipeline, *, corpus: Any = None, **given: Any) -> None:
        """Become a pipeline that was saved.

        Args:
            saved: what was read.
            corpus: in place of the saved one, or None.
            **given: other arguments of the constructor that come before the saved ones, where they are not None.
        """
        arguments = saved.arguments if corpus is None else saved.arguments._replace(corpus=corpus)
        config = arguments.generation_config.override({"sampler": arguments.sampler})
        settings = arguments._asdict() | {"sampler": None, "generation_config": config}
        settings |= {name: value for name, value in given.items() if value is not None}
        self.__init__(**settings)  # type: ignore[misc]
        self._trains = corpus is not None  # until `fit`: most of what was saved is loaded to write
        self._choose_backend()
        self._vocabulary = saved.vocabulary
        self._report = saved.report
        self._adapters = saved.adapters
        self._saved = saved

    @checked()
    def save_adapter(
        self, path: str | os.PathLike[str], *, base_model: str | None = None, overwrite: bool = False
    ) -> Path:
        """Write the adapters alone as a directory that peft reads, and return its path.

        Args:
            path: a directory that is not there yet.
            base_model: the name or path of transformers' model that they belong to, for the reader of the file; None
                for the hub's name that the model was loaded by.
            overwrite: replace adapters of peft's that lie there.

        Raises:
            TuneArgumentError: there are none, or peft has no such adapters, or something is in the way.
        """
        from kerasgen.tuners import peft_files

        return peft_files.write(self.model, path, base_model=base_model, overwrite=overwrite)

    @checked()
    def load_adapter(self, path: str | os.PathLike[str]) -> None:
        """Put the adapters of a directory of peft's on the model, to generate, merge, or tune further.

        Those that it carries are merged first. A `LoraTuner` of the pipeline takes their settings, so that `fit` goes
        on with them.

        Args:
            path: a directory, or `hf://organisation/name`.

        Raises:
            ModelFormatError: they can't be read, or don't fit the model.
            ModelUnavailableError: the hub can't be reached or has no such files.
        """
        from kerasgen.tuners import peft_files

        self._provenance.merge(self.model)
        config = peft_files.read(self.tuner.load_base(lambda: self.model), path)
        if isinstance(self.tuner, LoraTuner):
            self.tuner = peft_files.tuner_of(self.tuner, config)
