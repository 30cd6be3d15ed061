"""Adds low-rank adapters beside a model's frozen weights, merges them, saves and loads them. Works on a built model."""

from __future__ import annotations

import hashlib
import json
import warnings
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from kerasgen import limits
from kerasgen.errors import KerasgenWarning, ModelFormatError, TuneArgumentError
from kerasgen.files import atomic
from kerasgen.models import forward, low_rank, projections, quantized_base
from kerasgen.models.base import LanguageModel, quantization_modes
from kerasgen.models.quantized_base import Scheme
from kerasgen.tuners import lora_targets

WEIGHTS_FILE = "adapter.safetensors"
CONFIG_FILE = "adapter.json"
Form: TypeAlias = Literal["paper", "keras"]
_LATER = {"use_dora": False, "quantize": None}  # settings that a file lacks where they are these


@dataclass(frozen=True)
class AdapterConfig:
    """Which layers get an adapter, and its size.

    Args:
        rank: columns of the thin matrices.
        alpha: their product is scaled by `alpha / rank`.
        targets: roles or names of layers, or `attention`, `mlp` or `all` for several roles; None for queries and
            values, or of an architecture without a table for what KerasHub names for it.
        form: `"paper"` has one pair of matrices for a projection; `"keras"` is that of `EinsumDense.enable_lora`, whose
            second matrix the heads share.
        rank_stabilized: whether the product is scaled by `alpha / rank ** 0.5`, in the paper's form.
        use_dora: whether each output's magnitude is learned beside (DoRA), in the paper's form.
        quantize: in what the frozen base is held, `"int8"` or `"int4"`, or None for what it is in.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...] | None
    form: Form = "paper"
    rank_stabilized: bool = False
    use_dora: bool = False
    quantize: Scheme | None = None


def check(model: LanguageModel, config: AdapterConfig) -> None:
    """Say whether the model can carry these adapters, and change nothing.

    Raises:
        TuneArgumentError: no layer has a target's name, or the rank is larger than a kernel's smaller side.
    """
    layers, roles = lora_targets.layers(model, config.targets), lora_targets.roles(model)
    asked = set(lora_targets.resolved(model, config.targets)) if config.targets else set()
    if asked & set(lora_targets.MLP) & set(lora_targets.of_experts(model)):
        raise TuneArgumentError(
            "The feed-forward parts of this model are mixtures of experts, whose kernels take no adapters. Received: "
            f"targets={config.targets}. Adapt its attention, targets=('attention',), or use the `full` tuner."
        )
    names = {layer.name for layer in layers} | {roles[id(layer)] for layer in layers if id(layer) in roles}
    groups = {group for group, members in lora_targets.GROUPS.items() if names & set(members)}
    missing = set(config.targets or ()) - names - groups
    if not layers or missing:
        wanted = ", ".join(map(repr, sorted(missing or set(lora_targets.resolved(model, config.targets)))))
        dense = [layer for layer in lora_targets.all_layers(model) if lora_targets.takes_adapter(layer)]
        own = (
            {layer.name for layer in dense} if getattr(model, "causal_lm", None) is not None else set()
        )  # a container's are roles'
        known = sorted(
            own
            | {roles[id(layer)] for layer in dense if id(layer) in roles}
            | (set(lora_targets.GROUPS) if roles else own)
        )
        raise TuneArgumentError(
            f"No dense layer of this model is called {wanted}. LoRA `targets` can be: {', '.join(known)}."
        )
    if config.form == "paper":
        smaller = min(map(low_rank.smaller_side, layers))
    else:
        shapes = [projections.shape(layer) for layer in layers]
        smaller = min(min(prod(shape[:-1]), shape[-1]) for shape in shapes)
    if config.rank > smaller:
        raise TuneArgumentError(
            f"LoRA `rank` must be between 1 and the kernel's smaller side ({smaller}). "
            f"Received: rank={config.rank}. Lower it, or use the `full` tuner."
        )


def enable(model: LanguageModel, config: AdapterConfig, *, seed: int, trains_tokens: bool = False) -> None:
    """Freeze the model and put an adapter on each target, unless it carries such adapters already, in either form.

    The first thin matrix is drawn from the seed, the second is zero: the model computes what it did before, but for
    what a base loses that is held in int8 or int4 from now on.

    Args:
        model: to put them on.
        config: which, and where.
        seed: of the first matrices.
        trains_tokens: whether the table of token embeddings is tuned too, so that it stays floats.

    Raises:
        TuneArgumentError: as `check`.
    """
    check(model, config)
    carried = current(model)
    if carried is None or _differ(carried, _resolved(model, config)):
        if carried is not None:
            merge(model)
        if config.form == "keras":
            widen(model)  # for Keras's form needs floats
        hold(model, config.quantize, trains_tokens=trains_tokens)
        targets = lora_targets.layers(model, config.targets)
        for index, layer in enumerate(targets):
            if config.form == "paper":
                low_rank.enable(
                    layer,
                    config.rank,
                    config.alpha,
                    rank_stabilized=config.rank_stabilized,
                    use_dora=config.use_dora,
                )
            else:
                layer.enable_lora(config.rank, lora_alpha=config.alpha)
            shape = layer.lora_kernel_a.shape
            # Keras draws the first matrix from a global seed; here the run's seed decides, as in He et al. 2015.
            bound = np.sqrt(6.0 / prod(shape[:-1]))
            drawn = np.random.default_rng([seed, index]).uniform(-bound, bound, size=shape)
            layer.lora_kernel_a.assign(drawn.astype(np.float32))
    freeze(model)


def _differ(carried: AdapterConfig, wanted: AdapterConfig) -> bool:
    """Whether adapters that a model carries are others than those that are wanted, whatever their form."""
    same_base = wanted.quantize is None or wanted.quantize == carried.quantize
    return not same_base or replace(carried, form=wanted.form, quantize=wanted.quantize) != wanted


def hold(model: LanguageModel, scheme: Scheme | None, *, trains_tokens: bool = False) -> None:
    """Hold the frozen base in int8 or int4, one weight after another; nothing happens for None.

    A base that is held in another scheme has the numbers of that one rounded again. Adapters are merged first.

    Args:
        model: whose layers hold codes from now on.
        scheme: which.
        trains_tokens: whether the table of token embeddings stays floats.

    Raises:
        TuneArgumentError: KerasHub has quantized the model, or nothing describes it.
    """
    present = quantized_base.scheme_of(model.network)
    decoder = forward.decoder_of(model)
    if trains_tokens and present is not None:
        assert decoder is not None
        _release([decoder.parts["embedding"]["tokens"]])
    if scheme is None or present == scheme:
        return
    check_base(model, scheme)
    if current(model) is not None:
        merge(model)
    quantized_base.hold(quantized_base.targets(decoder, tokens=not trains_tokens), scheme)
    if hasattr(model.network, "generate_function"):
        model.network.generate_function = None  # it was compiled with other variables


def check_base(model: LanguageModel, scheme: Scheme | None) -> None:
    """Say whether a model's base can be held in int8 or int4, and change nothing.

    Raises:
        TuneArgumentError: KerasHub has quantized the model, or nothing describes it.
    """
    if scheme is None:
        return
    modes = quantization_modes(model.network)
    if modes:
        raise TuneArgumentError(
            f"The model is quantized by Keras ({', '.join(modes)}), which rounds what enters a layer too. Load it anew "
            f"and leave out causal_lm.quantize(…): quantize={scheme!r} holds its weights so that adapters learn."
        )
    if forward.decoder_of(model) is None:
        raise TuneArgumentError(
            f"quantize={scheme!r} is for models that kerasgen describes, and this {model.kind} is none. Leave it out, "
            "or name another model."
        )


def held(model: LanguageModel) -> dict[str, str]:
    """Return what a report says of a base that is not held as float32: empty for one that is."""
    scheme = quantized_base.scheme_of(model.network)
    if scheme is None:
        return {}
    bytes_of = {"int8": 1, "uint8": 1, "float16": 2, "bfloat16": 2}
    sizes = ((prod(each.shape), bytes_of.get(each.dtype, 4)) for each in model.network.weights)
    stored, floats = sum(map(prod, sizes)), 4 * quantized_base.count_params(model.network)
    is_half = scheme == quantized_base.HALF
    asked = "the pipeline's weights=" if is_half else "the tuner's quantize="
    merged = (
        "those with an adapter become float32"
        if is_half
        else "a weight is what its code stands for and what the adapters add"
    )
    return {
        "base": f"{asked} asks for it: {stored / 2**20:,.1f} MiB with the adapters, and {floats / 2**20:,.1f} MiB in "
        f"float32; merged, {merged}"
    }


def _thaw(model: LanguageModel) -> None:
    """Let every weight be trainable, one layer after another.

    On TensorFlow a layer that is told its own value again does not tell the layers within it, nor its variables.
    """
    for layer in (model.network, *lora_targets.all_layers(model)):
        layer.trainable = True
        for variable in layer._trainable_variables:
            variable.trainable = True


def freeze(model: LanguageModel) -> None:
    """Let only the adapters be trainable."""
    adapted = {id(layer) for layer in carrying(model)}
    _thaw(model)
    for layer in lora_targets.all_layers(model):
        if not layer._layers:
            layer.trainable = id(layer) in adapted
    for holder in (model.network, *lora_targets.all_layers(model)):  # of variables beside layers, such as sinks
        for variable in holder._trainable_variables if holder._layers else ():
            variable.trainable = False
    for layer in carrying(model):
        if layer._kernel is not None:
            layer._kernel.trainable = False
        if getattr(layer, "bias", None) is not None:
            layer.bias.trainable = False


def train_token_table(model: LanguageModel) -> None:
    """Let the table of token embeddings be trainable beside the adapters; the optimizer knows which of its rows."""
    if model.causal_lm is None:
        model.container.decoder.parts["embedding"]["tokens"].trainable = True
    else:
        model.backbone.token_embedding.trainable = True


def merge(model: LanguageModel) -> None:
    """Add each adapter into the weight beside it and take it off; a base held as codes becomes floats again.

    Where there is neither, nothing happens. A float that was a code is the one that the code stands for. Of a base in
    bfloat16, the weights that had an adapter become float32, so that nothing learned is rounded away; the others stay.

    Raises:
        TuneArgumentError: the weights beside them are quantized by Keras.
    """
    modes = quantization_modes(model.network) if carrying(model) else []
    if modes:
        raise TuneArgumentError(
            f"The adapters stand beside weights that are quantized ({', '.join(modes)}), into which they can't be "
            "added. Merge them before causal_lm.quantize(…)."
        )
    if not carrying(model) and quantized_base.scheme_of(model.network) is None:
        return
    for layer in carrying(model):
        merged = np.asarray(layer.kernel)
        thin = list(low_rank.thin(layer).values())
        layer.lora_enabled = False
        layer.lora_rank = None
        layer._tracker.unlock()
        for variable in thin:
            layer._untrack_variable(variable)
        layer.lora_kernel_a = layer.lora_kernel_b = None
        layer.__dict__.pop("lora_magnitude", None)
        low_rank.forget(layer)
        layer._tracker.lock()
        if quantized_base.is_on(layer):
            quantized_base.release(layer, merged)
        else:
            layer._kernel.assign(merged)
    _release(layer for layer in lora_targets.all_layers(model) if not quantized_base.is_half(layer))
    _thaw(model)


def widen(model: LanguageModel) -> None:
    """Merge the model's adapters, and let every weight be float32, those that were held in bfloat16 too.

    Raises:
        TuneArgumentError: as `merge`.
    """
    merge(model)
    _release(lora_targets.all_layers(model))
    _thaw(model)


def _release(layers: Iterable[Any]) -> None:
    for layer in layers:
        if quantized_base.is_on(layer):
            quantized_base.release(layer)


def current(model: LanguageModel) -> AdapterConfig | None:
    """Return the adapters that the model carries, or None."""
    layers = carrying(model)
    if not layers:
        return None
    scale = layers[0].lora_alpha / layers[0].lora_rank
    return AdapterConfig(
        rank=layers[0].lora_rank,
        alpha=float(layers[0].lora_alpha),
        targets=tuple(sorted({layer.name for layer in layers})),
        form="paper" if low_rank.is_on(layers[0]) else "keras",
        rank_stabilized=low_rank.is_on(layers[0]) and layers[0].lora_scale != scale,
        use_dora=low_rank.is_on(layers[0]) and layers[0].lora_magnitude is not None,
        quantize=quantized_base.scheme_of(model.network),
    )


def digest_of_others(model: LanguageModel) -> str:
    """Return a digest of all weights but the adapters': while it is equal, saving the adapters is enough.

    Of weights that lie on several processes, all of them must ask, unless they did before of the same weights.
    """
    of_adapters = {id(variable) for _, variable in thin(model)}
    others = [
        variable
        for variable in model.network.weights
        if id(variable) not in of_adapters and not variable.path.endswith("seed_generator_state")
    ]
    from kerasgen.tuners import sharding

    if not sharding.is_spread(model):
        return _digest(np.asarray(variable) for variable in others)
    values = [weakref.ref(variable.value) for variable in others]
    known = _DIGESTS.get(model.network)
    if known is None or known[0] != values:
        known = _DIGESTS[model.network] = values, _digest(map(sharding.gathered, others))
    return known[1]


_DIGESTS: weakref.WeakKeyDictionary[Any, tuple[list[Any], str]] = weakref.WeakKeyDictionary()
"""Of models whose weights lie on several processes: the values that were digested last, and their digest."""


def _digest(arrays: Iterable[Any]) -> str:
    digest = hashlib.blake2b()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def save(model: LanguageModel, directory: Path) -> None:
    """Write the adapters alone into an existing directory, as safetensors and a JSON of their settings.

    The JSON holds a digest of the weights beside them and of the tokenizer, by which `load` knows the model again.

    Raises:
        TuneArgumentError: the model carries none.
    """
    from safetensors.numpy import save

    config = current(model)
    if config is None:
        raise TuneArgumentError("This model carries no adapters. Save the whole model instead.")
    tensors = {key: np.asarray(variable) for key, variable in thin(model)}
    base = {"weights": digest_of_others(model), "tokenizer": model.tokenizer.digest()}
    settings = {name: value for name, value in asdict(config).items() if value != _LATER.get(name, "a setting")}
    settings |= {"base": base}
    atomic.write(directory / WEIGHTS_FILE, save(tensors))  # safetensors' own writer has errors of its own
    atomic.write(directory / CONFIG_FILE, json.dumps(settings, indent=2, allow_nan=False) + "\n")


def load(model: LanguageModel, directory: Path) -> None:
    """Put the saved adapters on the model.

    Raises:
        ModelFormatError: the files are missing or damaged, or belong to a model of another shape or other weights.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        saved = limits.read_json(directory / CONFIG_FILE)
        tensors = load_file(str(directory / WEIGHTS_FILE))
        targets = None if saved["targets"] is None else tuple(saved["targets"])
        stabilized = bool(saved.get("rank_stabilized", False))
        form = saved.get("form", "keras")  # which those of kerasgen 0.1 don't say
        if form not in get_args(Form):
            raise ValueError(f"their form is {form!r}")
        later = {name: saved.get(name, value) for name, value in _LATER.items()}
        if later["quantize"] not in (None, *quantized_base.SCHEMES):
            raise ValueError(f"their base is held in {later['quantize']!r}")
        config = AdapterConfig(saved["rank"], saved["alpha"], targets, form, stabilized, **later)
        base = dict(saved.get("base", {}))  # adapters of kerasgen 0.1 don't say
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as cause:
        raise ModelFormatError(f"The adapters in {directory} can't be read: {cause}") from cause
    try:
        enable(model, config, seed=0)
    except TuneArgumentError as cause:
        raise ModelFormatError(f"The adapters in {directory} don't fit this model: {cause}") from cause
    variables = dict(thin(model))
    shapes = {key: tuple(variable.shape) for key, variable in variables.items()}
    if shapes != {key: tensor.shape for key, tensor in tensors.items()}:
        raise ModelFormatError(f"The adapters in {directory} belong to a model of another shape.")
    present = {"weights": digest_of_others(model), "tokenizer": model.tokenizer.digest()}
    changed = [part for part in base if base[part] != present.get(part)]
    if changed:
        merge(model)  # they are zero still
        raise ModelFormatError(
            f"The adapters in {directory} belong to another model than {model.source!r} is now: its "
            f"{' and '.join(changed)} differ from what they were tuned on, so its texts would be others. Put the model "
            "of then back where it was, or tune the adapters anew."
        )
    if not base:
        warnings.warn(
            KerasgenWarning(
                f"The adapters in {directory} don't say which weights they were tuned on, so that another model in the "
                "place of theirs would go unnoticed. Compare a text with one of then, and save the pipeline again."
            ),
            stacklevel=2,
        )
    for key, variable in variables.items():
        variable.assign(tensors[key])


def _resolved(model: LanguageModel, config: AdapterConfig) -> AdapterConfig:
    names = tuple(sorted({layer.name for layer in lora_targets.layers(model, config.targets)}))
    return replace(config, alpha=float(config.alpha), targets=names)


def carrying(model: LanguageModel) -> list[Any]:
    """Return the layers that carry an adapter, in either form."""
    return [layer for layer in lora_targets.all_layers(model) if getattr(layer, "lora_enabled", False)]


def thin(model: LanguageModel) -> Iterator[tuple[str, Any]]:
    """Yield the adapters' variables, numbered by their place, because names of layers repeat."""
    for index, layer in enumerate(carrying(model)):
        for name, variable in low_rank.thin(layer).items():
            yield f"{index:04d}.{layer.name}.{name}", variable
