"""A `LanguageModel` becomes an ordinary KerasHub preset on disk, whole or not at all."""

from __future__ import annotations

import errno
import inspect
import json
import math
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kerasgen.errors import ModelArgumentError, ModelError
from kerasgen.files import presence, staging
from kerasgen.files.path_arguments import path_argument
from kerasgen.models import architectures, container_files, hdf5_file, integrity, licences, preset_tokenizers
from kerasgen.models.base import KEPT, LanguageModel, MaskedLanguageModel, quantization_modes
from kerasgen.models.hub_tokenizer import KerasHubTokenizer
from kerasgen.models.preprocessing import preprocessor_of
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.pretrained import PretrainedTokenizer

CONFIG_FILES = ("config.json", "task.json", "preprocessor.json", "tokenizer.json")
WEIGHTS_FILE = "model.weights.h5"
_QUANTIZATIONS = {"int8", "float8"}
_SAVING = threading.RLock()  # one at a time shadows a method of a backbone


def save_preset(
    model: LanguageModel,
    directory: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    dtype: Literal["float32", "float16"] | None = None,
) -> Path:
    """Write a preset that `keras_hub.models.CausalLM.from_preset(directory)` loads, tokenizer and all; return its path.

    A model that KerasHub has no class for is written in a form of kerasgen's own, which `Hub(directory)` reads.

    Where KerasHub's own tokenizer would do otherwise than the model's, KerasHub loads the model alone, and kerasgen the
    tokenizer too (`preset_tokenizers.keras_hub_difference` says why).

    The files are written beside `directory` under another name and moved there when they are complete, so a reader
    never sees half a preset.

    Args:
        model: what to save. It is not changed.
        directory: where the preset shall lie; made with its parents.
        overwrite: replace a preset that lies there already. Nothing but a preset is ever replaced.
        dtype: what the weights are stored as: `"float16"` halves the file and rounds each weight to 11 bits (they load
            back as float32), None and `"float32"` keep them as they are.

    Raises:
        ModelArgumentError: `dtype` is unknown, or `directory` is in the way and may not be replaced.
        LockedError: another process or thread is writing there.
        ModelError: the model can't be said in KerasHub's format, or can't be written there; or a weight of it holds NaN
            or infinity.
    """
    if dtype not in (None, "float32", "float16"):
        raise ModelArgumentError(f"`dtype` must be 'float32', 'float16' or None. Received: {dtype!r}.")
    target = path_argument(directory, ModelArgumentError, name="directory").resolve()
    _check_target(target, overwrite)
    _check_classes(model)
    _check_quantized(model, dtype)
    _check_finite(model)
    is_masked = isinstance(model, MaskedLanguageModel)
    if not is_masked and model.causal_lm is None:
        container_files.check(model)
    preprocessor = None if is_masked or model.causal_lm is None else preprocessor_of(model)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with staging.staged(target) as stage:
            _check_target(target, overwrite)
            new = stage / target.name
            new.mkdir()
            _write(model, preprocessor, new, dtype)
            licences.write(model.metadata, new)
            integrity.record(new, {key: model.metadata[key] for key in KEPT if key in model.metadata})
            _check_target(target, overwrite)  # writing took a while, in which something may have come there
            staging.place(stage, target)
    except OSError as cause:
        raise ModelError(f"The preset could not be written to {str(target)!r}: {cause}.") from cause
    return target


def _require_room(model: LanguageModel, directory: Path) -> None:
    """Say so before gigabytes are written for nothing; a disk that becomes full meanwhile is told as well."""
    needed = sum(4 * math.prod(weight.shape) for weight in model.network.weights)
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"The weights take {needed:,} bytes, and the disk has room for {free:,}")


def _check_target(target: Path, overwrite: bool) -> None:
    try:
        staging.recover(target)
    except OSError as cause:
        raise ModelError(
            f"What a killed process had begun to move to {str(target)!r} can't be finished: {cause}."
        ) from cause
    if not presence.exists(target):
        return
    if not target.is_dir():
        raise ModelArgumentError(f"{str(target)!r} is a file; a preset is a directory. Choose another path.")
    if not any(target.iterdir()):
        return
    if not overwrite:
        raise ModelArgumentError(f"{str(target)!r} exists already. Pass overwrite=True to replace it.")
    if not (target / "config.json").is_file():
        raise ModelArgumentError(
            f"{str(target)!r} holds other things than a preset (it has no 'config.json'), so it is not replaced. "
            "Choose another path, or empty the directory."
        )


def _check_finite(model: LanguageModel) -> None:
    """Raise if a weight holds NaN or infinity: such a model says nothing, and a saved one would take its place."""
    for variable in model.network.weights:
        # No sum of float32 numbers is too large for float64.
        if str(variable.dtype).startswith(("float", "bfloat")) and not math.isfinite(_sum(variable)):
            raise ModelError(
                f"The weight {variable.path!r} holds NaN or infinity, so the model says nothing and is not saved. Load "
                "it anew, or a checkpoint from before, and tune with a lower learning rate."
            )


def _sum(variable: Any) -> float:
    return float(np.sum(np.asarray(variable), dtype=np.float64))


def _check_quantized(model: LanguageModel, dtype: str | None) -> None:
    """Raise unless a quantized model comes back from its preset as it was: KerasHub's int4 does not."""
    modes = quantization_modes(model.network)
    if set(modes) - _QUANTIZATIONS:
        raise ModelError(
            f"The model is quantized ({', '.join(modes)}), and a preset of KerasHub gives back another model than "
            f"it was made of, unless that is {' or '.join(sorted(_QUANTIZATIONS))}. Save it before "
            "causal_lm.quantize(…), or export it with the exporter 'tflite' and its `quantize=`."
        )
    if modes and dtype == "float16":
        raise ModelArgumentError(
            f"dtype='float16' is for models of plain weights, and this one is quantized ({', '.join(modes)}). Leave "
            "`dtype` out."
        )


def _check_classes(model: LanguageModel) -> None:
    """Raise unless Keras would find the classes of the task and its backbone when it reads the preset."""
    from keras.saving import get_registered_name

    if isinstance(model, MaskedLanguageModel) or model.causal_lm is None:
        return
    for kind in (type(model.causal_lm), type(model.backbone)):
        if not kind.__module__.startswith("keras_hub.") and get_registered_name(kind) == kind.__name__:
            raise ModelError(
                f"{kind.__name__} is a class of your own that Keras could not find when it loads the model again. Put "
                "@keras.saving.register_keras_serializable() over it, build the model anew, and import the class "
                "before loading."
            )


def bare_task(model: LanguageModel, preprocessor: Any = None) -> Any:
    """Return a second task around the same backbone: the model's own keeps preprocessor, optimizer and functions."""
    config = model.causal_lm.get_config()
    config["backbone"] = model.backbone
    config["preprocessor"] = preprocessor
    return type(model.causal_lm)(compile=False, **config)


def _write(
    model: LanguageModel, preprocessor: Any, directory: Path, dtype: Literal["float32", "float16"] | None
) -> None:
    _require_room(model, directory)
    if isinstance(model, MaskedLanguageModel):
        from kerasgen.models import masked_saving

        for name in masked_saving.write(model, directory, dtype):
            if dtype == "float16":
                _store_as_float16(directory, name)
        return
    if model.causal_lm is None:
        container_files.write(model, directory, dtype)
        return
    task = bare_task(model, preprocessor)
    with _weights_through_ours(task):
        task.save_to_preset(str(directory))
    family = architectures.byte_level_tokens(type(model.backbone).__name__)
    if isinstance(model.tokenizer, ByteLevelBPE):
        preset_tokenizers.write(model.tokenizer, directory, family)
    elif isinstance(model.tokenizer, PretrainedTokenizer):
        preset_tokenizers.write_pretrained(model.tokenizer, directory)
    elif isinstance(model.tokenizer, KerasHubTokenizer):
        model.tokenizer.save_settings(directory)
    for name in CONFIG_FILES:
        path = directory / name
        if path.is_file():
            content = json.loads(path.read_text(encoding="utf-8"))
            _name_float32(content)
            for settings in _backbone_settings(content):
                settings |= _unsaid(model.backbone, settings)
            path.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    if dtype == "float16":
        _store_as_float16(directory)


@contextmanager
def _weights_through_ours(task: Any) -> Iterator[None]:
    """Let Keras write the weights through `hdf5_file`, for HDF5 ends the process when the disk becomes full."""

    def shadow(owner: Any, name: str) -> None:
        original = getattr(type(owner), name)

        def save(filepath: Any, **settings: Any) -> None:
            if settings.get("max_shard_size") is not None:  # Keras opens each of several files itself
                original(owner, filepath, **settings)
                return
            with hdf5_file.writing(Path(filepath)) as file:
                original(owner, file, **settings)

        object.__setattr__(owner, name, save)  # Keras's own would track it as a part of the model

    with _SAVING:
        shadowed = ((task, "save_task_weights"), (task.backbone, "save_weights"))
        try:
            for owner, name in shadowed:
                shadow(owner, name)
            yield
        finally:
            for owner, name in shadowed:
                owner.__dict__.pop(name, None)


def _backbone_settings(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings of the backbone in `config.json` or in `task.json`, which KerasHub reads where it is there."""
    settings = content["config"]
    if not isinstance(settings.get("backbone"), dict):
        return [settings] if "vocabulary_size" in settings else []
    return [settings["backbone"]["config"]]


def _unsaid(backbone: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a backbone that its `get_config` leaves out, such as Llama's `tie_word_embeddings`."""
    settings = inspect.signature(type(backbone)).parameters.values()
    return {
        setting.name: getattr(backbone, setting.name)
        for setting in settings
        if setting.kind is setting.POSITIONAL_OR_KEYWORD
        and setting.name not in config
        and isinstance(getattr(backbone, setting.name, None), (bool, int, float, str))
    }


def _name_float32(content: Any) -> None:
    """Say float32 wherever the model was computing in mixed precision: its variables are float32."""
    if isinstance(content, dict):
        if content.get("class_name") == "DTypePolicy" and str(content["config"]["name"]).startswith("mixed_"):
            content["config"]["name"] = "float32"
        for value in content.values():
            _name_float32(value)
    elif isinstance(content, list):
        for value in content:
            _name_float32(value)


def _store_as_float16(directory: Path, name: str = WEIGHTS_FILE) -> None:
    import h5py
    import numpy as np

    path = directory / name
    if not path.is_file():
        raise ModelError("float16 is for models of one weights file (up to 10 GiB); this one is stored in several.")
    halved = path.with_suffix(".float16")
    largest = float(np.finfo(np.float16).max)

    def copy(source: Any, destination: Any) -> None:
        for key, value in source.attrs.items():
            destination.attrs[key] = value
        for name, member in source.items():
            if isinstance(member, h5py.Group):
                copy(member, destination.create_group(name))
                continue
            values = member[()]
            if values.dtype == np.float32:
                if np.abs(values).max(initial=0.0) > largest:
                    raise ModelError(
                        f"The weight {member.name!r} holds values beyond float16's largest, {largest:.0f}. Save it "
                        "with dtype=None."
                    )
                values = values.astype(np.float16)
            dataset = destination.create_dataset(name, data=values)
            for key, value in member.attrs.items():
                dataset.attrs[key] = value

    with (
        hdf5_file.writing(halved) as file,
        h5py.File(path, "r") as source,
        h5py.File(file, "w") as destination,
    ):
        copy(source, destination)
    halved.replace(path)
