"""Adapters become a directory of peft's, `adapter_config.json` and `adapter_model.safetensors`, and come back from one.

Names and layouts are those of the architecture's table. Where transformers has one tensor for several projections, such
as GPT-2's `c_attn`, peft has one pair of matrices for them: several adapters are one of as many times the rank, whose
second matrix has a block for each, and one is the same for all of them. Works on a built Keras model.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from kerasgen import limits, locations
from kerasgen.errors import ModelFormatError, TuneArgumentError
from kerasgen.files import presence, staging
from kerasgen.files.path_arguments import path_argument
from kerasgen.models import addresses, described, low_rank, projections
from kerasgen.models.architectures import tensors
from kerasgen.models.architectures.tensors import Tensor
from kerasgen.models.base import LanguageModel
from kerasgen.tuners import adapters, lora_targets
from kerasgen.tuners.adapters import AdapterConfig
from kerasgen.tuners.lora import LoraTuner

CONFIG_FILE: Final = locations.PEFT_FILE
WEIGHTS_FILE: Final = "adapter_model.safetensors"
_BEFORE: Final = "base_model.model."
_A, _B, _MAGNITUDE = ".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"

# What of an `adapter_config.json` is read; `fan_in_fan_out` says what the table says.
_READ = ("peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern")
# What changes nothing in the adapters of a file, or is said by its tensors.
_TOLD = (
    *("base_model_name_or_path", "revision", "task_type", "inference_mode", "auto_mapping", "peft_version"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out", "lora_dropout"),
    *("megatron_core", "runtime_config", "qalora_group_size", "loftq_config", "eva_config", "ensure_weight_tying"),
)
# Ways to draw the first matrices that leave the base as it is.
_STARTS = (True, False, "gaussian", "eva", "orthogonal", "mica")


@dataclass(frozen=True)
class _Module:
    """A module of transformers' that carries an adapter in peft, and our layers in it.

    Args:
        name: of the module, without `.weight`.
        tensor: its kernel.
        layers: Keras layers that it holds side by side.
    """

    name: str
    tensor: Tensor
    layers: tuple[Any, ...]

    def to_file(self, rows: Any) -> Any:
        """Return arrays `(rows, outputs)`, one a layer, as the one `(outputs, rows)` of a file."""
        joined = self.tensor.write(dict(zip(self.tensor.weights, rows, strict=True)))
        return np.ascontiguousarray(joined if self.tensor.is_turned else joined.T)

    def from_file(self, array: Any) -> list[Any]:
        """Return what `to_file` was given."""
        arrays = self.tensor.read(array if self.tensor.is_turned else array.T)
        return [np.ascontiguousarray(arrays[name], np.float32) for name in self.tensor.weights]


def write(
    model: LanguageModel, directory: str | os.PathLike[str], *, base_model: str | None = None, overwrite: bool = False
) -> Path:
    """Write the adapters that a model carries as a directory that `peft.PeftModel.from_pretrained` reads.

    Args:
        model: that carries them.
        directory: where; it is made, whole or not at all.
        base_model: the name or path of transformers' model that they belong to, for the reader of the file; None for
            the hub's name that the model was loaded by, if it was.
        overwrite: replace adapters of peft's that lie there.

    Raises:
        TuneArgumentError: the model carries none, or peft can't hold them, or something is in the way.
        LockedError: another process or thread is writing there.
    """
    from safetensors.numpy import save

    config = adapters.current(model)
    if config is None:
        raise TuneArgumentError("This model carries no adapters that a directory of peft's could hold. Fit it first.")
    if config.form != "paper":
        raise TuneArgumentError("peft has no adapters of the form 'keras'. Fit with form='paper', the default.")
    modules = list(_modules(model))
    known = {id(layer) for module in modules for layer in module.layers}
    strange = sorted({layer.name for layer in adapters.carrying(model) if id(layer) not in known})
    if strange:
        raise TuneArgumentError(f"transformers has no module of its own for what was adapted: {', '.join(strange)}.")
    carrying = [module for module in modules if any(map(low_rank.is_on, module.layers))]
    arrays: dict[str, Any] = {}
    for module in carrying:
        arrays |= _written(module, config)
    leaves = {module.name: module.name.rpartition(".")[2] for module in modules}
    others = {leaves[module.name] for module in modules if module not in carrying}
    targets, ranks, alphas = set(), {}, {}
    for module in carrying:
        inner = re.sub(r"^.*?\.\d+\.", "", module.name)
        leaf = leaves[module.name]
        targets.add(inner if leaf in others else leaf)
    for module in carrying:
        count = len(module.layers)
        if count > 1:
            ranks[module.name] = count * config.rank
            alphas[module.name] = config.alpha * (count**0.5 if config.rank_stabilized else count)
    settings = {
        **{"peft_type": "LORA", "task_type": "CAUSAL_LM", "inference_mode": True, "bias": "none"},
        **{"base_model_name_or_path": base_model or _hub_name(model), "r": config.rank, "lora_alpha": config.alpha},
        **{"lora_dropout": 0.0, "use_rslora": config.rank_stabilized, "use_dora": config.use_dora},
        "target_modules": sorted(targets),
        "fan_in_fan_out": not all(module.tensor.is_turned for module in modules),
        "init_lora_weights": True,
        **{"rank_pattern": ranks, "alpha_pattern": alphas},
    }
    target = path_argument(directory, TuneArgumentError, name="directory").resolve()
    _check_target(target, overwrite=overwrite)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with staging.staged(target) as stage:
            _check_target(target, overwrite=overwrite)
            new = stage / target.name
            new.mkdir()
            (new / WEIGHTS_FILE).write_bytes(save(arrays, {"format": "pt"}))
            (new / CONFIG_FILE).write_text(json.dumps(settings, indent=2, allow_nan=False) + "\n", encoding="utf-8")
            staging.place(stage, target)
    except OSError as cause:
        raise TuneArgumentError(f"Adapters can't be written to {str(target)!r}: {cause}.") from cause
    return target


def _written(module: _Module, config: AdapterConfig) -> dict[str, Any]:
    """The tensors of one module, a block for each of its layers; zeros for one that carries no adapter."""
    rank, count = config.rank, len(module.layers)
    firsts, seconds = [], []
    for place, layer in enumerate(module.layers):
        rows, columns = projections.matrix_shape(layer)
        is_on = low_rank.is_on(layer)
        firsts.append(np.asarray(layer.lora_kernel_a).T if is_on else np.zeros((rank, rows), np.float32))
        second = np.zeros((count * rank, columns), np.float32)
        if is_on:
            second[place * rank : (place + 1) * rank] = np.asarray(layer.lora_kernel_b)
        seconds.append(second)
    name = _BEFORE + module.name
    arrays = {name + _A: np.ascontiguousarray(np.concatenate(firsts)), name + _B: module.to_file(seconds)}
    if config.use_dora:
        norms = [_magnitude(layer)[None] for layer in module.layers]
        arrays[name + _MAGNITUDE] = np.ascontiguousarray(module.to_file(norms)[:, 0])
    return arrays


def _magnitude(layer: Any) -> Any:
    if low_rank.is_on(layer):
        return np.asarray(layer.lora_magnitude)
    return np.linalg.norm(np.asarray(low_rank.frozen(layer)), axis=0)


def _modules(model: LanguageModel) -> Iterator[_Module]:
    """The modules of a model's blocks, by the table of its architecture.

    Raises:
        TuneArgumentError: there is no table, or KerasHub's layers lie across transformers' modules.
    """
    config, architecture = described.config_of(model), described.architecture_of(model)
    if config is None or architecture is None:
        raise TuneArgumentError(
            f"Adapters are exchanged with peft for models that kerasgen describes, and this {model.kind} is none."
        )
    blocks = lora_targets.blocks(model)
    for tensor in tensors.tensors(architecture, config, "transformers"):
        parts = [name.split(".") for name in tensor.weights]
        if parts[0][0] != "layers" or parts[0][-1] != "kernel" or len(parts[0]) != 4:
            continue
        layers = tuple(blocks[int(index)].get(role) for _, index, role, _ in parts)
        if any(layer is None or not hasattr(layer, "_kernel") for layer in layers):
            continue
        if len(set(map(id, layers))) != len(layers):
            raise TuneArgumentError(
                f"KerasHub's {model.kind} has one layer for {' and '.join(part[2] for part in parts)}, which this does "
                "not take apart. Save the model merged instead."
            )
        yield _Module(tensor.name.removesuffix(".weight"), tensor, layers)


def _hub_name(model: LanguageModel) -> str | None:
    if model.source == "smollm2":
        return "HuggingFaceTB/SmolLM2-135M-Instruct"
    _, is_there, name = model.source.partition(addresses.HUGGING_FACE)
    return addresses.hub_address(f"{addresses.HUGGING_FACE}{name}").repository if is_there else None


def _check_target(target: Path, *, overwrite: bool) -> None:
    if not presence.exists(target):
        return
    if target.is_dir() and not any(target.iterdir()):
        return
    if not (overwrite and (target / CONFIG_FILE).is_file()):
        raise TuneArgumentError(
            f"{str(target)!r} is there already. "
            + ("It holds no adapters of peft's." if overwrite else "Choose another path, or pass overwrite=True.")
        )


def read(model: LanguageModel, address: str | os.PathLike[str]) -> AdapterConfig:
    """Put the adapters of a directory of peft's on a model; those that it carries already are merged first.

    A base that is held as codes stays so.

    Args:
        model: the one that they belong to, of which peft's file says no more than a name.
        address: a directory, or `hf://organisation/name`.

    Returns:
        Their settings, with which a `LoraTuner` tunes them further.

    Raises:
        ModelFormatError: the files are missing or damaged, don't fit the model, or say what is not computed here.
        ModelUnavailableError: the hub can't be reached or has no such files.
        TuneArgumentError: nothing describes the model.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    where = _place(address)
    try:
        settings = limits.read_json(where / CONFIG_FILE)
        file = load_file(str(where / WEIGHTS_FILE))
    except (OSError, ValueError, SafetensorError) as cause:
        raise ModelFormatError(f"The adapters of peft in {str(where)!r} can't be read: {cause}") from cause
    with _saying(where):
        _check_settings(settings)
        modules = {module.name: module for module in _modules(model)}
        by_module = _by_module(file, modules, dora=bool(settings.get("use_dora")))
        rank, alpha = int(settings["r"]), float(settings["lora_alpha"])
        stabilized, dora = bool(settings.get("use_rslora")), bool(settings.get("use_dora"))
        given: dict[int, dict[str, Any]] = {}
        for name, arrays in by_module.items():
            own_rank = arrays["a"].shape[0]
            own_alpha = float(_patterned(settings.get("alpha_pattern"), name, alpha))
            scale = own_alpha / (own_rank**0.5 if stabilized else own_rank)
            if not np.isclose(scale, alpha / (rank**0.5 if stabilized else rank)):
                raise ValueError(f"{name} is scaled by {scale:g}, and others are not: alpha_pattern is not computed")
            given |= _taken(modules[name], arrays, rank)
    roles = {id(layer): role for block in lora_targets.blocks(model) for role, layer in block.items()}
    targets = tuple(sorted({roles[key] for key in given}))
    config = AdapterConfig(rank, alpha, targets, rank_stabilized=stabilized, use_dora=dora)
    with _saying(where):
        adapters.check(model, config)
        if dora and len(given) < len(
            [None for block in lora_targets.blocks(model) for role in block if role in targets]
        ):
            raise ValueError("some layers have none, which DoRA can't say")
    if adapters.current(model) is not None:
        adapters.merge(model)
    adapters.enable(model, config, seed=0)
    for layer in adapters.carrying(model):
        arrays = given.get(id(layer), {})
        for name, variable in low_rank.thin(layer).items():
            # A layer of which the file says nothing adds nothing, and never will.
            variable.assign(arrays.get(name, np.zeros(variable.shape, np.float32)))
    return config


def tuner_of(tuner: LoraTuner, config: AdapterConfig) -> LoraTuner:
    """Return a tuner that goes on with adapters of these settings, otherwise like the one given."""
    return replace(
        tuner,
        rank=config.rank,
        alpha=config.alpha,
        targets=config.targets,
        form=config.form,
        rank_stabilized=config.rank_stabilized,
        use_dora=config.use_dora,
    )


def _place(address: str | os.PathLike[str]) -> Path:
    if not isinstance(address, str) or not address.startswith(addresses.HUGGING_FACE):
        return path_argument(address, TuneArgumentError)
    from kerasgen.models import hugging_face

    place = addresses.hub_address(address)
    inner = f"{place.path}/" if place.path else ""
    hugging_face.file(place._replace(path=f"{inner}{WEIGHTS_FILE}"))
    return hugging_face.file(place._replace(path=f"{inner}{CONFIG_FILE}")).parent


@contextmanager
def _saying(where: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as cause:
        raise ModelFormatError(f"The adapters of peft in {str(where)!r} can't be put on this model: {cause}") from cause


def _check_settings(settings: Any) -> None:
    if not isinstance(settings, dict) or settings.get("peft_type") != "LORA":
        kind = settings.get("peft_type") if isinstance(settings, dict) else settings
        raise ValueError(f"they are of the kind {kind!r:.80}, and only LORA is read")
    if settings.get("init_lora_weights", True) not in _STARTS:
        raise ValueError(
            f"init_lora_weights={settings['init_lora_weights']!r} changed the base too, which the file does not hold"
        )
    for key, value in settings.items():
        if key in _READ or key in _TOLD or key == "init_lora_weights":
            continue
        if value not in (None, False, "none", [], {}):
            raise ValueError(f"{key}={value!r} is not computed here")


def _patterned(pattern: Mapping[str, Any] | None, name: str, usual: Any) -> Any:
    """What peft's `rank_pattern` or `alpha_pattern` says of a module; it takes the end of a name, or the whole one."""
    for key, value in (pattern or {}).items():
        if re.match(rf"(.*\.)?({key})$", name):
            return value
    return usual


def _by_module(file: Mapping[str, Any], modules: Mapping[str, _Module], *, dora: bool) -> dict[str, dict[str, Any]]:
    """The arrays of each module, `a`, `b` and perhaps `m`; an error for a tensor that belongs to none."""
    endings = {_A: "a", _B: "b", _MAGNITUDE: "m", f"{_MAGNITUDE}.weight": "m"}
    by_name: dict[str, dict[str, Any]] = {}
    for key, array in file.items():
        ending = next((each for each in endings if key.endswith(each)), None)
        name = "" if ending is None else key.removeprefix(_BEFORE).removesuffix(ending)
        if ending is None or name not in modules:
            raise ValueError(f"{key!r} belongs to no projection of a block")
        by_name.setdefault(name, {})[endings[ending]] = np.asarray(array, np.float32)
    wanted = {"a", "b", "m"} if dora else {"a", "b"}
    for name, arrays in by_name.items():
        if set(arrays) != wanted:
            raise ValueError(f"{name} has {', '.join(sorted(arrays))} where {', '.join(sorted(wanted))} are needed")
        tensor, (rank, rows) = modules[name].tensor, arrays["a"].shape
        outputs = sum(shape[-1] for shape in tensor.shapes)
        shapes = {part: array.shape for part, array in arrays.items()}
        fitting = {"a": (rank, tensor.shapes[0][0]), "b": (outputs, rank), "m": (outputs,)}
        if shapes != {part: fitting[part] for part in wanted}:
            raise ValueError(f"{name} has matrices of {shapes}, and the model's kernel is ({rows}, {outputs})")
    if not by_name:
        raise ValueError("it holds no adapter")
    return by_name


def _taken(module: _Module, arrays: Mapping[str, Any], rank: int) -> dict[int, dict[str, Any]]:
    """The adapters of a module's layers, by their identity: shared ones, or those that stand in blocks."""
    first, seconds = arrays["a"], module.from_file(arrays["b"])
    magnitudes = module.from_file(arrays["m"][:, None]) if "m" in arrays else [None] * len(seconds)
    blocks = len(module.layers) if first.shape[0] == rank * len(module.layers) else 1
    if first.shape[0] != rank * blocks:
        raise ValueError(f"{module.name} has rank {first.shape[0]}, and others {rank}: rank_pattern is not computed")
    by_layer: dict[int, dict[str, Any]] = {}
    for place, (layer, second, magnitude) in enumerate(zip(module.layers, seconds, magnitudes, strict=True)):
        start = place * rank if blocks > 1 else 0
        own, rest = second[start : start + rank], np.delete(second, slice(start, start + rank), axis=0)
        if blocks > 1 and rest.any():
            raise ValueError(f"{module.name} has rank {first.shape[0]} for all it holds: rank_pattern is not computed")
        if blocks > 1 and not first[start : start + rank].any():
            continue  # a block of zeros, where only others of the module were adapted
        thin = {"lora_kernel_a": first[start : start + rank].T, "lora_kernel_b": own}
        by_layer[id(layer)] = thin if magnitude is None else {**thin, "lora_magnitude": magnitude[0]}
    return by_layer
