"""Writes a masked language model as a SavedModel or a TFLite file that fills masks, proved by a fresh process."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kerasgen import quiet
from kerasgen.deferred_imports import is_installed
from kerasgen.errors import ExportArgumentError, ExportError, MissingDependencyError
from kerasgen.exporters.base import Artefact, Exporter
from kerasgen.files import temporary

if TYPE_CHECKING:
    from kerasgen.models.base import MaskedLanguageModel

LENGTHS: Final = (32, 128, 512)
"""Tokens of the signatures of a TFLite file; the longest is the model's positions where these are fewer."""

PLACES: Final = 8
"""Masks that one call of a TFLite file's signature looks at."""

TOLERANCE: Final = {"float32": 1e-4, "float16": 5e-2}
"""Nats by which a log-probability may differ from the model's."""

_TEXTS: Final = (
    "昨夜雨疏风骤，浓睡不消残酒。",
    "Once upon a time there was a small house by the river,",
    "it's 10, I don't.",
)
_WRITE, _PROVE = "write the graph", "fill masks in a fresh process"


def check_tflite(exporter: Exporter) -> None:
    """Raise an `ExportArgumentError` unless a `TFLiteExporter`'s settings have a meaning for masked language models."""
    _check_settings(exporter, ("quantize",))
    if getattr(exporter, "quantize", "float32") not in TOLERANCE:
        raise ExportArgumentError(
            f"A masked language model is stored as {' or '.join(map(repr, TOLERANCE))}. Received: "
            f"quantize={exporter.quantize!r}."  # type: ignore[attr-defined]
        )


def check_saved_model(exporter: Exporter) -> None:
    """Raise an `ExportArgumentError` unless a `SavedModelExporter`'s settings have a meaning for these models."""
    _check_settings(exporter, ())


def _check_settings(exporter: Exporter, meant: tuple[str, ...]) -> None:
    fields = dataclasses.fields(exporter)  # type: ignore[arg-type]
    usual = type(exporter)()
    given = [each.name for each in fields if getattr(exporter, each.name) != getattr(usual, each.name)]
    foreign = [name for name in given if name not in meant]
    if foreign:
        raise ExportArgumentError(
            f"A graph that fills masks has no {' and no '.join(foreign)}. Received: {exporter!r}. Leave "
            f"{'it' if len(foreign) == 1 else 'them'} out."
        )


def export_tflite(model: MaskedLanguageModel, path: Path, *, quantize: str, overwrite: bool) -> Artefact:
    """Write a TFLite file with signatures `fill_N` for texts of up to N tokens.

    Raises:
        ExportArgumentError: weights of this kind are not written.
        ExportError: what was written computes another model.
        MissingDependencyError: TensorFlow or LiteRT is not installed.
    """
    _require("tensorflow", "ai_edge_litert")
    from kerasgen.exporters import progress, staging
    from kerasgen.runtime import metadata

    with staging.staged(path, overwrite=overwrite, exporter="tflite", beside=staging.BESIDE) as stage:
        progress.plan(_WRITE, _PROVE)
        progress.begin(_WRITE)
        module, graph = _module(model)
        from kerasgen.exporters.tensorflow import masked_graph
        from kerasgen.exporters.tflite import graph as tflite_graph
        from kerasgen.exporters.tflite import quantize as quantizing

        lengths = masked_graph.fill_lengths(model.max_sequence_length, LENGTHS)
        graph |= {"lengths": lengths, "places": PLACES}
        with temporary.folder() as folder:
            shapes = {f"fill_{length}": (1, length, PLACES) for length in lengths}
            masked_graph.write_saved_model(module, Path(folder) / "graph", shapes)
            flatbuffer = tflite_graph.convert(Path(folder) / "graph")
        flatbuffer = quantizing.quantized(flatbuffer, quantize)
        operators = quantizing.operators(flatbuffer)
        foreign = [name for name in operators if name.startswith(("Flex", "CUSTOM"))]
        if foreign:
            raise ExportError(f"The graph holds operators that are not built into LiteRT: {', '.join(foreign)}.")
        stage.write_bytes(flatbuffer)
        metadata.tokenizer_path(stage).write_text(metadata.tokenizer_text(model.tokenizer), encoding="utf-8")  # type: ignore[arg-type]
        report = {
            **_said(model),
            "quantize": quantize,
            "graph": graph,
            "signatures": list(shapes),
            "operators": operators,
            "sha256": hashlib.sha256(flatbuffer).hexdigest(),
        }
        report = _proved(model, stage, report, "tflite", quantize)
    return Artefact(path=path, exporter="tflite", report=report)


def export_saved_model(model: MaskedLanguageModel, path: Path, *, overwrite: bool) -> Artefact:
    """Write a SavedModel with the signature `fill`, for any number of texts, tokens and masks.

    Raises:
        ExportError: what was written computes another model.
        MissingDependencyError: TensorFlow is not installed.
    """
    _require("tensorflow")
    from kerasgen.exporters import progress, staging
    from kerasgen.runtime import metadata

    with staging.staged(path, overwrite=overwrite, exporter="saved_model") as stage:
        progress.plan(_WRITE, _PROVE)
        progress.begin(_WRITE)
        module, graph = _module(model)
        from kerasgen.exporters.tensorflow import masked_graph

        masked_graph.write_saved_model(module, stage, {"fill": (None, None, None)})
        metadata.tokenizer_path(stage).write_text(metadata.tokenizer_text(model.tokenizer), encoding="utf-8")  # type: ignore[arg-type]
        report = {**_said(model), "dtype": "float32", "graph": graph, "signatures": ["fill"]}
        report["sha256_of_files"] = staging.sha256_of_files(stage)
        report = _proved(model, stage, report, "saved_model", "float32")
    return Artefact(path=path, exporter="saved_model", report=report)


def _require(*packages: str) -> None:
    for package in packages:
        if not is_installed(package):
            raise MissingDependencyError(
                f"A graph that fills masks is written with {package}: pip install 'kerasgen[export]'.",
                package=package,
                extra="export",
            )


def _module(model: MaskedLanguageModel) -> tuple[Any, dict[str, Any]]:
    from kerasgen.exporters.parity import comparison

    comparison.require_finite(model)  # type: ignore[arg-type]
    quiet.load("tensorflow")
    from kerasgen.exporters.tensorflow import masked_graph

    config, ids = model.network.config, model.tokenizer.vocabulary_size
    graph = {"task": "fill", "max_sequence_length": model.max_sequence_length, "vocabulary_size": ids}
    return masked_graph.FillModule(config, model.network.read(), ids), graph


def _said(model: MaskedLanguageModel) -> dict[str, Any]:
    from kerasgen.runtime import metadata

    return {
        "model": model.source,
        "encoder": model.kind,
        "tokenizer": metadata.tokenizer_settings(model.tokenizer),  # type: ignore[arg-type]
    }


def _proved(
    model: MaskedLanguageModel, stage: Path, report: dict[str, Any], exporter: str, stored: str
) -> dict[str, Any]:
    """Let a fresh process fill masks with the files, compare with the model, and return the report."""
    import numpy as np

    from kerasgen.exporters import progress
    from kerasgen.exporters.parity import worker
    from kerasgen.exporters.staging import write_report
    from kerasgen.masked import filling
    from kerasgen.models.masked_predicting import Predictor

    write_report(stage, report, exporter=exporter)
    progress.begin(_PROVE)
    mask = model.mask_token
    texts = [f"{mask}{text[1:]}{mask}" for text in _TEXTS] + [f"{mask} {mask} {mask}"]
    texts = [text for text in texts if len(filling.encode_any(model, text)) <= model.max_sequence_length]
    longest = _longest(model)
    ids = [filling.encode_any(model, text) for text in texts] + [longest]
    places = [[place for place, token_id in enumerate(row) if token_id == model.mask_token_id] for row in ids]
    with temporary.folder() as folder:
        job = {"path": str(stage), "texts": texts, "ids": ids, "places": places, "folder": folder}
        answer = worker.run("kerasgen.exporters.masked_graph_worker", job)
        theirs = [np.load(Path(folder) / f"{n}.npy") for n in range(len(ids))]
    ours = Predictor(model).log_probabilities(ids, places)
    off = max(float(np.abs(np.exp(a) - np.exp(b)).max()) for a, b in zip(ours, theirs, strict=True))
    nats = max(float(np.abs(a - b)[a > _LIKELY].max()) for a, b in zip(ours, theirs, strict=True))
    own = [filling.fill(model, text, top=3) for text in texts]
    behind = 0.0
    for ways, found in zip(own, answer["fills"], strict=True):
        least = ways[-1].probability
        behind = max(behind, *(np.log(least) - np.log(way["probability"]) for way in found))
    figures = {
        "max_abs_difference": nats,
        "max_probability_difference": off,
        "places": sum(map(len, places)),
        "fill_equal": [[list(way.token_ids) for way in ways] for ways in own]
        == [[way["token_ids"] for way in ways] for ways in answer["fills"]],
        "encoded_equal": answer["encoded"] == [model.tokenizer.encode(text) for text in _TEXTS],
        "modules": answer["modules"],
    }
    limit = TOLERANCE[stored]
    # Near equals may change places within the tolerance.
    is_right = nats <= limit and figures["encoded_equal"] and (figures["fill_equal"] or behind <= 2 * PLACES * limit)
    if not is_right or (exporter == "tflite" and answer["modules"]):
        raise ExportError(f"What was written fills masks otherwise than the model: {figures}. Nothing was kept.")
    report["parity"] = figures
    return write_report(stage, report, exporter=exporter)


_LIKELY = -20.0  # nats; below, rounding of float32 is all that differs


def _longest(model: MaskedLanguageModel) -> list[int]:
    """Return ids of a text as long as the longest that is filled, with masks in it."""
    import numpy as np

    length = min(model.max_sequence_length, max(LENGTHS))
    ids = np.random.default_rng(0).integers(0, model.tokenizer.vocabulary_size, length)
    ids[ids == model.mask_token_id] = model.tokenizer.end_token_id
    assert model.tokenizer.start_token_id is not None
    ids[0], ids[-1] = model.tokenizer.start_token_id, model.tokenizer.end_token_id
    ids[1 : length - 1 : max(3, length // 11)] = model.mask_token_id
    found: list[int] = ids.tolist()
    return found
