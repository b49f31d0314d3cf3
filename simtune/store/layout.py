"""Directories and file names of a store, and the steps that make a file durable.

Directories are 0700 and files 0600: prompts and answers are nobody else's business. An id that
becomes part of a name is checked, so that no name can leave the root.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from simtune.errors import OptionError
from simtune.recording.directories import make_directory
from simtune.recording.spool import is_url, remembered_url
from simtune.store.remote import AnyPath

DATA: Final = Path("data/v1")
SCORES: Final = Path("scores/v1")
STAGING: Final = Path("_staging")

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_PART: Final = re.compile(r"part-([0-9a-f]{16})-(\d{10})\.parquet")


def store_root(root: str | os.PathLike[str]) -> Path:
    """The root as a path, for what is done to local stores only; see `roots` for the rest.

    Raises:
        OptionError: it is a URL, or the local directory of a store behind one.
    """
    text = os.fspath(root)
    if is_url(text) or remembered_url(text) is not None:
        raise OptionError(
            "this is done to a store in a local directory",
            expected="a path",
            got=text.split("?")[0].rpartition("@")[2],
            fix="copy data/ and scores/ of the remote store into a directory",
        )
    return Path(text)


def checked_name(name: str, *, what: str) -> str:
    """Return the name if it is safe as one component of a path, else raise OptionError."""
    if not _NAME.fullmatch(name):
        raise OptionError(
            f"{what} cannot be part of a file name",
            expected="1 to 100 letters, digits, `.`, `_`, `-`; the first a letter or digit",
            got=repr(name),
        )
    return name


def is_part_name(name: str) -> bool:
    """Whether a name is one that simtune gives to a Parquet file."""
    return _PART.fullmatch(name) is not None


def part_number(name: str) -> tuple[str, int]:
    """Compactor and number of a file whose name `is_part_name`."""
    match = _PART.fullmatch(name)
    assert match is not None
    return match[1], int(match[2])


def part_name(directory: AnyPath) -> str:
    """The next free `part-<compactor_id>-<n>.parquet` of this process in a directory."""
    taken = [int(match[2]) for match in _own_parts(directory)]
    return f"part-{compactor_id()}-{max(taken, default=-1) + 1:010d}.parquet"


def _own_parts(directory: AnyPath) -> Iterator[re.Match[str]]:
    for path in directory.iterdir():
        match = _PART.fullmatch(path.name)
        if match and match[1] == compactor_id():
            yield match


_identity: tuple[int, str] | None = None


def compactor_id() -> str:
    """8 random bytes in hex, fresh per process and per fork."""
    global _identity
    if _identity is None or _identity[0] != os.getpid():
        _identity = (os.getpid(), secrets.token_hex(8))
    return _identity[1]


@contextmanager
def durable_file(path: Path) -> Iterator[BinaryIO]:
    """Create a file (0600, must not exist); its bytes are on stable storage on exit."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def locked(root: Path, name: str) -> Iterator[None]:
    """Hold `_staging/<name>.lock`: one holder per host; waits for the one before."""
    make_directory(root / STAGING)
    path = root / STAGING / f"{name}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)
