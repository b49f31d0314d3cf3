"""Checking `_staging/`: compactions that were cut short, and files that belong to none."""

from __future__ import annotations

from pathlib import Path

from simtune.store.findings import Finding
from simtune.store.layout import STAGING, is_part_name


def check_staging(root: Path) -> list[Finding]:
    """What lies in `_staging/` while no compaction runs."""
    staging = root / STAGING
    if not staging.is_dir():
        return []
    names = sorted(path.name for path in staging.iterdir())
    found = [_finding(name, names) for name in names]
    return [
        Finding(code=code, path=str(STAGING / name), detail=detail)
        for name, (code, detail) in zip(names, found, strict=True)
        if code
    ]


def _finding(name: str, names: list[str]) -> tuple[str, str]:
    if name.endswith(".lock"):
        return "", ""
    if name.endswith(".intent"):
        return "unfinished-compaction", "was cut short; no row is lost"
    if is_part_name(name):
        # A part with an intent is that compaction's, and told with it.
        return ("", "") if f"{name}.intent" in names else ("orphan-staged", "no intent names it")
    if name.endswith((".unfinished", ".scores")):
        return "orphan-staged", "was never finished"
    return "foreign-file", "no name that simtune gives"
