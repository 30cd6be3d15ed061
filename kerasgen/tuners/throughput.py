"""Measures how fast a run is, against what the device can do. Imports Keras: import it late."""

from __future__ import annotations

import time
from functools import cache
from math import prod
from typing import Any

import keras
import numpy as np
from keras import ops

from kerasgen import devices
from kerasgen.encoder.config import EncoderConfig
from kerasgen.models.base import LanguageModel, MaskedLanguageModel

_SIDE_CPU, _SIDE_GPU = 1024, 8192
_REPEATS = 3


@cache
def matrix_product_flops(precision: str) -> float:
    """Return the FLOP/s of one large matrix product on the running backend, measured once a process.

    Args:
        precision: a dtype policy; the product is in its compute type.
    """
    dtype = keras.dtype_policies.DTypePolicy(precision).compute_dtype
    side = _SIDE_GPU if on_gpu() else _SIDE_CPU
    matrix = ops.cast(ops.convert_to_tensor(np.full((side, side), 1 / side, np.float32)), dtype)
    multiply = _compiled()
    _wait(multiply(matrix))
    seconds = []
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        _wait(multiply(matrix))
        seconds.append(time.perf_counter() - begin)
    return 2.0 * side**3 / float(np.median(seconds))


def training_flops(model: LanguageModel, sequence_length: int) -> float:
    """Return the floating-point operations that training on one token takes, forward and backward.

    Two for each weight of a matrix product forward, two for the gradient of what enters it, and two for its own
    gradient where it is trained; attention over `sequence_length` positions on top.

    Source: Chowdhery et al. 2022 (arXiv 2204.02311), appendix B, which counts frozen weights as trained.
    """
    if isinstance(model, MaskedLanguageModel):
        return _masked_flops(model.network.config, sequence_length)
    holder = model.network if model.causal_lm is None else model.backbone
    per_token: float = 0.0
    for layer in holder._flatten_layers(include_self=False):
        for variable in layer.weights if not layer._layers else ():
            if variable.path.endswith("kernel_codes"):
                per_token += 4 * prod(layer.quantized_shape)
            elif _is_multiplied(variable):
                per_token += prod(variable.shape) * (6 if variable.trainable else 4)
    if model.causal_lm is None:
        config, embedding = model.container.config, model.container.decoder.parts["embedding"]["tokens"]
        layers, width = config.num_layers, config.attention.query_dim
        embedding = embedding if config.tied_head else None  # an untied head is a kernel, which was counted
    else:
        embedding = getattr(holder, "token_embedding", None)
        layers, width = getattr(holder, "num_layers", 0), getattr(holder, "hidden_dim", 0)
    if embedding is not None:
        table = embedding.input_dim * embedding.output_dim
        per_token += table * (6 if embedding.trainable_variables else 4)
    return float(per_token + 12.0 * layers * width * sequence_length)


def _masked_flops(config: EncoderConfig, sequence_length: int) -> float:
    """The same of an encoder all of whose weights are trained; the table makes logits of masked tokens alone."""
    block = 4 * config.hidden_dim**2 + 2 * config.hidden_dim * config.intermediate_dim
    kernels = config.num_layers * block + config.hidden_dim * config.embedding_dim
    return 6.0 * kernels + 12.0 * config.num_layers * config.hidden_dim * sequence_length


def _is_multiplied(variable: Any) -> bool:
    """Whether a variable is a kernel; KerasHub's of all experts are called otherwise, and each token meets them all."""
    return variable.path.endswith("kernel") or "lora_kernel" in variable.path or len(variable.shape) == 3


def peak_memory_bytes() -> int:
    """Return the most memory that the process has held: the GPU's where the backend says so, else the machine's."""
    if keras.config.backend() == "jax":
        import jax

        stats = jax.local_devices()[0].memory_stats() or {}  # another process's device tells us nothing
        if "peak_bytes_in_use" in stats:
            return int(stats["peak_bytes_in_use"])
    return devices.peak_memory_bytes() or 0


def on_accelerator() -> bool:
    """Say whether the running backend computes apart from this process's processor, as on a GPU or a TPU."""
    if keras.config.backend() == "jax":
        import jax

        return bool(jax.default_backend() != "cpu")
    return on_gpu()


def on_gpu() -> bool:
    """Say whether the running backend computes on a GPU."""
    if keras.config.backend() == "jax":
        import jax

        return bool(jax.default_backend() == "gpu")
    if keras.config.backend() == "tensorflow":
        from kerasgen.models import kernels_tensorflow

        return kernels_tensorflow.gpu_capability() is not None
    return False


def _compiled() -> Any:
    if keras.config.backend() == "jax":
        import jax

        return jax.jit(lambda matrix: matrix @ matrix)
    return lambda matrix: ops.matmul(matrix, matrix)


def _wait(array: Any) -> None:
    if hasattr(array, "block_until_ready"):
        array.block_until_ready()
    else:
        keras.ops.convert_to_numpy(array[:1, :1])
