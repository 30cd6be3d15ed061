"""Looks through a preset's directory before KerasHub builds anything from it.

KerasHub builds a model as large as `config.json` says, and then reads weights into it; a pipe in the place of a file
would be waited for. Here a file is a file, a size is a size, and the weights are there for the model that is built.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kerasgen import limits
from kerasgen.errors import ModelFormatError
from kerasgen.models import hdf5, integrity

LARGEST = 2**31 - 1
_DEPTH = 64
# A matrix of these sizes belongs to every decoder that has both settings; of the first pair also where it is tied.
_MATRICES = (("vocabulary_size", "hidden_dim"), ("intermediate_dim", "hidden_dim"))
_SIZES = {"vocabulary_size", "hidden_dim", "intermediate_dim", "num_layers"}
_PACKED = 2  # int4 keeps two numbers in a byte


def check(directory: Path) -> None:
    """Look at every file of a model's directory that is read when the model is loaded.

    A vocabulary is compared with its digest by `integrity.check`, once its reader has found no more to say about it.

    Raises:
        ModelFormatError: one is no regular file, is another than the one that was saved, says sizes that can't be, or
            holds weights that are not plain numbers or too few for those sizes.
    """
    folders = [directory, *(path_found for path_found in (directory / "assets").glob("**/") if path_found.is_dir())]
    for path in sorted(path_found for folder in folders for path_found in folder.iterdir()):
        try:
            kind = limits.kind_of_irregular(path)
        except OSError as cause:
            raise ModelFormatError(f"{str(path)!r} can't be looked at: {cause.strerror or cause}.") from cause
        if kind not in (None, "a folder"):
            raise ModelFormatError(
                f"{str(path)!r} is {kind}, where a model has a file. Remove it, or copy the model again."
            )
    integrity.check(directory, tokenizer=False)  # before HDF5 meets them
    weights = [path_found for path_found in sorted(directory.glob("*.h5")) if not _is_foreign(path_found)]
    try:
        config = limits.read_json(directory / "config.json")
    except (OSError, ValueError) as cause:
        raise ModelFormatError(f"The 'config.json' in {str(directory)!r} can't be read: {cause}.") from cause
    check_config(config, str(directory))
    shapes = [shape for path in weights for shape in hdf5.check(path).values()]
    if shapes and isinstance(config, Mapping) and isinstance(config.get("config"), Mapping):
        check_sizes(config["config"], shapes, str(directory))


def check_config(config: Any, preset: str) -> None:
    """Raise ModelFormatError unless every number of a configuration is one that a setting can have."""
    waiting: list[tuple[str, Any, int]] = [("", config, 0)]
    while waiting:
        name, value, depth = waiting.pop()
        if depth > _DEPTH:
            raise ModelFormatError(f"The 'config.json' of {preset!r} is nested too deeply to be a model's.")
        if isinstance(value, Mapping):
            waiting += [(str(key), member, depth + 1) for key, member in value.items()]
        elif isinstance(value, list):
            waiting += [(name, member, depth + 1) for member in value]
        elif isinstance(value, int) and abs(value) > LARGEST:
            raise _unfit(preset, name, value, f"no setting is beyond {LARGEST:,}")
        elif isinstance(value, float) and not math.isfinite(value):
            raise _unfit(preset, name, value, "a setting is a finite number")


def check_sizes(config: Mapping[str, Any], shapes: Iterable[tuple[int, ...]], preset: str) -> None:
    """Compare the sizes of a backbone's configuration with the weights that are there.

    Raises:
        ModelFormatError: a size is no whole number from 1, or the model would have more weights than that.
    """
    there = _PACKED * sum(math.prod(shape) for shape in shapes)
    sizes = {name: config[name] for name in _SIZES & config.keys()}
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise _unfit(preset, name, value, "it must be a whole number from 1")
    width, layers = sizes.get("hidden_dim", 1), sizes.get("num_layers", 1)
    needed = {f"{a} × {b}": sizes[a] * sizes[b] for a, b in _MATRICES if a in sizes and b in sizes}
    needed["num_layers × hidden_dim"] = layers * width
    for what, count in needed.items():
        if count > there:
            raise ModelFormatError(
                f"The 'config.json' of {preset!r} says {what} = {count:,}, and its weights hold {there // _PACKED:,} "
                "numbers in all: they don't belong together. Copy or save the model again."
            )


def _is_foreign(path: Path) -> bool:
    return path.name == "tf_model.h5"  # transformers' name for weights of another format, which are not read


def _unfit(preset: str, name: str, value: object, why: str) -> ModelFormatError:
    shown = repr(value) if not isinstance(value, int) or abs(value) <= LARGEST else f"about 2^{value.bit_length() - 1}"
    return ModelFormatError(f"The 'config.json' of {preset!r} sets {name} to {shown:.80}, and {why}.")


def check_all_read(directory: Path, backbone: Any) -> None:
    """Check that a backbone has as many arrays of weights as the file that it was read from.

    KerasHub reads those that the model asks for. A file of more of them is another model's: one of more layers.

    Args:
        directory: the directory of the preset; a remote one's files are not looked at.
        backbone: the backbone that was read.

    Raises:
        ModelFormatError: the file holds more.
    """
    import h5py

    path = directory / "model.weights.h5"
    if not path.is_file():
        return
    arrays: list[str] = []
    with h5py.File(path) as file:
        file.visititems(lambda name, item: arrays.append(name) if isinstance(item, h5py.Dataset) else None)
    if len(arrays) > len(backbone.variables):
        raise ModelFormatError(
            f"{str(path)!r} holds {len(arrays)} arrays, and the {type(backbone).__name__} that the config.json beside "
            f"it describes has {len(backbone.variables)}: they are not of one model. Copy or save the model again."
        )
