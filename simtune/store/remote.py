"""Stores behind a URL: `s3://bucket/prefix`, and whatever else pyarrow or fsspec can open.

`RemotePath` has those methods of `pathlib.Path` that the store's readers call, so that they read
here and there alike. Files come and go whole: see `placing`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, total_ordering
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from simtune.errors import MissingExtraError, OptionError, RemoteError

_CONNECT_SECONDS: Final = 5.0
_REQUEST_SECONDS: Final = 30.0
_S3_TEXT: Final = ("region", "scheme", "endpoint_override")
_S3_SECONDS: Final = ("connect_timeout", "request_timeout")


AnyPath: TypeAlias = "Path | RemotePath"


class Size(NamedTuple):
    """What `RemotePath.stat` tells."""

    st_size: int


@total_ordering
class RemotePath:
    """A file or directory of a remote store.

    Args:
        filesystem: where it is.
        path: its path there.
        root: URL of the store it belongs to, as it was given.
        below: its path within the store.
    """

    def __init__(self, filesystem: pafs.FileSystem, path: str, root: str, below: str = "") -> None:
        self.filesystem = filesystem
        self.path = path
        self.root = root
        self.below = below

    def __truediv__(self, below: str | os.PathLike[str]) -> RemotePath:
        """A path further down."""
        return self._at(os.fspath(below))

    def _at(self, below: str) -> RemotePath:
        inside = f"{self.below}/{below}" if self.below else below
        return RemotePath(self.filesystem, f"{self.path}/{below}", self.root, inside)

    def __str__(self) -> str:
        """The URL without what may be secret in it."""
        parts = urlsplit(self.root)
        where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")
        return f"{where}/{self.below}" if self.below else where

    def __repr__(self) -> str:
        """As `str`."""
        return f"RemotePath({str(self)!r})"

    def __fspath__(self) -> str:
        """The store's URL, which every function that takes a root understands."""
        if self.below:
            raise OptionError(f"{self} is no local file")
        return self.root

    def __eq__(self, other: object) -> bool:
        """Same path in the same store."""
        return isinstance(other, RemotePath) and (self.root, self.path) == (other.root, other.path)

    def __lt__(self, other: RemotePath) -> bool:
        """By path."""
        return self.path < other.path

    def __hash__(self) -> int:
        """Of root and path."""
        return hash((self.root, self.path))

    @property
    def name(self) -> str:
        """The last component."""
        return PurePosixPath(self.path).name

    @property
    def store(self) -> RemotePath:
        """The root of the store."""
        return open_url(self.root)

    def resolve(self) -> RemotePath:
        """The path itself: there are no links."""
        return self

    def is_symlink(self) -> bool:
        """Never."""
        return False

    def exists(self) -> bool:
        """Whether there is a file or directory."""
        return bool(self._info().type != pafs.FileType.NotFound)

    def is_dir(self) -> bool:
        """Whether there is a directory."""
        return bool(self._info().type == pafs.FileType.Directory)

    def is_file(self) -> bool:
        """Whether there is a file."""
        return bool(self._info().type == pafs.FileType.File)

    def stat(self) -> Size:
        """The size of a file."""
        return Size(self._info().size or 0)

    def iterdir(self) -> Iterator[RemotePath]:
        """What is in a directory; nothing where it does not exist."""
        return (self._at(name) for name in self._names(recursive=False))

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """The files below whose path matches a pattern without `**`."""
        for name in self._names(recursive=True):
            if name.count("/") == pattern.count("/") and PurePosixPath(name).match(pattern):
                yield self._at(name)

    def open(self) -> pa.NativeFile:
        """The file for reading.

        Raises:
            FileNotFoundError: there is none.
        """
        with reaching(self):
            return self.filesystem.open_input_file(self.path)

    def _info(self) -> pafs.FileInfo:
        with reaching(self):
            return self.filesystem.get_file_info(self.path)

    def _names(self, *, recursive: bool) -> list[str]:
        selector = pafs.FileSelector(self.path, allow_not_found=True, recursive=recursive)
        with reaching(self):
            found = self.filesystem.get_file_info(selector)
            if not found and isinstance(self.filesystem, pafs.S3FileSystem):
                bucket = self.path.split("/")[0]
                if self.filesystem.get_file_info(bucket).type == pafs.FileType.NotFound:
                    raise OSError(f"there is no bucket {bucket!r}")
        return sorted(info.path[len(self.path) :].strip("/") for info in found)


@contextmanager
def reaching(path: RemotePath) -> Iterator[None]:
    """Turn whatever a remote file system raises inside into a RemoteError that names the URL."""
    try:
        yield
    except FileNotFoundError as error:
        if is_unreachable(error):
            raise unreachable(path, error) from error
        raise
    except (OSError, pa.ArrowException) as error:
        raise unreachable(path, error) from error


def is_unreachable(error: BaseException) -> bool:
    """Whether an error is the remote side's or the network's, rather than of a file's contents."""
    return any(sign in str(error) for sign in ("AWS Error", "NoSuchBucket", "Bucket", "HTTP"))


def unreachable(path: RemotePath, error: BaseException) -> RemoteError:
    """The error to raise."""
    return RemoteError(
        f"{path} cannot be reached, or refuses",
        expected="a bucket that exists, and credentials to list, read, write and delete in it",
        got=str(error).strip().splitlines()[0] if str(error).strip() else repr(error),
        fix="check the URL, its endpoint and the AWS_* variables; what was captured is safe in the "
        "local log, and the next compaction uploads it",
    )


def open_url(url: str) -> RemotePath:
    """The root of a remote store; nothing is asked of it yet.

    Raises:
        OptionError: nothing installed knows such a URL, or it has parameters that none reads.
        MissingExtraError: it needs fsspec.
        RemoteError: the file system cannot be set up.
    """
    return _open_url(url, os.getpid())


@lru_cache(maxsize=32)
def _open_url(url: str, pid: int) -> RemotePath:
    # By process: connections do not survive a fork.
    scheme = urlsplit(url).scheme.lower()
    if scheme in ("s3", "s3a"):
        filesystem, path = _s3(url)
    else:
        try:
            filesystem, path = pafs.FileSystem.from_uri(url)
        except pa.ArrowInvalid as error:
            filesystem, path = _fsspec(url, scheme, error)
        except OSError as error:
            raise RemoteError(f"{scheme}:// cannot be set up", got=error) from error
    return RemotePath(filesystem, path.rstrip("/"), url)


def _s3(url: str) -> tuple[pafs.FileSystem, str]:
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    bucket = parts.netloc.rpartition("@")[2]
    unknown = given.keys() - {*_S3_TEXT, *_S3_SECONDS}
    if unknown or not bucket:
        raise OptionError(
            f"the URL of the store in bucket {bucket!r} cannot be used",
            expected=f"s3://bucket/prefix?{'=&'.join((*_S3_TEXT, *_S3_SECONDS))}=",
            got=f"parameters {', '.join(sorted(unknown))}" if unknown else "no bucket",
        )
    options: dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS}
    options["request_timeout"] = _REQUEST_SECONDS
    for name, value in given.items():
        options[name] = _seconds(name, value) if name in _S3_SECONDS else value
    if parts.username:
        options["access_key"] = unquote(parts.username)
        options["secret_key"] = unquote(parts.password or "")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region:
        options.setdefault("region", region)
    try:
        filesystem = pafs.S3FileSystem(**options)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise RemoteError(f"s3://{bucket} cannot be set up", got=error) from error
    return filesystem, f"{bucket}/{unquote(parts.path).strip('/')}"


def _seconds(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise OptionError(f"{name} is no time", expected="seconds", got=value) from None


def _fsspec(url: str, scheme: str, error: Exception) -> tuple[pafs.FileSystem, str]:
    try:
        import fsspec
    except ImportError as missing:
        raise MissingExtraError(f"{scheme}://", package="fsspec", extra="train") from missing
    if scheme not in fsspec.available_protocols():
        raise OptionError(
            f"nothing can open a store at {scheme}://",
            expected="a path, s3://, gs://, abfs://, hdfs://, or what fsspec knows",
            got=str(error).splitlines()[0],
        )
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except ImportError as missing:
        raise OptionError(
            f"{scheme}:// needs a package", got=missing, fix=f"install it: {missing}"
        ) from missing
    return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem)), path
