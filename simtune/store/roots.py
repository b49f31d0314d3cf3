"""Where a store's parts lie: all in one directory, or the tables behind a URL and the log here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from simtune.recording.spool import is_url, remember_url, remembered_url, spool_directory
from simtune.store.remote import AnyPath, RemotePath, open_url


class Root(NamedTuple):
    """The two places of a store.

    Attributes:
        local: the log, staging and locks, on this host.
        tables: `data/` and `scores/`; the same directory, or behind a URL.
    """

    local: Path
    tables: AnyPath

    @property
    def is_remote(self) -> bool:
        """Whether the tables are behind a URL."""
        return isinstance(self.tables, RemotePath)


def open_root(root: str | os.PathLike[str]) -> Root:
    """The places of a store.

    Args:
        root: a directory, the URL of a remote store, or the local directory of such a one.

    Raises:
        OptionError: nothing can open such a URL.
    """
    text = os.fspath(root)
    url = text if is_url(text) else remembered_url(text)
    if url is None:
        return Root(Path(text), Path(text))
    return Root(spool_directory(url) if is_url(text) else Path(text), open_url(url))


def claimed(root: str | os.PathLike[str]) -> Root:
    """As `open_root`, for writing: a local directory that is needed says whose it is."""
    found = open_root(root)
    if isinstance(found.tables, RemotePath):
        remember_url(found.local, found.tables.root)
    return found
