"""The code that trained a model: simtune's commit, and the releases of the libraries around it."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import simtune

LIBRARIES = ("torch", "transformers", "peft", "trl", "accelerate", "gymnasium", "numpy", "mlflow")
"""Whose releases a record names, where they are installed."""

_SECONDS = 5


def library_versions() -> dict[str, str]:
    """Release of each library that can matter to a training; absent ones are left out."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def code_commit(package: Path | None = None) -> str:
    """The git commit that simtune runs from, `-dirty` after it where files differ from it.

    Args:
        package: simtune's own directory by default.

    Returns:
        Empty where simtune was installed rather than run from its repository: a repository that
        merely holds the installation is not simtune's.
    """
    folder = package or Path(simtune.__file__).parent
    top = _git(folder, "rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() != folder.resolve().parent:
        return ""
    return _git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str:
    """What git says, or nothing where there is no git, no repository, or no answer in time."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
