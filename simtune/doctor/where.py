"""Whether there is a store where one looks for it, and whether capture writes into the same."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from simtune import config
from simtune.doctor.finding import Finding, error, note, ok
from simtune.doctor.subject import Subject
from simtune.errors import OptionError

_OURS = {"wal", "data", "scores", "_staging"}


def check(subject: Subject) -> Iterator[Finding]:
    """Look at the root, and at the `SIMTUNE_*` variables."""
    try:
        settings = config.from_environment()
    except OptionError as wrong:
        yield error("bad-settings", " ".join(str(wrong).split()), "unset or correct the variable")
        return
    found = _remote(subject) if subject.remote else _local(Path(subject.store))
    yield found or ok("root", f"the store is {subject.store}")
    if not os.environ.get("SIMTUNE_ROOT") or _same(settings.root, subject.store):
        return
    yield note(
        "other-root",
        f"SIMTUNE_ROOT={settings.root}: simulations started from here capture there, "
        f"and not into {subject.store}",
        f"simtune doctor --store {settings.root}, or unset SIMTUNE_ROOT",
    )


def _local(root: Path) -> Finding | None:
    if not root.exists():
        return error(
            "no-store",
            f"nothing at {root.absolute()}; "
            f"SIMTUNE_ROOT is {os.environ.get('SIMTUNE_ROOT') or 'not set'}",
            "name the store with --store ROOT; a simulation makes one with "
            f"simtune.configure(root={str(root)!r}), @simtune.capture and simtune.episode()",
        )
    names = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
    if root.is_dir() and (not names or _OURS.intersection(names)):
        return None
    held = f"a directory with {', '.join(names[:4])}" if names else "a file"
    near = next((path for path in root.glob("*/wal") if path.is_dir()), None) if names else None
    fix = f"--store {near.parent}" if near else "--store ROOT, the directory that holds wal/, data/"
    return error("not-a-store", f"{root} is {held}, and no store", fix)


def _remote(subject: Subject) -> Finding | None:
    if not subject.sample.unreachable:
        return None
    return error(
        "unreachable-store",
        subject.sample.unreachable,
        "check network, credentials and the URL; docs/remote.md names what each URL needs",
    )


def _same(first: str, second: str) -> bool:
    return first == second or os.path.realpath(first) == os.path.realpath(second)
