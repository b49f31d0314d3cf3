"""Whether torch was built for the GPU that this machine has; torch is not loaded."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from simtune.doctor.finding import Finding, ok, warning
from simtune.doctor.subject import Subject

GPUS: Final = Path("/proc/driver/nvidia/gpus")
"""Has an entry for each GPU that NVIDIA's driver runs."""

_CUDA = re.compile(r"^cuda\b[^=]*=\s*(.+)$", re.M)
_VERSION = re.compile(r"^__version__\s*=\s*['\"](.+?)['\"]", re.M)


def check(subject: Subject) -> Iterator[Finding]:
    """Compare torch's build with the driver's list of GPUs."""
    text = _build()
    if not text:
        return
    release = _VERSION.search(text)
    cuda = _CUDA.search(text)
    name = f"torch {release[1] if release else '?'}"
    built_for = cuda[1].strip("'\" ") if cuda else "None"
    gpus = gpu_count()
    if gpus and built_for == "None":
        yield warning(
            "cpu-torch",
            f"{name} is built for CPUs only, and this machine has {gpus} NVIDIA GPUs",
            "pip install --force-reinstall torch, from the package index that "
            "https://pytorch.org/get-started names for your driver",
        )
    else:
        yield ok("torch", f"{name}, built for CUDA {built_for}; {gpus} NVIDIA GPUs here")


def gpu_count() -> int:
    """How many GPUs NVIDIA's driver runs."""
    return len(list(GPUS.iterdir())) if GPUS.is_dir() else 0


def _build() -> str:
    """The text of torch's version.py; empty where torch is not installed."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return ""
    path = Path(found.origin).with_name("version.py")
    return path.read_text(encoding="utf-8") if path.is_file() else ""
