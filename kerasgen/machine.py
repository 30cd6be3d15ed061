"""Describes the machine and the versions that computed something, for the reader of a report. Imports nothing heavy."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from kerasgen.devices import CPU_FLAGS

_PACKAGES: Final = ("kerasgen", "keras", "keras-hub", "numpy")
_OF_BACKEND: Final = {"jax": ("jax", "jaxlib"), "tensorflow": ("tensorflow",), "torch": ("torch",)}
_MEMORY: Final = Path("/proc/meminfo")


def described(backend: str) -> dict[str, Any]:
    """Return versions, processor, memory and the backend's devices, as JSON can hold them; nothing is imported for it.

    Args:
        backend: what Keras runs on; its devices are told where it is imported already.
    """
    packages = {name: _version(name) for name in (*_PACKAGES, *_OF_BACKEND.get(backend, ()))}
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}".strip(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "devices": _devices(backend),
        "packages": {name: version for name, version in packages.items() if version is not None},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str | None:
    """Return the processor's name as Linux tells it, or what Python knows."""
    try:
        lines = CPU_FLAGS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return next(filter(None, names), None) or platform.processor() or None


def _memory_bytes() -> int | None:
    try:
        lines = _MEMORY.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:")), None)


def _devices(backend: str) -> list[str]:
    """Return the names of the devices that the backend sees; empty where it is not imported."""
    module = sys.modules.get(backend)
    if module is None:
        return []
    if backend == "jax":
        kinds = [device.device_kind for device in module.devices()]
    elif backend == "tensorflow":
        kinds = [device.device_type for device in module.config.list_physical_devices()]
    else:
        cuda = module.cuda
        kinds = [cuda.get_device_name(n) for n in range(cuda.device_count())] if cuda.is_available() else ["cpu"]
    counted = {kind: kinds.count(kind) for kind in kinds}
    return [kind if count == 1 else f"{count} × {kind}" for kind, count in counted.items()]
