"""Candidates that newer ones have replaced: their records stay, their files go."""

from __future__ import annotations

import shutil

from simtune.registry.files import locked, read_index, write_index
from simtune.registry.record import ModelRecord
from simtune.registry.registry import Registry

TAG = "files"
REMOVED = "removed"


def retire_superseded(registry: Registry, run_id: str, keep: int) -> list[str]:
    """Retire the older candidates of a run, and remove their files.

    A model stays that is, or ever was, champion; that another run went on from; or that is among
    the newest.

    Args:
        registry: where they are.
        run_id: of the MLflow run that published them.
        keep: how many of the run's newest models are left as they are.

    Returns:
        Ids of the models that were retired.
    """
    with locked(registry.models_dir):
        index = read_index(registry.models_dir)
        own = [record for record in index.models if record.mlflow_run_id == run_id]
        used = {record.parent for record in index.models if record.mlflow_run_id != run_id}
        used |= {one for change in index.history for one in (change.before, change.after)}
        gone = [one for one in own[:-keep] if one.status == "candidate" and one.id not in used]
        for record in gone:
            record.status = "retired"
            record.tags = record.tags | {TAG: REMOVED}
        if gone:
            write_index(registry.models_dir, index)
    for record in own:
        # Those of a process that was killed right here, too.
        if record.tags.get(TAG) == REMOVED:
            _remove(registry, record)
    return [record.id for record in gone]


def _remove(registry: Registry, record: ModelRecord) -> None:
    """Move the directory aside first: nobody sees a part of it."""
    path = registry.models_dir / record.path
    if path.is_dir():
        aside = path.with_name(f".staging-{path.name}")
        path.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
