"""Whether the installed releases are within the ranges that simtune and its libraries state."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, version
from typing import TYPE_CHECKING, Final

from simtune.doctor.finding import Finding, note, ok
from simtune.doctor.subject import Subject

if TYPE_CHECKING:
    from packaging.requirements import Requirement

LIBRARIES: Final = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "mlflow")
"""Libraries whose own ranges are looked at too."""

_DEVELOPMENT: Final = "dev"


def check(subject: Subject) -> Iterator[Finding]:
    """Compare every stated range with what is installed; what is not installed is no conflict."""
    if importlib.util.find_spec("packaging") is None:
        fix = "pip install packaging"
        yield note("ranges-unchecked", "packaging is not installed, so ranges are unknown", fix)
        return
    looked, conflicts = 0, 0
    for name in ("simtune", *LIBRARIES):
        for requirement, core in _requirements(name):
            found = _installed(requirement.name)
            if found is None and not (core and name == "simtune"):
                continue
            looked += 1
            if found is None or not requirement.specifier.contains(found, prereleases=True):
                conflicts += 1
                yield _conflict(name, requirement, found, core)
    if not conflicts:
        yield ok("versions", f"{looked} stated ranges hold for the installed releases")


def _conflict(name: str, requirement: Requirement, found: str | None, core: bool) -> Finding:
    wanted = f"{requirement.name}{requirement.specifier}"
    return Finding(
        level="error" if core and name == "simtune" else "warning",
        code="version-conflict",
        seen=f"{name} {version(name)} needs {wanted}, and {found or 'none'} is installed",
        fix=f"pip install '{wanted}'",
    )


def _requirements(name: str) -> Iterator[tuple[Requirement, bool]]:
    """What a distribution needs here, and whether it always does; extras of simtune count too."""
    from packaging.requirements import Requirement

    try:
        stated = distribution(name).requires or []
    except PackageNotFoundError:
        return
    seen = set()
    extras = distribution(name).metadata.get_all("Provides-Extra") or []
    for text in stated:
        requirement = Requirement(text)
        core = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        used = (extra for extra in extras if extra != _DEVELOPMENT and name == "simtune")
        marker = requirement.marker
        optional = marker is not None and any(marker.evaluate({"extra": each}) for each in used)
        key = (requirement.name, str(requirement.specifier))
        if (core or optional) and key not in seen:
            seen.add(key)
            yield requirement, core


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
