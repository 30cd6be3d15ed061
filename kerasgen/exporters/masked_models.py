"""Writes a masked language model as a KerasHub preset or a transformers directory, and knows its other formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kerasgen.deferred_imports import is_installed
from kerasgen.errors import ExportArgumentError, ExportError, ModelError
from kerasgen.exporters import masked_graphs
from kerasgen.exporters.base import Artefact, Exporter
from kerasgen.files import temporary

if TYPE_CHECKING:
    from kerasgen.models.base import MaskedLanguageModel

FORMATS: Final = ("preset", "transformers")
GRAPHS: Final = ("saved_model", "tflite")
TOLERANCE: Final = {"float32": 1e-4, "float16": 5e-2}
"""Nats by which a log-probability may differ from the model's."""

_TEXTS: Final = (
    "昨夜雨疏风骤，浓睡不消残酒。",
    "Once upon a time there was a small house by the river,",
    "it's 10, I don't.",
)
_PLACES = 24


def check(exporter: Exporter, name: str) -> None:
    """Raise an `ExportArgumentError` unless the exporter writes masked language models; before anything is loaded.

    Args:
        exporter: that was chosen.
        name: by which it is registered.
    """
    if name in FORMATS and getattr(exporter, "dtype", "float32") in TOLERANCE:
        return
    if name == "tflite":
        masked_graphs.check_tflite(exporter)
        return
    if name == "saved_model":
        masked_graphs.check_saved_model(exporter)
        return
    if name in FORMATS:
        raise ExportArgumentError(
            f"A masked language model is stored as {' or '.join(map(repr, TOLERANCE))}. Received: "
            f"dtype={getattr(exporter, 'dtype', None)!r}."
        )
    raise ExportArgumentError(
        f"What the exporter {name!r} writes continues a text from left to right, and this model predicts masked "
        f"tokens. Use one of the exporters {', '.join(map(repr, (*FORMATS, *GRAPHS)))}, or Pipeline.save."
    )


def export(model: MaskedLanguageModel, path: Path, name: str, dtype: str, *, overwrite: bool) -> Artefact:
    """Write the files, let a fresh process compute with them, and compare its logits with the model's.

    Args:
        model: what to write.
        path: where.
        name: the format, one of `FORMATS`.
        dtype: what the weights are stored as.
        overwrite: replace what the exporter wrote there before.

    Raises:
        ExportArgumentError: the format's classes would compute another model.
        ExportError: what was written computes another model.
    """
    from kerasgen.exporters.parity import comparison
    from kerasgen.exporters.staging import staged, write_report
    from kerasgen.models import encoders, masked_saving, saving

    architecture = encoders.named(model.network.config.architecture)
    assert architecture is not None
    difference = (
        masked_saving.hub_difference(model)
        if name == "preset"
        else architecture.difference_in_transformers(model.network.config)
    )
    if difference is not None:
        others = ", ".join(other for other in (*FORMATS, *GRAPHS) if other != name)
        raise ExportArgumentError(
            f"The format {name!r} would compute another model: {difference}. Use another of {others}, or "
            "Pipeline.save, which keeps it for kerasgen."
        )
    comparison.require_finite(model)  # type: ignore[arg-type]
    with staged(path, overwrite=overwrite, exporter=name) as stage:
        try:
            if name == "preset":
                saving.save_preset(model, stage, dtype=dtype)  # type: ignore[arg-type]
            else:
                stage.mkdir()
                _write_transformers(model, stage, dtype)
        except ModelError as cause:
            raise ExportError(f"{cause} Nothing was kept.") from cause
        figures = _prove(model, stage, name, dtype)
        report = write_report(stage, {"dtype": dtype, "parity": figures}, exporter=name)
    return Artefact(path=path, exporter=name, report=report)


def _write_transformers(model: MaskedLanguageModel, directory: Path, dtype: str) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    from kerasgen.encoder import weights
    from kerasgen.models import encoders, masked_loading, masked_tokenizers

    config, named = model.network.config, model.network.read()
    architecture, tokenizer = encoders.named(config.architecture), model.tokenizer
    assert architecture is not None
    content = architecture.write_config(config) | {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.start_token_id,
        "eos_token_id": tokenizer.end_token_id,
        "torch_dtype": dtype,
    }
    tensors: dict[str, Any] = {}
    for part, _, theirs in masked_loading.names(architecture, config):
        if part == "head.bias":
            tensors[theirs] = named[part]
        elif part == "embedding.positions":
            tensors[f"{theirs}.weight"] = np.pad(named[part], ((architecture.position_offset, 0), (0, 0)))
        elif part in weights.TABLES:
            tensors[f"{theirs}.weight"] = named[part]
        elif weights.is_norm(part):
            tensors[f"{theirs}.weight"], tensors[f"{theirs}.bias"] = named[f"{part}.scale"], named[f"{part}.bias"]
        else:
            tensors[f"{theirs}.weight"], tensors[f"{theirs}.bias"] = named[f"{part}.kernel"].T, named[f"{part}.bias"]
    if architecture.folds_segments and not config.num_segments:
        types = architecture.parts["embedding.segments"].transformers
        tensors[f"{types}.weight"] = np.zeros((1, config.embedding_dim), np.float32)
    stored = {name: np.ascontiguousarray(array.astype(dtype)) for name, array in tensors.items()}
    save_file(stored, str(directory / "model.safetensors"), metadata={"format": "pt"})
    text = json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    (directory / "config.json").write_text(text, encoding="utf-8")
    tokenizer.save(directory)
    settings = masked_tokenizers.settings_text(tokenizer, architecture)  # type: ignore[arg-type]
    (directory / "tokenizer_config.json").write_text(settings, encoding="utf-8")


def _prove(model: MaskedLanguageModel, directory: Path, name: str, dtype: str) -> dict[str, Any]:
    import numpy as np

    from kerasgen import backend
    from kerasgen.exporters.parity import worker

    tokenizer = model.tokenizer
    length = min(_PLACES, model.max_sequence_length)
    ids = np.random.default_rng(0).integers(0, tokenizer.vocabulary_size, (2, length)).astype(np.int32)
    assert tokenizer.start_token_id is not None
    ids[:, 0], ids[:, -1] = tokenizer.start_token_id, tokenizer.end_token_id
    ids[:, 1 : length - 1 : 3] = model.mask_token_id
    reader = name
    if name == "transformers" and not (is_installed("transformers") and is_installed("torch")):
        reader = "kerasgen"
    with temporary.folder() as folder:
        job = {"path": str(directory), "backend": backend.running(), "reader": reader, "ids": ids.tolist()}
        answer = worker.run("kerasgen.exporters.masked_worker", {**job, "folder": folder, "texts": list(_TEXTS)})
        theirs = np.load(Path(folder) / "logits.npy")
    positions = np.zeros_like(ids) + np.arange(length, dtype=np.int32)
    inputs = {"token_ids": ids, "positions": positions, "segment_ids": np.ones_like(ids)}
    ours, written = (_log_softmax(np.asarray(each, np.float64)) for each in (model.network(inputs), theirs))
    off = float(np.abs(ours - written).max())
    at = ids == model.mask_token_id
    best = np.take_along_axis(ours, written.argmax(-1)[..., None], -1)[..., 0]
    figures = {
        "reader": reader,
        "version": answer["version"],
        "max_abs_difference": off,
        "places": int(at.sum()),
        "fill_equal": bool((ours.max(-1) - best)[at].max() <= 2 * TOLERANCE[dtype]),
        "encoded_equal": answer["encoded"] is None or answer["encoded"] == [tokenizer.encode(text) for text in _TEXTS],
    }
    if off > TOLERANCE[dtype] or not figures["fill_equal"] or not figures["encoded_equal"]:
        raise ExportError(f"What {reader} computes with the files is another model: {figures}. Nothing was kept.")
    return figures


def _log_softmax(logits: Any) -> Any:
    import numpy as np

    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
