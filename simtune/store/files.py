"""Reading Parquet files that may be damaged: page checksums verified, every failure named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from simtune.errors import CorruptError
from simtune.store.layout import is_part_name


def part_files(directory: Path) -> list[Path]:
    """The Parquet files of a directory, by name; none where it does not exist."""
    if not directory.is_dir():
        return []
    return sorted(path for path in directory.iterdir() if is_part_name(path.name))


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Turn whatever a broken file raises inside into a CorruptError that names it."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CorruptError(
            f"{path} cannot be read",
            expected="a Parquet file of simtune's format 1 whose pages pass their checksums",
            got=str(error).strip().splitlines()[0] if str(error).strip() else repr(error),
            fix="restore the file from a copy, or move it away to go on without its rows",
        ) from error


def open_part(path: Path, schema: pa.Schema) -> pq.ParquetFile:
    """Open a file, its footer read and its columns checked.

    Args:
        path: the file.
        schema: `ROWS` or `SCORES`; the file must have exactly these columns.
    """
    with reading(path):
        file = pq.ParquetFile(path, page_checksum_verification=True)
        found = file.schema_arrow
    if not found.remove_metadata().equals(schema.remove_metadata()):
        file.close()
        raise CorruptError(
            f"{path} has other columns than format 1",
            expected=", ".join(f"{field.name}: {field.type}" for field in schema),
            got=", ".join(f"{field.name}: {field.type}" for field in found),
        )
    return file


def read_part(path: Path, schema: pa.Schema) -> pa.Table:
    """All of a file."""
    with open_part(path, schema) as file, reading(path):
        return file.read()


def read_groups(
    path: Path, schema: pa.Schema, groups: Sequence[int], columns: Sequence[str] | None = None
) -> pa.Table:
    """Some row groups of a file.

    Args:
        path: the file.
        schema: the columns it must have.
        groups: which row groups, in order.
        columns: which columns; all where None.
    """
    with open_part(path, schema) as file, reading(path):
        return file.read_row_groups(list(groups), columns=None if columns is None else [*columns])


def dataset(paths: Sequence[Path], schema: pa.Schema) -> ds.Dataset:
    """The files as one dataset for a query engine, checksums verified."""
    options = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    file_format = ds.ParquetFileFormat(default_fragment_scan_options=options)
    return ds.dataset([str(path) for path in paths], schema=schema, format=file_format)
