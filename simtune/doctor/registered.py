"""The registry of adapters: its file, its lock, and whether each model is what it says."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from simtune.doctor.finding import Finding, error, first_line, note, of, ok, warning
from simtune.doctor.locks import holder, is_locked
from simtune.doctor.subject import Subject
from simtune.errors import CorruptError, RegistryError
from simtune.policy.adapter_hash import saved_sha256
from simtune.registry import ModelRecord, Registry
from simtune.registry.files import LOCK_FILE

_HASHED_BYTES: Final = 1024**3
_PATIENCE: Final = (0.1, 0.2, 0.3)
_ABANDONED_SECONDS: Final = 3600.0


def check(subject: Subject) -> Iterator[Finding]:
    """Look at every record and its files."""
    models = subject.models_dir
    yield from _lock(models / LOCK_FILE)
    try:
        records = Registry(models).list()
    except RegistryError as wrong:
        yield error(
            "broken-registry",
            " ".join(str(wrong).split()),
            "put registry.json back from a copy; the adapters beside it are untouched",
        )
        return
    if not records:
        fix = "simtune train sft ... registers one; --models-dir names another registry"
        yield note("no-models", f"no model is registered in {models}", fix)
    else:
        yield from _models(models, records)
    yield from _unregistered(models, {record.path for record in records})


def _models(models: Path, records: list[ModelRecord]) -> Iterator[Finding]:
    findings = [*_files(models, records), *_bases(records)]
    yield from findings
    champions = [record.id for record in records if record.status == "champion"]
    if not champions:
        yield note(
            "no-champion",
            f"none of {len(records)} models is champion, so whatever asks for it gets none",
            "simtune eval compares candidates; simtune models promote ID makes one champion",
        )
    if not findings:
        yield ok("registry", f"{len(records)} models, champion: {', '.join(champions) or 'none'}")


def _files(models: Path, records: list[ModelRecord]) -> Iterator[Finding]:
    left = _HASHED_BYTES if importlib.util.find_spec("safetensors") else 0
    for record in reversed(records):
        path = models / record.path
        if not path.is_dir():
            yield error(
                "missing-model",
                f"{record.id}: {path} is gone",
                "put it back from MLflow's artifacts or a backup, or train it anew",
            )
        elif record.type == "fine_tuned" and left >= record.size_bytes:
            left -= record.size_bytes
            yield from _weights(path, record)


def _weights(path: Path, record: ModelRecord) -> Iterator[Finding]:
    try:
        present = saved_sha256(path)
    except CorruptError as wrong:
        present = first_line(wrong)
    if present != record.weights_sha256:
        yield error(
            "changed-weights",
            f"{record.id}: weights with sha256 {record.weights_sha256[:12]} were registered, "
            f"and {present[:12] if len(present) == 64 else present} are there",
            "put the files back from MLflow's artifacts or a backup, or train anew",
        )


def _bases(records: list[ModelRecord]) -> Iterator[Finding]:
    gone: dict[str, int] = {}
    for record in records:
        base = Path(record.base_model)
        if base.is_absolute() and not (base / "config.json").is_file():
            gone[record.base_model] = gone.get(record.base_model, 0) + 1
    for name, count in gone.items():
        yield warning(
            "base-model-gone",
            f"{of(count, len(records))} models sit on {name}, where no base model is any more",
            f"put it back, or make it anew: simtune models pull-base NAME --output {name}",
        )


def _unregistered(models: Path, known: set[str]) -> Iterator[Finding]:
    """Directories without a record, and what unfinished registrations left."""
    now = time.time()
    names = [
        path.name
        for path in (sorted(models.iterdir()) if models.is_dir() else ())
        if (path.is_dir() or path.suffix == ".partial")
        and path.name not in known
        and now - path.stat().st_mtime > _ABANDONED_SECONDS
    ]
    if names:
        yield note(
            "unregistered-files",
            f"{len(names)} directories and files in {models} belong to no model, such as "
            f"{names[0]}",
            "remove them if no training is under way",
        )


def _lock(path: Path) -> Iterator[Finding]:
    """A registration holds the lock for an instant only."""
    for seconds in _PATIENCE:
        if not is_locked(path):
            return
        time.sleep(seconds)
    if is_locked(path):
        pid = holder(path) or "?"
        yield warning(
            "registry-locked",
            f"{path} has been locked for {sum(_PATIENCE):.1f} s by process {pid}: "
            "registering a model waits",
            f"ps -p {pid} shows what it does; end it if it hangs",
        )
