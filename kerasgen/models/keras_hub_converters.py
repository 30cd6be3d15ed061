"""A transformers-format model goes through KerasHub's converter, which reads each tensor exactly, and none is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kerasgen.errors import ModelFormatError
from kerasgen.models.transformers_tensors import Tensors

# Computed by a formula, or kept for shape's sake, in older files.
_COMPUTED = (r"(model\.)?layers\.\d+\.self_attn\.rotary_emb\.inv_freq", r"(model\.)?rotary_emb\.inv_freq")


def convert(preset: str, config: Mapping[str, Any]) -> Any:
    """Return the `keras_hub.models.CausalLM` of a transformers-format model.

    Args:
        preset: a directory or hub address that holds safetensors.
        config: as `transformers_settings.settings` returns it.

    Raises:
        ModelFormatError: a tensor is missing, has another shape than `config` says, or is one that KerasHub's converter
            doesn't read.
    """
    import keras_hub
    from keras_hub.src.utils.preset_utils import find_subclass
    from keras_hub.src.utils.transformers.preset_loader import TransformersPresetLoader

    loader = TransformersPresetLoader(preset, dict(config))
    arguments = dict(loader.converter.convert_backbone_config(dict(config)))
    # The converters of Llama and Gemma leave out the epsilon, which their layers know.
    arguments["layer_norm_epsilon"] = float(config["rms_norm_eps"])
    kind = loader.check_backbone_class()
    with Tensors(preset) as tensors:
        backbone = kind(**arguments, dtype="float32")
        source = _Source(tensors)
        loader.converter.convert_weights(backbone, source, dict(config))
        if config["tie_word_embeddings"] and "lm_head.weight" in tensors:
            tensors.check_tied("lm_head.weight", source.float32(source.name_of("model.embed_tokens.weight")))
        tensors.check_all_read(besides=_COMPUTED)
    return find_subclass(preset, keras_hub.models.CausalLM, kind)(backbone=backbone, preprocessor=None)


class _Exact(np.ndarray[Any, Any]):
    """A tensor that stays float32 where a converter would round it to float16, as Mistral's does."""

    def astype(self, dtype: Any, *arguments: Any, **settings: Any) -> Any:
        return self if np.dtype(dtype) == np.float16 else super().astype(dtype, *arguments, **settings)


class _Source:
    """Gives tensors to KerasHub's converters, with the methods of KerasHub's `SafetensorLoader`."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors

    def name_of(self, key: str) -> str:
        """The name that the file has for a key: `LlamaModel` writes no `model.`, `LlamaForCausalLM` does."""
        names = (key, f"model.{key}", key.removeprefix("model."))
        return next((name for name in names if name in self._tensors), key)

    def float32(self, name: str) -> Any:
        return np.asarray(self._tensors.get(name), np.float32)

    def get_tensor(self, hf_weight_key: str) -> Any:
        return self.float32(self.name_of(hf_weight_key)).view(_Exact)

    def port_weight(
        self, keras_variable: Any, hf_weight_key: str, hook_fn: Callable[[Any, list[int]], Any] | None = None
    ) -> None:
        tensor, shape = self.get_tensor(hf_weight_key), tuple(keras_variable.shape)
        try:
            value = np.asarray(hook_fn(tensor, list(shape)) if hook_fn else tensor)
        except ValueError as cause:
            raise self._misshapen(hf_weight_key, tensor, shape) from cause
        if value.shape != shape:
            raise self._misshapen(hf_weight_key, tensor, shape)
        keras_variable.assign(value)

    def _misshapen(self, key: str, tensor: Any, shape: tuple[int, ...]) -> ModelFormatError:
        return ModelFormatError(
            f"The tensor {self.name_of(key)!r} has the shape {tuple(tensor.shape)}, from which {shape}, which the "
            "model's 'config.json' asks for, can't be made."
        )
