"""Finds out what this machine's processor can do, without importing a backend."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

STATUS = Path("/proc/self/status")
CPU_FLAGS = Path("/proc/cpuinfo")
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
MEMORY = Path("/proc/meminfo")
OWN_GROUPS = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")

WHOLE_FLOAT32 = {"NVIDIA_TF32_OVERRIDE": "0"}
"""The environment of a process in which NVIDIA's libraries don't round the factors of float32's products to 10 bits."""

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


@cache
def cpu_vendor() -> str | None:
    """Return the processor's maker as Linux names it, such as `"AuthenticAMD"`; None where the system does not say."""
    try:
        lines = CPU_FLAGS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), None)


def cpu_has_bfloat16() -> bool:
    """Say whether the processor multiplies bfloat16; one that does not emulates it, slower than float32."""
    return bool(_BFLOAT16 & cpu_flags())


def cpu_has_tiles() -> bool:
    """Say whether the processor multiplies tiles of bfloat16, by Intel's AMX."""
    return "amx_bf16" in cpu_flags()


def cpu_has_avx2() -> bool:
    """Say whether the processor has x86's AVX2 and fused multiply-add."""
    return {"avx2", "fma"} <= cpu_flags()


def nvidia_gpu() -> bool:
    """Say whether an NVIDIA GPU's driver is loaded and the process may see the device."""
    return NVIDIA_DRIVER.exists() and os.environ.get("CUDA_VISIBLE_DEVICES", "all") not in ("", "-1")


def peak_memory_bytes() -> int | None:
    """Return the most memory that this process has held, in bytes, or None where the system doesn't say.

    On Linux it is the kernel's own mark of the process: what `getrusage` tells begins with what the parent held.
    """
    if STATUS.exists():
        marks = [line.split()[1] for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:")]
        if marks:
            return int(marks[0]) * 1024
    if sys.platform == "win32":
        return None
    import resource

    peak = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts kilobytes


def free_memory_bytes() -> int | None:
    """Return what this process may take before others have to give memory up, or None where the system doesn't say.

    That is what the system has available and, in a control group such as a container's, at most what its limit leaves.
    Files that the system keeps in memory count as free.
    """
    try:
        lines = MEMORY.read_text(encoding="utf-8").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
    return min([free, *_left_in_groups()])


def _left_in_groups() -> Iterator[int]:
    """Yield what the limit of each control group leaves that this process is in, in version 2's names and 1's."""
    try:
        lines = OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, kinds, place = line.split(":", 2)
        if not kinds:
            root, names = GROUPS, ("memory.max", "memory.current")
        elif "memory" in kinds.split(","):
            root, names = GROUPS / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        # In a container the place may be told from outside of it, where it can't be seen.
        own = root / place.lstrip("/")
        for folder in {own, *(parent for parent in own.parents if parent.is_relative_to(root))}:
            try:
                limit, used = (int((folder / name).read_text()) for name in names)
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):  # no limit: "max"
                continue
            kept = int(stat.get("active_file", 0)) + int(stat.get("inactive_file", 0))
            yield max(limit - max(used - kept, 0), 0)
