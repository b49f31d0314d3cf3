"""How a finished file comes into a store's tables: at once and whole, on disk or behind a URL.

On disk it is a rename. Behind a URL the file is uploaded to `_staging/`, its size is checked, and
the remote side moves it: on S3 a copy within the bucket, which makes the object appear whole or not
at all. Nothing is written under a final name, because pyarrow completes an upload when its stream
is closed, and closes it when an exception ends it: half a file would be published as if it were
all. Killed at any point there is nothing in `data/` or `scores/`, or all of it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

import pyarrow.fs as pafs

from simtune.errors import CorruptError
from simtune.recording.directories import make_directory, sync_directory
from simtune.store.layout import STAGING
from simtune.store.remote import AnyPath, RemotePath, reaching

_CHUNK: Final = 4 * 1024 * 1024


def prepare(directory: AnyPath) -> None:
    """Make a directory for tables, where the root has directories."""
    if isinstance(directory, Path):
        make_directory(directory)
    elif not isinstance(directory.filesystem, pafs.S3FileSystem):
        with reaching(directory):
            directory.filesystem.create_dir(directory.path, recursive=True)


def place(staged: Path, final: AnyPath) -> None:
    """Give a staged file its final place; durable on return. This is the commit.

    Raises:
        RemoteError: the remote side cannot be reached, or refuses; there is no file.
        OSError: likewise, on disk.
    """
    if isinstance(final, Path):
        os.rename(staged, final)
        sync_directory(final.parent)
        return
    uploaded = _uploaded(final)
    prepare(final.store / STAGING)
    with reaching(final):
        _upload(staged, uploaded)
        found, expected = uploaded.stat().st_size, staged.stat().st_size
        if found != expected:
            raise OSError(f"{found} of {expected} bytes arrived")
        final.filesystem.move(uploaded.path, final.path)
    staged.unlink()


def is_placed(final: AnyPath, size: int | None) -> bool:
    """Whether `place` got to its commit.

    Args:
        final: the place.
        size: of the file; None where it is not known, as on disk, where a rename leaves no doubt.

    Raises:
        CorruptError: there is a file of another size.
    """
    if not final.exists():
        return False
    if isinstance(final, Path):
        sync_directory(final.parent)
    elif final.stat().st_size != size:
        raise CorruptError(f"{final} has another size than was uploaded", expected=size)
    return True


def discard(final: AnyPath) -> None:
    """Remove what an upload that was cut short left in `_staging/` of the remote side."""
    if isinstance(final, RemotePath):
        uploaded = _uploaded(final)
        if uploaded.exists():
            with reaching(uploaded):
                uploaded.filesystem.delete_file(uploaded.path)


def _uploaded(final: RemotePath) -> RemotePath:
    return final.store / STAGING / final.below.replace("/", "-")


def _upload(staged: Path, target: RemotePath) -> None:
    """Copy the bytes. What an exception leaves under the target's name nobody reads."""
    with open(staged, "rb") as source:
        stream = target.filesystem.open_output_stream(target.path)
        try:
            while chunk := source.read(_CHUNK):
                stream.write(chunk)
        except BaseException:  # on its way again
            with contextlib.suppress(OSError):
                stream.close()
            raise
        stream.close()
