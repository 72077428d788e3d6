"""The machine and the libraries that computed a run."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from budwood.runs.run_record import HardwareRecord

RECORDED: Final = ("torch", "torchvision", "timm", "onnxruntime", "numpy", "pillow", "safetensors")


def library_versions() -> dict[str, str]:
    """Look up the versions of Budwood, Python and the libraries that compute a run.

    Returns:
        Version by name of package; `not installed` for a package that is missing.
    """
    return {"budwood": _library_version("budwood"), "python": platform.python_version()} | {
        n: _library_version(n) for n in RECORDED
    }


def describe_hardware(processors: int) -> HardwareRecord:
    """Describe the machine: processor, cores in use, memory, accelerator and operating system.

    Args:
        processors: Number of processors in use, recorded as `cores`.

    Returns:
        The keys `cpu`, `cores`, `memory_gib` (total memory in GiB, None if unknown), `accelerator` (names of the
        NVIDIA devices, `none` or `unknown`) and `system` (name and release).
    """
    return HardwareRecord(
        cpu=_read_cpu_name(),
        cores=processors,
        memory_gib=_read_memory_gib(),
        accelerator=_read_accelerator(),
        system=f"{platform.system()} {platform.release()}",
    )


def _library_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _read_cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _read_accelerator() -> str:
    """The names of the NVIDIA devices, as their driver tells them without torch; `none` where there is no driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "none"
    try:
        answer = subprocess.run([tool, "--query-gpu=name", "--format=csv,noheader"], capture_output=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return ", ".join(answer.stdout.decode().split("\n")).strip(", ") or "none"


def _read_memory_gib() -> float | None:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
