"""Chooses the dtype policy in which a device computes fast. Imports the running backend: import it late."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

import keras

from kerasgen import devices
from kerasgen.models.base import Precision

AMPERE = (8, 0)  # the first NVIDIA generation that multiplies bfloat16


def resolve(precision: Precision | Literal["auto"]) -> tuple[Precision, str]:
    """Return the dtype policy that `precision` stands for, and why.

    Args:
        precision: a dtype policy, which is returned as it is, or `"auto"`: `"mixed_bfloat16"` where the backend is
            faster in it than in float32 on its device, and `"float32"` elsewhere.
    """
    if precision != "auto":
        return precision, "asked for"
    capability = _gpu_capability()
    if capability is not None:
        name = f"a GPU of compute capability {capability[0]}.{capability[1]}"
        if capability >= AMPERE:
            return "mixed_bfloat16", f"{name} multiplies bfloat16"
        return "float32", f"{name} does not multiply bfloat16"
    if not devices.cpu_has_bfloat16():
        return "float32", "the processor has no instructions for bfloat16"
    # With AVX-512's instructions (a Zen 5, 4 layers of 256) JAX trained 0.84 times as many tokens a second in bfloat16
    # as in float32, and TensorFlow, whose products are oneDNN's, 1.37 times as many. XLA knows AMX.
    if keras.config.backend() == "jax" and not devices.cpu_has_tiles():
        return "float32", "JAX is no faster in bfloat16 on a processor without AMX"
    return "mixed_bfloat16", "the processor has instructions for bfloat16"


@contextmanager
def whole_float32() -> Iterator[None]:
    """Let float32 products be of float32's factors meanwhile, on any device, whichever engine computes them.

    An accelerator rounds the factors unless it is told not to, a GPU to TF32's 10 bits and a TPU to bfloat16's 7. Two
    tokens that are nearly as likely may change places by that, so a proof of equal ids must not have it.
    """
    import jax

    with ExitStack() as stack:
        if jax.default_backend() != "cpu":  # there it is so anyway, and what was compiled is used again
            stack.enter_context(jax.default_matmul_precision("highest"))
        if keras.config.backend() == "tensorflow":
            from kerasgen.models import kernels_tensorflow

            stack.enter_context(kernels_tensorflow.without_tf32())
        yield


def multiplies_bfloat16() -> bool:
    """Say whether JAX, which decodes, has an accelerator here that multiplies bfloat16."""
    import jax

    if jax.default_backend() == "cpu":
        return False
    capability = _capability_of_jax()
    return capability is None or capability >= AMPERE  # a TPU does


def _gpu_capability() -> tuple[int, int] | None:
    """Return the compute capability of the backend's first GPU, or None without one."""
    if keras.config.backend() == "jax":
        return _capability_of_jax()
    if keras.config.backend() == "tensorflow":
        from kerasgen.models import kernels_tensorflow

        return kernels_tensorflow.gpu_capability()
    return None


def _capability_of_jax() -> tuple[int, int] | None:
    import jax

    device = jax.local_devices()[0]
    if device.platform != "gpu":
        return None
    major, _, minor = str(device.compute_capability).partition(".")
    return int(major), int(minor or 0)
