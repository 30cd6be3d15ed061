"""Loads a preset's files as a `LanguageModel`. Imports KerasHub, and turns its errors into kerasgen's."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from kerasgen import backend, keywords, limits, locations
from kerasgen.errors import (
    KerasgenError,
    MissingDependencyError,
    ModelArgumentError,
    ModelFormatError,
    TokenizerError,
)
from kerasgen.files import staging
from kerasgen.files.path_arguments import path_argument
from kerasgen.models import (
    architectures,
    container_files,
    encoders,
    hub_import,
    hugging_face,
    integrity,
    licences,
    masked_loading,
    preset_files,
    preset_names,
    preset_tokenizers,
    transformers_format,
)
from kerasgen.models.addresses import (
    KAGGLE,
    SAVED_MODEL,
    HubAddress,
    check_directory,
    hub_address,
    is_gguf,
    is_hub_address,
    is_path,
)
from kerasgen.models.base import BASE_MODEL, CHAT_TEMPLATE, CONTEXT_LENGTH, SPECIAL_TOKENS, LanguageModel
from kerasgen.models.preprocessing import attach_preprocessor
from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.pretrained import PretrainedTokenizer

# Names of Keras's dtype policies of layers that are quantized begin so.
_QUANTIZED_POLICIES = ("Quantized", "Int4DTypePolicy", "GPTQDTypePolicy", "AWQDTypePolicy")

_INPUTS = {"token_ids", "padding_mask"}
_WEIGHTS = (".safetensors", ".h5")


def load(preset: str) -> LanguageModel:
    """Return the model that `Hub(preset)` stands for; see `Hub.load` for what it raises."""
    if is_hub_address(preset):
        return _load_hugging_face(hub_address(preset))
    keras_hub = _keras_hub()
    built_in = keras_hub.models.Backbone.presets
    if preset in built_in:
        _check_generates(keras_hub, preset)
        return _load_remote(preset, hub="Kaggle")
    if preset.startswith(KAGGLE):
        return _load_remote(preset, hub="Kaggle")
    directory = Path(preset).expanduser()
    if is_path(preset) or directory.exists():
        return load_directory(directory, source=source_text(preset))
    raise preset_names.unknown(preset, frozenset(keras_hub.models.CausalLM.presets))


def load_directory(
    directory: str | os.PathLike[str], *, source: str, metadata: Mapping[str, Any] | None = None
) -> LanguageModel:
    """Return the model whose files lie in `directory`: a KerasHub preset or a transformers-format model.

    Args:
        directory: holds `config.json` and what goes with it.
        source: how to ask for the model again.
        metadata: what else is known about it.

    Raises:
        ModelUnavailableError: there is no such directory.
        ModelFormatError: what is there can't be read as a causal language model.
    """
    directory = path_argument(directory, ModelArgumentError, name="directory")
    with _format_errors(f"the preset {str(directory)!r}"):
        staging.recover(directory.absolute())
    check_directory(directory)
    with _format_errors(f"the preset {str(directory)!r}"):
        preset_files.check(directory)
        config = check_settings(directory)
        is_masked = masked_loading.is_masked(config)
    backend.use()
    known = {**integrity.known(directory), **(metadata or {})}
    if is_masked:
        with _format_errors(f"the model {str(directory)!r}"):
            masked = masked_loading.load(str(directory), config, source=source, metadata=known)
            model = cast(LanguageModel, masked)
    elif container_files.is_ours(config):
        with _format_errors(f"the model {str(directory)!r}"):
            model = container_files.load(directory, config, source=source, metadata=known)
    else:
        model = _assemble(str(directory), config, source=source, metadata=known)
    integrity.check(directory, weights=False)
    return model


def check_settings(directory: Path) -> Any:
    """Return the content of a model's `config.json`, if that of a transformers-format model can be computed.

    Raises:
        ModelFormatError: it can't be read, or has a setting that is unknown or has no counterpart.
    """
    with _format_errors(f"the preset {str(directory)!r}"):
        config = limits.read_json(directory / "config.json")
        if masked_loading.is_masked(config) and "model_type" in config:
            masked_loading.check_config(str(directory), config)
        elif isinstance(config, dict) and "registered_name" not in config and "model_type" in config:
            transformers_format.check_config(str(directory), config)  # before Keras is loaded
    return config


def source_text(preset: str) -> str:
    """Return the text from which `create` makes `Hub(preset)` again."""
    return written("hub", preset=preset)


def written(name: str, **arguments: str) -> str:
    """Return the text from which `create` makes the source of this name with these arguments again."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([f"{key}={value}" for key, value in arguments.items()])
    return f"{name}:{text.getvalue()}"


def _load_hugging_face(address: HubAddress) -> LanguageModel:
    """Return the model of a repository: its own files, or those that `Pipeline.save` wrote there.

    What its `config.json` says is checked before weights are downloaded.
    """
    folder = hugging_face.snapshot(address, (locations.PIPELINE_FILE, locations.CONFIG_FILE, "*/config.json"))
    whole = hugging_face.pinned(address, folder)
    names = hugging_face.names(whole, folder)
    saved = f"{SAVED_MODEL}/{locations.CONFIG_FILE}"
    inner = f"{SAVED_MODEL}/" if locations.PIPELINE_FILE in names and saved in names else ""
    if f"{inner}{locations.CONFIG_FILE}" not in names:
        raise ModelFormatError(_no_model(address, names))
    try:
        check_settings(folder / inner)
        patterns = hugging_face.MODEL_FILES if not inner else (f"{inner}*",)
        hugging_face.snapshot(whole, patterns)
        if not inner and not any(name.startswith("model") and name.endswith(_WEIGHTS) for name in names):
            foreign = [name for name in names if name in transformers_format.FOREIGN_WEIGHTS]
            found = f" Found {', '.join(map(repr, foreign))} instead." if foreign else ""
            raise ModelFormatError(f"The repository {str(address)!r} holds no weights that are read.{found}")
        return load_directory(folder / inner, source=source_text(str(address)), metadata={"hub": hugging_face.HUB})
    except ModelFormatError as cause:
        # What the cache calls the folder says nothing to a reader.
        raise ModelFormatError(str(cause).replace(str(folder), str(address))) from cause


def _no_model(address: HubAddress, names: Sequence[str]) -> str:
    if locations.PIPELINE_FILE in names:
        return (
            f"{str(address)!r} is a saved pipeline of adapters, which belong to another model. Open it with "
            f"Pipeline({str(address)!r}), or with Pipeline(model={str(address)!r})."
        )
    if locations.PEFT_FILE in names:
        return (
            f"{str(address)!r} holds adapters of peft, and no model. Load the model that they belong to, and put them "
            f"on it with Pipeline(…).load_adapter({str(address)!r})."
        )
    files = [f"'{address._replace(path=name)}'" for name in names if is_gguf(name)]
    hint = f" Of its GGUF files name one: {', '.join(files[:3])}." if files else ""
    return f"{str(address)!r} holds no 'config.json', so it is no model that is read.{hint}"


def _load_remote(preset: str, *, hub: str) -> LanguageModel:
    from keras_hub.src.utils.preset_utils import load_json

    # Every remote format has a config.json, so fetching it shows whether the hub can be reached.
    try:
        with hugging_face.quietly():
            config = load_json(preset)
    except json.JSONDecodeError as cause:
        raise ModelFormatError(f"The 'config.json' of {preset!r} on {hub} can't be read: {cause}.") from cause
    except Exception as cause:
        raise hugging_face.unavailable(preset, hub, cause) from None
    try:
        return _assemble(preset, config, source=source_text(preset), metadata={"hub": hub})
    except ModelFormatError as cause:
        if hugging_face.is_network_failure(cause):
            raise hugging_face.unavailable(preset, hub, cause) from None
        raise


def _assemble(preset: str, config: Any, *, source: str, metadata: Mapping[str, Any]) -> LanguageModel:
    """Read backbone and tokenizer of one preset, local or remote, and check that they belong together."""
    from kerasgen.models import transformers_tokenizers

    what = f"the preset {preset!r}"
    if not isinstance(config, dict) or not ("registered_name" in config or "model_type" in config):
        received = ", ".join(map(repr, list(config)[:8])) if isinstance(config, dict) else type(config).__name__
        raise ModelFormatError(
            f"The 'config.json' of {what} is neither KerasHub's (it would have 'registered_name') nor a "
            f"transformers-format one (it would have 'model_type'). Found: {received or 'nothing'}."
        )
    with _format_errors(what):
        if masked_loading.is_masked(config):
            return cast(LanguageModel, masked_loading.load(preset, config, source=source, metadata=metadata))
        if "registered_name" in config:
            causal_lm, container, reason = _from_preset(preset), None, ""
            preset_files.check_all_read(Path(preset), causal_lm.backbone)
            tokenizer = preset_tokenizer(preset, causal_lm)
        else:
            causal_lm, container, reason = _of_transformers(preset, config)
            tokenizer = _transformers_tokenizer(preset, causal_lm, config)
            template = transformers_tokenizers.chat_template(preset)
            if template is not None:
                names = transformers_tokenizers.special_tokens_map(preset)
                metadata = {CHAT_TEMPLATE: template, SPECIAL_TOKENS: names, **metadata}
    about = licences.read(lambda name: _file(preset, name))
    if about and BASE_MODEL not in metadata:
        metadata = {**metadata, BASE_MODEL: about}
    rows = causal_lm.backbone.vocabulary_size if container is None else container.config.vocabulary_size
    if tokenizer.vocabulary_size > rows:
        raise ModelFormatError(
            f"The tokenizer of {what} has {tokenizer.vocabulary_size} ids and its model only {rows}: they don't belong "
            "together."
        )
    length = config.get("max_position_embeddings")
    if isinstance(length, int):  # which a model without a limit of its own keeps nowhere else
        metadata = {CONTEXT_LENGTH: length, **metadata}
    model = LanguageModel(causal_lm, tokenizer, source, metadata, container, reason)
    if causal_lm is not None:
        attach_preprocessor(model)
    return model


def _file(preset: str, name: str) -> Path | None:
    """Return the path of a file of a local or remote preset, or None where it has none."""
    from keras_hub.src.utils.preset_utils import get_file

    return Path(get_file(preset, name)) if transformers_format.has_file(preset, name) else None


def _of_transformers(preset: str, config: Mapping[str, Any]) -> tuple[Any, Any, str]:
    """Return KerasHub's model of a transformers-format model, or a container and why KerasHub can't hold it."""
    network = transformers_format.convert(preset, config)
    if hasattr(network, "backbone"):
        return network, None, ""
    architecture = architectures.named(network.config.architecture)
    assert architecture is not None
    return None, network, architecture.hub_reason(network.config)


def _from_preset(preset: str) -> Any:
    keras_hub = _keras_hub()
    from kerasgen.models import undrawn

    # The preprocessor would bring KerasHub's own tokenizer, whose ids differ from the model's in places.
    # A quantized one says of each layer how it holds its weights, which another dtype would contradict.
    dtype = {} if _is_quantized(preset) else {"dtype": "float32"}
    with undrawn.by_numpy():
        causal_lm = keras_hub.models.CausalLM.from_preset(preset, preprocessor=None, **dtype)
    inputs = set(causal_lm.backbone.input) if isinstance(causal_lm.backbone.input, dict) else set()
    if inputs != _INPUTS:
        raise ModelFormatError(
            f"The preset {preset!r} is a {type(causal_lm.backbone).__name__}, which reads more than one text (its "
            f"inputs: {', '.join(sorted(inputs)) or 'unnamed'}). kerasgen drives decoders that continue a text."
        )
    return causal_lm


def _is_quantized(preset: str) -> bool:
    """Whether a preset's configuration says that a layer is quantized."""
    from keras_hub.src.utils.preset_utils import load_json

    waiting: list[Any] = [load_json(preset)]
    while waiting:
        content = waiting.pop()
        if isinstance(content, dict):
            if str(content.get("class_name")).startswith(_QUANTIZED_POLICIES):
                return True
            waiting += content.values()
        elif isinstance(content, list):
            waiting += content
    return False


def preset_tokenizer(preset: str, causal_lm: Any) -> Tokenizer:
    """Return the exact tokenizer of a KerasHub preset."""
    from keras_hub.src.utils.preset_utils import get_file

    family = architectures.byte_level_tokens(type(causal_lm.backbone).__name__)
    has_settings = transformers_format.has_file(preset, preset_tokenizers.SETTINGS_FILE)
    if has_settings:
        settings = Path(get_file(preset, preset_tokenizers.SETTINGS_FILE))
        for name in preset_tokenizers.PRETRAINED_FILES:
            transformers_format.has_file(preset, name)
        if preset_tokenizers.is_pretrained(settings):
            tokenizer = PretrainedTokenizer.from_directory(settings.parent)
            if transformers_format.has_file(preset, "tokenizer.json"):
                tokenizer.keras_hub_tokenizer = _keras_hub_tokenizer(preset, causal_lm)
            return tokenizer
    if family is None and not has_settings:
        return _adapted_tokenizer(preset, causal_lm)
    # A remote preset's files come one by one, into one folder.
    for name in (*preset_tokenizers.OPTIONAL_FILES, preset_tokenizers.MERGES_FILE):
        transformers_format.has_file(preset, name)
    vocabulary = Path(get_file(preset, preset_tokenizers.VOCABULARY_FILE))
    return preset_tokenizers.byte_level(vocabulary.parents[2], family)


def _transformers_tokenizer(preset: str, causal_lm: Any, config: Mapping[str, Any]) -> Tokenizer:
    """The exact tokenizer of a transformers-format model."""
    from kerasgen.models import transformers_tokenizers

    family = None if causal_lm is None else architectures.byte_level_tokens(type(causal_lm.backbone).__name__)
    return transformers_tokenizers.read(preset, family, config, lambda: _keras_hub_tokenizer(preset, causal_lm))


def _adapted_tokenizer(preset: str, causal_lm: Any) -> Tokenizer:
    from keras_hub.src.utils.preset_utils import get_file

    from kerasgen.models.hub_tokenizer import SETTINGS_FILE, KerasHubTokenizer, TokenizerSettings

    held = transformers_format.has_file(preset, SETTINGS_FILE)
    settings = TokenizerSettings.read(Path(get_file(preset, SETTINGS_FILE))) if held else None
    arguments = {} if settings is None else settings.arguments
    return KerasHubTokenizer(_keras_hub_tokenizer(preset, causal_lm, **arguments), settings)


def _keras_hub_tokenizer(preset: str, causal_lm: Any, **arguments: Any) -> Any:
    from kerasgen.models.hub_tokenizer import left_open_files

    kind = type(causal_lm).preprocessor_cls.tokenizer_cls
    with left_open_files():
        return hub_import.tokenizer_in_python(lambda: kind.from_preset(preset, **arguments))


def _check_generates(keras_hub: Any, preset: str) -> None:
    names = keras_hub.models.CausalLM.presets
    two_sided = keras_hub.models.Seq2SeqLM.presets
    if preset in names and preset not in two_sided:
        return
    if any(preset in getattr(keras_hub.models, task).presets for task in encoders.tasks()):
        return
    near = [name for name in keywords.near(preset, names) if name not in two_sided]
    raise ModelArgumentError(
        f"The KerasHub preset {preset!r} is no decoder that continues a text, and no encoder that fills masks. Choose "
        f"another, such as {' or '.join(map(repr, near or ['gpt2_base_en', 'opt_125m_en']))}."
    )


@contextlib.contextmanager
def _format_errors(what: str) -> Iterator[None]:
    """Turn whatever reading a preset's files raises into an error that names the preset."""
    try:
        yield
    except (ModelFormatError, MissingDependencyError):
        raise
    except TokenizerError as cause:
        raise ModelFormatError(f"The tokenizer of {what} can't be used: {cause}") from cause
    except KerasgenError:
        raise
    except ImportError as cause:
        package = cause.name or hugging_face.first_line(cause)
        raise MissingDependencyError(
            f"Reading {what} needs a package that is not installed: {hugging_face.first_line(cause)}.", package=package
        ) from cause
    except Exception as cause:
        raise ModelFormatError(
            f"The files of {what} can't be read as a causal language model: "
            f"{type(cause).__name__}: {hugging_face.first_line(cause)}"
        ) from cause


def _keras_hub() -> Any:
    return hub_import.load()
