"""Where the log of a remote store lies: a directory of this host, found by the store's URL.

`<local>/<name>-<digest>`: the same for every process of a user on a host, whatever its working
directory. The file `remote` in it says which store its rows belong to, so that a compactor
that is given the directory alone brings them there.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from simtune import config
from simtune.recording.directories import make_directory

_URL = "remote"
_IDENTIFYING = "endpoint_override"


def is_url(root: str | os.PathLike[str]) -> bool:
    """Whether a store's root is a URL rather than a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", os.fspath(root)) is not None


def spool_directory(url: str) -> Path:
    """The local directory of a remote store; credentials and the like make no difference."""
    parts = urlsplit(url)
    where = parts.netloc.rpartition("@")[2] + "/" + parts.path.strip("/")
    endpoint = parse_qs(parts.query).get(_IDENTIFYING, [""])[0]
    identity = f"{parts.scheme}://{where}#{endpoint}"
    name = re.sub(r"[^A-Za-z0-9]+", "-", where).strip("-")[:60]
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    return _local() / f"{name}-{digest}"


def _local() -> Path:
    if config.current().local:
        return Path(config.current().local).absolute()
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "simtune"


def remember_url(directory: Path, url: str) -> None:
    """Note in a spool directory, which is made, whose it is."""
    if remembered_url(directory) == url:
        return
    make_directory(directory)
    staged = directory / f".{_URL}.{os.getpid()}"
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(url)
        file.flush()
        os.fsync(file.fileno())
    os.replace(staged, directory / _URL)


def remembered_url(directory: str | os.PathLike[str]) -> str | None:
    """Whose spool a directory is; None for a store of its own."""
    try:
        return (Path(directory) / _URL).read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
