"""Describes the machine and the software of this process, as far as losses may depend on them. Imports no backend."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib import metadata
from typing import Any, Final

from kerasgen import devices
from kerasgen import machine as machines

PACKAGES: Final = ("kerasgen", "keras", "keras-hub", "numpy", "tokenizers")
BACKEND_PACKAGES: Final = {"jax": ("jax", "jaxlib"), "tensorflow": ("tensorflow",), "torch": ("torch",)}
_INSTRUCTIONS: Final = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "bf16", "sve")
_VARIABLES: Final = (
    "XLA_FLAGS",
    "TF_ENABLE_ONEDNN_OPTS",
    "OMP_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "NVIDIA_TF32_OVERRIDE",
    "CUDA_VISIBLE_DEVICES",
    "JAX_ENABLE_X64",
)


def versions(backend: str, further: Iterable[str] = ()) -> dict[str, str]:
    """Return the versions of the packages that a run's numbers may depend on.

    Args:
        backend: which of Keras's computes.
        further: packages besides, such as those of plugins.
    """
    found = {"python": platform.python_version()}
    for name in dict.fromkeys([*PACKAGES, *BACKEND_PACKAGES.get(backend, ()), *further]):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Return the processor with its instructions, the cores that the process may use, and the memory in bytes."""
    described = machines.described("")
    return {name: described[name] for name in ("processor", "cores", "system", "memory_bytes")} | {
        "instructions": [name for name in _INSTRUCTIONS if name in devices.cpu_flags()]
    }


def environment() -> dict[str, str]:
    """Return the environment variables that change how a backend computes, as far as they are set."""
    return {name: os.environ[name] for name in _VARIABLES if os.environ.get(name)}
