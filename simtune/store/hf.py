"""Decisions as a `datasets.Dataset` that lies in a file, not in memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from simtune.errors import MissingExtraError
from simtune.store.remote import AnyPath
from simtune.store.schema import ROWS


def cache_key(files: Sequence[AnyPath], where: str | None) -> str:
    """The same for the same decisions: the files' names and sizes, and the condition."""
    said = [f"{path.resolve()} {path.stat().st_size}" for path in sorted(files)]
    return hashlib.sha256("\n".join([*said, repr(where)]).encode()).hexdigest()[:24]


def to_dataset(
    tables: Iterable[pa.Table], key: str, cache_dir: str | os.PathLike[str] | None
) -> Any:
    """Write the tables to an Arrow file, and map it into memory.

    Args:
        tables: decisions, as they are made; only one is held at a time.
        key: name of the file. One that is there already is used.
        cache_dir: directory of the file; None for that of `datasets`.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("to_hf", package="datasets", extra="train") from error
    directory = Path(cache_dir or Path(datasets.config.HF_DATASETS_CACHE) / "simtune")
    path = directory / f"decisions-{key}.arrow"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        _write(path, tables)
    return datasets.Dataset.from_file(str(path))


def _write(path: Path, tables: Iterable[pa.Table]) -> None:
    unfinished = path.with_suffix(f".{os.getpid()}.unfinished")
    schema = ROWS.remove_metadata()
    try:
        with open(unfinished, "wb") as file, pa.ipc.new_stream(file, schema) as stream:
            for table in tables:
                stream.write_table(table.cast(schema))
        os.rename(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
