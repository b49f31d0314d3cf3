"""Whether a registered adapter can be put to use: its files, its weights, its base model."""

from __future__ import annotations

from pathlib import Path

from simtune.errors import CorruptError, RegistryError
from simtune.policy.adapter_hash import saved_sha256
from simtune.registry.record import ModelRecord


def check_sound(models_dir: Path, record: ModelRecord) -> None:
    """Make sure that a model's weights are there and are those that were registered.

    Raises:
        RegistryError: it is no adapter, its directory is gone, or its weights are unreadable or
            not those of the record.
    """
    if record.type != "fine_tuned":
        raise RegistryError(
            f"model {record.id!r} cannot be champion",
            expected="an adapter: type fine_tuned",
            got=f"type {record.type}",
        )
    path = models_dir / record.path
    if not path.is_dir():
        raise RegistryError(
            f"the files of model {record.id!r} are gone", expected=f"a directory {path}"
        )
    try:
        present = saved_sha256(path)
    except CorruptError as error:
        raise RegistryError(
            f"the weights of model {record.id!r} are damaged",
            expected=f"weights with sha256 {record.weights_sha256}",
            got=error,
            fix="put the files back from MLflow's artifacts or a backup; or train anew",
        ) from error
    if present != record.weights_sha256:
        raise RegistryError(
            f"the weights of model {record.id!r} are not those that were registered",
            expected=f"weights with sha256 {record.weights_sha256}",
            got=present,
            fix="put the files back from MLflow's artifacts or a backup; or train anew",
        )


def check_same_base(record: ModelRecord, champion: ModelRecord) -> None:
    """Make sure that what serves the champion can serve a model in its place.

    Raises:
        RegistryError: they sit on different base models.
    """
    if Path(record.base_model).resolve() != Path(champion.base_model).resolve():
        raise RegistryError(
            f"model {record.id!r} sits on another base model than the champion {champion.id!r}",
            expected=champion.base_model,
            got=record.base_model,
            fix="--other-base, where whatever serves the champion is to load the other base",
        )
