"""The door to Parquet files, which may be damaged or hostile: every failure names its file.

Page checksums are verified. What a footer declares is checked before anything is allocated for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from simtune.errors import CorruptError
from simtune.store.layout import is_part_name
from simtune.store.remote import AnyPath, RemotePath, is_unreachable, unreachable

_GROUP_ROWS: Final = 1 << 20
_GROUP_BYTES: Final = 4 << 30
"""What one row group may declare; simtune's own have 8,192 rows."""

_FOOTER_TEXT: Final = 16 << 20
_FOOTER_ITEMS: Final = 1 << 18
"""Longest text and list in a footer."""

READ_BUFFER: Final = 1 << 18
"""Bytes of a column that are held while a file is read batch by batch."""


def part_files(directory: AnyPath) -> list[AnyPath]:
    """The Parquet files of a directory, by name; none where it does not exist.

    Raises:
        CorruptError: one is a link to somewhere else.
    """
    if isinstance(directory, RemotePath):
        return [*sorted(path for path in directory.iterdir() if is_part_name(path.name))]
    if not directory.is_dir():
        return []
    found = sorted(path for path in directory.iterdir() if is_part_name(path.name))
    for path in found:
        if path.is_symlink() and path.resolve().parent != directory.resolve():
            raise CorruptError(
                f"{path} is a link that leaves the store",
                expected="a file",
                got=f"a link to {path.resolve()}",
                fix="copy the file into the store, or remove the link",
            )
    return [*found]


@contextmanager
def reading(path: AnyPath | str) -> Iterator[None]:
    """Turn whatever a broken file raises inside into a CorruptError that names it."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(path, RemotePath) and is_unreachable(error):
            raise unreachable(path, error) from error
        raise CorruptError(
            f"{path} cannot be read",
            expected="a Parquet file of simtune's format 1 whose pages pass their checksums",
            got=str(error).strip().splitlines()[0] if str(error).strip() else repr(error),
            fix="restore the file from a copy, or move it away to go on without its rows",
        ) from error


def open_part(
    path: AnyPath,
    schema: pa.Schema | None,
    *,
    metadata: pq.FileMetaData | None = None,
    dictionaries: Sequence[str] = (),
    buffer_size: int = 0,
) -> pq.ParquetFile:
    """Open a file, its footer read and what it declares checked.

    Args:
        path: the file.
        schema: `ROWS` or `SCORES`; the file must have exactly these columns. Any where None.
        metadata: its footer, where it was read and checked before.
        dictionaries: text columns to be read as dictionary arrays.
        buffer_size: where not 0, columns are read through buffers of so many bytes rather than
            a row group at once.
    """
    with reading(path):
        file = pq.ParquetFile(
            path.open() if isinstance(path, RemotePath) else path,
            metadata=metadata,
            read_dictionary=list(dictionaries),
            buffer_size=buffer_size,
            pre_buffer=not buffer_size,
            thrift_string_size_limit=_FOOTER_TEXT,
            thrift_container_size_limit=_FOOTER_ITEMS,
            page_checksum_verification=True,
        )
    if metadata is None:
        try:
            if schema is not None:
                _check_columns(path, file, schema)
            _check_sizes(path, file.metadata)
        except CorruptError:
            file.close()
            raise
    return file


def columns_of(path: AnyPath) -> pa.Schema:
    """The columns that a file has, whatever they are."""
    with open_part(path, None) as file, reading(path):
        return file.schema_arrow.remove_metadata()


def _check_columns(path: AnyPath, file: pq.ParquetFile, schema: pa.Schema) -> None:
    with reading(path):
        found = file.schema_arrow.remove_metadata()
    if not found.equals(schema.remove_metadata()):
        raise CorruptError(
            f"{path} has other columns than format 1",
            expected=", ".join(f"{field.name}: {field.type}" for field in schema),
            got=", ".join(f"{field.name}: {field.type}" for field in found),
            fix="move the file away; simtune episodes import takes what can be converted",
        )


def _check_sizes(path: AnyPath, metadata: pq.FileMetaData) -> None:
    rows = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        rows += group.num_rows
        if not 0 <= group.num_rows <= _GROUP_ROWS or not 0 <= group.total_byte_size <= _GROUP_BYTES:
            raise _declared(path, f"{group.num_rows} rows, {group.total_byte_size} bytes")
    if rows != metadata.num_rows:
        raise _declared(path, f"{metadata.num_rows} rows in row groups of {rows}")


def _declared(path: AnyPath, got: str) -> CorruptError:
    return CorruptError(
        f"{path} declares sizes that no store has",
        expected=f"row groups of at most {_GROUP_ROWS} rows and {_GROUP_BYTES} bytes",
        got=got,
        fix="restore the file from a copy, or move it away to go on without its rows",
    )


def read_part(path: AnyPath, schema: pa.Schema) -> pa.Table:
    """All of a file."""
    with open_part(path, schema) as file, reading(path):
        return file.read()


def dataset(paths: Sequence[AnyPath], schema: pa.Schema) -> ds.Dataset:
    """The files as one dataset for a query engine, checksums verified."""
    options = ds.ParquetFragmentScanOptions(
        page_checksum_verification=True,
        thrift_string_size_limit=_FOOTER_TEXT,
        thrift_container_size_limit=_FOOTER_ITEMS,
    )
    file_format = ds.ParquetFileFormat(default_fragment_scan_options=options)
    filesystem = next((path.filesystem for path in paths if isinstance(path, RemotePath)), None)
    if isinstance(filesystem, pafs.PyFileSystem):
        # A scan's read-ahead may outlive the interpreter, which must not call into Python then.
        return ds.dataset([read_part(path, schema) for path in paths], schema=schema)
    names = [path.path if isinstance(path, RemotePath) else str(path) for path in paths]
    return ds.dataset(names, schema=schema, format=file_format, filesystem=filesystem)
