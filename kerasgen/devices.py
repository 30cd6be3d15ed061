"""What the processor at hand can do, found out without importing a backend."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

CPU_FLAGS = Path("/proc/cpuinfo")
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")

# What x86 and ARM call their instructions for bfloat16.
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}


@cache
def cpu_flags() -> frozenset[str]:
    """Return the processor's features as Linux names them; empty where the system does not say."""
    try:
        lines = CPU_FLAGS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip().lower() in ("flags", "features"):
            return frozenset(value.split())
    return frozenset()


def cpu_has_bfloat16() -> bool:
    """Say whether the processor multiplies bfloat16; one that does not emulates it, slower than float32."""
    return bool(_BFLOAT16 & cpu_flags())


def cpu_has_avx2() -> bool:
    """Say whether the processor has x86's AVX2 and fused multiply-add."""
    return {"avx2", "fma"} <= cpu_flags()


def nvidia_gpu() -> bool:
    """Say whether an NVIDIA GPU's driver is loaded and the process may see the device."""
    return NVIDIA_DRIVER.exists() and os.environ.get("CUDA_VISIBLE_DEVICES", "all") not in ("", "-1")
