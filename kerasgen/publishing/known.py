"""What is known of a pipeline that others may read: without paths of this machine, and nothing that nobody measured."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kerasgen import corpora, locations, samplers, tuners
from kerasgen.corpora.base import CorpusSource
from kerasgen.corpora.deduplicated import Deduplicated
from kerasgen.corpora.mix import Mix
from kerasgen.corpora.texts import Texts
from kerasgen.errors import ArgumentError, HubArgumentError, KerasgenError
from kerasgen.models import licences
from kerasgen.models.base import BASE_MODEL, CHAT_TEMPLATE, MaskedLanguageModel
from kerasgen.terminal import visible

if TYPE_CHECKING:
    from kerasgen.evaluation.base import Evaluation
    from kerasgen.publishing.publisher import Publisher

SAMPLES: Final = 2
# A path of this machine, behind a blank, a quote or an equals sign.
_PATH: Final = re.compile(r"(^|[\s'\"=(])(?:[/~]|[A-Za-z]:[/\\]|\.\.?[/\\])[^\s'\"]*")
SAMPLE_TOKENS: Final = 64
_CALLED: Final = {
    "text": "text files",
    "jsonl": "JSON lines",
    "csv": "a table of CSV",
    "parquet": "a table of Parquet",
    "datasets": "a folder of a dataset",
}
_SETTINGS: Final = (
    *("epochs", "steps", "batch_size", "sequence_length", "packing", "precision", "backend", "parameters"),
    *("trainable_parameters", "tokens", "stopped"),
)


@dataclass(frozen=True)
class Data:
    """What is known of a corpus.

    Args:
        name: in words.
        spec: its settings as text, without paths; empty where it has none that others could use.
        license: what its own files say of it, or its source; None where they don't.
        languages: codes of ISO 639.
        dataset: its name on the Hugging Face hub, or None.
        url: where it is described, or None.
    """

    name: str
    spec: str = ""
    license: str | None = None
    languages: Sequence[str] = ()
    dataset: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class Known:
    """What is known of a pipeline.

    Args:
        kind: the model's architecture.
        mask_token: what stands for a token that is to be filled in; None of a causal model.
        has_chat_template: whether it holds one.
        has_adapters: whether it carries adapters apart.
        parameters: weights of the model.
        positions: tokens of a text, at most; None without a limit.
        vocabulary_size: ids of the tokenizer.
        base: of the weights that were tuned: `name`, `license`, `languages`, `repository`, `notices`.
        data: the corpora.
        counts: what reading them kept and dropped.
        settings: names and values of the tuning.
        tuner: the tuner as text.
        sampler: the sampler as text.
        seed: the pipeline's.
        report: of the last tuning, as `TuneReport.to_dict` gives it; empty where nothing was tuned.
        evaluation: its figures, or None.
        samples: prompts and what was written after each.
    """

    kind: str
    mask_token: str | None
    has_chat_template: bool
    has_adapters: bool
    parameters: int
    positions: int | None
    vocabulary_size: int
    base: Mapping[str, Any]
    data: Sequence[Data]
    counts: Mapping[str, Any]
    settings: Mapping[str, Any]
    tuner: str
    sampler: str
    seed: int
    report: Mapping[str, Any]
    evaluation: Evaluation | None = None
    samples: Sequence[tuple[str, str]] = field(default=())

    @property
    def is_masked(self) -> bool:
        """Whether it fills masks."""
        return self.mask_token is not None


def known(pipeline: Publisher, *, prompts: Iterable[str] | None, evaluation: Evaluation | None) -> Known:
    """Return what is known of a pipeline, whose model is loaded for it.

    Args:
        pipeline: the pipeline.
        prompts: what samples go on from; None for those of the tuning, else two from nothing.
        evaluation: what `evaluate` returned, or None.

    Raises:
        HubArgumentError: `prompts` are no texts.
    """
    given = None if prompts is None else checked_prompts(prompts)
    model: Any = pipeline.model
    from kerasgen.tuners import adapters

    report = report_of(pipeline)
    is_masked = isinstance(model, MaskedLanguageModel)
    network = model.network
    return Known(
        kind=model.kind,
        mask_token=model.mask_token if is_masked else None,
        has_chat_template=bool(model.metadata.get(CHAT_TEMPLATE)) or pipeline.chat_template is not None,
        has_adapters=not is_masked and adapters.current(model) is not None,
        parameters=int(network.count_params()),
        positions=model.max_sequence_length,
        vocabulary_size=model.tokenizer.vocabulary_size,
        base=base_of(pipeline),
        data=() if pipeline.corpus is None else tuple(data_of(pipeline.corpus)),
        counts=report.get("corpus") or {},
        settings={name: report[name] for name in _SETTINGS if report.get(name)},
        tuner=_spelled(tuners.REGISTRY, pipeline.tuner) if report else "",
        sampler=_spelled(samplers.REGISTRY, pipeline.sampler),
        seed=pipeline.seed,
        report=report,
        evaluation=evaluation,
        samples=_samples(pipeline, model, given, report),
    )


def report_of(pipeline: Publisher) -> dict[str, Any]:
    """Return the figures of a pipeline's last tuning, here or before it was saved, without paths; empty for none."""
    report = pipeline._report
    if report is None:
        return {}
    told = [_PATH.sub(r"\1…", warning) for warning in report.warnings]
    settings = {name: text for name, text in report.settings.items() if not _PATH.search(text) and "path=" not in text}
    return report.to_dict() | {
        "checkpoint": None,
        "model": base_of(pipeline).get("name") or "",
        "warnings": told,
        "settings": settings,
    }


def base_of(pipeline: Publisher) -> dict[str, Any]:
    """Return what is known of the weights that a pipeline's model was made of."""
    source = pipeline.model_source
    saved = pipeline._saved
    if saved is not None and saved.base is not None:
        source = saved.base
    said = {} if pipeline._model is None else dict(pipeline.model.metadata.get(BASE_MODEL) or {})
    about = dict(source.about())
    return {**about, **{name: value for name, value in said.items() if name != "types" and value}}


def data_of(corpus: CorpusSource) -> Iterable[Data]:
    """Yield what is known of a corpus, and of those that it is made of."""
    if isinstance(corpus, Mix):
        yield from itertools.chain.from_iterable(data_of(part) for _, part in corpus.corpora)
        return
    if isinstance(corpus, Deduplicated):
        yield from data_of(corpus._corpus)
        return
    about = {**_said_by_files(corpus), **corpus.about()}
    registered = corpora.REGISTRY.name_of(corpus)
    spec = ""
    if registered is not None and not isinstance(corpus, Texts):
        try:
            if not locations.names_a_path(corpora.REGISTRY.to_manifest(corpus)):
                spec = corpora.REGISTRY.to_text(corpus)
        except ArgumentError:  # a setting without a text form
            spec = ""
    name = "texts given in Python" if isinstance(corpus, Texts) else _CALLED.get(registered or "", "")
    yield Data(
        name=str(about.get("name") or name or registered or type(corpus).__name__),
        spec=spec,
        license=about.get("license"),
        languages=tuple(about.get("languages") or ()),
        dataset=about.get("dataset"),
        url=about.get("url"),
    )


def _said_by_files(corpus: CorpusSource) -> dict[str, Any]:
    """Return what the files beside a corpus's own say of its licence and its languages."""
    place: Any = getattr(corpus, "path", None) or getattr(corpus, "name", None)
    if not isinstance(place, (str, os.PathLike)):
        return {}
    try:
        path = Path(place).expanduser()
        folder = path if path.is_dir() else path.parent
        if not path.exists():
            return {}
    except (OSError, ValueError, RuntimeError):
        return {}
    about = licences.read(lambda name: folder / name if (folder / name).is_file() else None)
    if "license" not in about and about.get("notices"):
        first = next(iter(about["notices"].values())).strip().splitlines()
        about["license"] = first[0].strip()[:80] if first else None
    return {name: about[name] for name in ("license", "languages") if about.get(name)}


def checked_prompts(prompts: Any) -> tuple[str, ...]:
    """Return prompts, checked.

    Raises:
        HubArgumentError: they are no texts.
    """
    given = (prompts,) if isinstance(prompts, str) else tuple(prompts) if isinstance(prompts, Iterable) else (prompts,)
    wrong = [prompt for prompt in given if not isinstance(prompt, str)]
    if wrong:
        raise HubArgumentError(f"`prompts` must be texts. Received: {wrong[0]!r:.80}.")
    return given


def _samples(
    pipeline: Publisher, model: Any, prompts: tuple[str, ...] | None, report: Mapping[str, Any]
) -> tuple[tuple[str, str], ...]:
    if prompts is None:
        while_tuning = [sample for sample in report.get("samples") or () if isinstance(sample.get("text"), str)]
        if while_tuning:
            return tuple(("", sample["text"]) for sample in while_tuning[-SAMPLES:])
        if isinstance(model, MaskedLanguageModel) or model.tokenizer.start_token_id is None:
            return ()
        prompts = ("",) * SAMPLES
    if not prompts:
        return ()
    try:
        if isinstance(model, MaskedLanguageModel):
            filled = [pipeline.fill(prompt, top=1)[0] if model.mask_token in prompt else None for prompt in prompts]
            return tuple(
                (prompt, visible(getattr(best, "text", str(best))))
                for prompt, best in zip(prompts, filled, strict=True)
                if best is not None
            )
        room = (
            SAMPLE_TOKENS if model.max_sequence_length is None else min(SAMPLE_TOKENS, model.max_sequence_length // 2)
        )
        texts = pipeline.generate(list(prompts), max_new_tokens=room, return_prompt=False)
    except KerasgenError as cause:
        raise HubArgumentError(f"No samples can be written for the model card: {cause} Pass prompts=().") from cause
    firsts = [text[0] if isinstance(text, list) else text for text in texts]
    return tuple((prompt, visible(str(text))) for prompt, text in zip(prompts, firsts, strict=True))


def _spelled(registry: Any, value: Any) -> str:
    try:
        return str(registry.to_text(value))
    except (ArgumentError, TypeError):
        return type(value).__name__
