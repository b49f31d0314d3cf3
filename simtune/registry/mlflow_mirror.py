"""MLflow says what the registry says: the alias `champion`, and tags of runs and versions.

The registry decides. MLflow is told afterwards, and that it cannot be reached is a warning: the
next change puts right what was missed.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec

from simtune.registry.files import Index, locked, read_index
from simtune.registry.mlflow_quiet import quiet_mlflow
from simtune.registry.record import ModelRecord
from simtune.registry.registry import Registry
from simtune.registry.tracking_uri import resolve_tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

ALIAS: Final = "champion"
STATUS_TAG: Final = "simtune_status"
CHANGE_TAG: Final = "simtune_last_change"
MODEL_TAG: Final = "simtune_model_id"

_LOCK = ".mlflow.lock"
_PROBE_SECONDS = 3.0
_MAX_TAG = 4000


def mirror(registry: Registry, tracking_uri: str | None = None) -> list[str]:
    """Bring MLflow's aliases and tags to what the registry says now.

    Reading the registry and telling MLflow is one step under a lock of its own: of two changes at
    once, the one that is told last is the one that holds.

    Args:
        registry: what to tell.
        tracking_uri: of the MLflow server; by default the one each model was trained with.

    Returns:
        Why MLflow could not be told, one line for each server; empty where it was.
    """
    with locked(registry.models_dir, _LOCK):
        index = read_index(registry.models_dir)
        tracked = [record for record in index.models if record.mlflow_run_id]
        servers: dict[str, list[ModelRecord]] = {}
        for record in tracked:
            uri = tracking_uri or str(record.parameters.get("tracking_uri") or "")
            if uri:
                servers.setdefault(uri, []).append(record)
        touched = _touched(index)
        failed = [
            _tell(uri, records, index)
            for uri, records in servers.items()
            if touched & {record.id for record in records}
        ]
    return [why for why in failed if why is not None]


def _touched(index: Index) -> set[str]:
    """The models that the last change is about."""
    if not index.history:
        return set()
    last = index.history[-1]
    return {one for one in (last.model, last.before, last.after) if one is not None}


def _tell(uri: str, records: Sequence[ModelRecord], index: Index) -> str | None:
    missing = _unreachable(uri)
    if missing is not None:
        return f"MLflow at {uri} was not told: {missing}"
    try:
        with quiet_mlflow():
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
    except ImportError:
        return "MLflow was not told: it is not installed"
    try:
        with quiet_mlflow():
            resolved = resolve_tracking_uri(uri)[0]
            client = MlflowClient(tracking_uri=resolved, registry_uri=resolved)
            _set_tags(client, (one for one in records if one.id in _touched(index)), index)
            _set_aliases(client, records)
    except (MlflowException, OSError) as error:
        return f"MLflow at {uri} was not told: {str(error).splitlines()[0]}"
    return None


def _unreachable(uri: str) -> str | None:
    """Why nothing can be there, found without MLflow's minutes of retries; None where it can."""
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        try:
            socket.create_connection((parts.hostname or "", port), _PROBE_SECONDS).close()
        except OSError as error:
            return str(error)
    elif not parts.scheme and not Path(uri).is_dir():
        return f"no directory {Path(uri).resolve()}"
    elif parts.scheme == "sqlite" and not Path(uri.removeprefix("sqlite:///")).is_file():
        return "no such database"
    return None


def _set_tags(client: MlflowClient, records: Iterable[ModelRecord], index: Index) -> None:
    last = msgspec.json.encode(index.history[-1]).decode()[:_MAX_TAG]
    for record in records:
        run_id = str(record.mlflow_run_id)
        client.set_tag(run_id, STATUS_TAG, record.status)
        client.set_tag(run_id, CHANGE_TAG, last)
        version = _version(client, record)
        if version is not None:
            client.set_model_version_tag(version.name, version.version, STATUS_TAG, record.status)


def _set_aliases(client: MlflowClient, records: Sequence[ModelRecord]) -> None:
    """`champion` on the champion's version, and on no other version of these models."""
    versions = {record.id: _version(client, record) for record in records}
    names = {version.name for version in versions.values() if version is not None}
    wanted = {
        versions[one.id].name: str(versions[one.id].version)
        for one in records
        if one.status == "champion" and versions[one.id] is not None
    }
    for name in sorted(names):
        present = client.get_registered_model(name).aliases.get(ALIAS)
        if name in wanted:
            if present is None or str(present) != wanted[name]:
                client.set_registered_model_alias(name, ALIAS, wanted[name])
        elif present is not None:
            client.delete_registered_model_alias(name, ALIAS)


def _version(client: MlflowClient, record: ModelRecord) -> Any:
    """The version of MLflow's model registry that a record is; None where it has none."""
    for version in client.search_model_versions(f"run_id = '{record.mlflow_run_id}'"):
        if version.tags.get(MODEL_TAG) == record.id:
            return version
    return None
