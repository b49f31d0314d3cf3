"""Whether MLflow's runs can be written where the tracking URI leads; mlflow is not loaded."""

from __future__ import annotations

import os
import socket
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

from simtune.doctor.finding import Finding, error, first_line, note, ok
from simtune.doctor.subject import Subject
from simtune.registry.tracking_uri import DATABASE

_SECONDS: Final = 2.0
_PORTS: Final = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_SQLITE: Final = "sqlite:///"


def check(subject: Subject) -> Iterator[Finding]:
    """Reach what the URI names, as far as that needs neither mlflow nor a password."""
    uri = subject.tracking_uri
    parts = urlsplit(uri)
    if uri.startswith(_SQLITE):
        yield _database(Path(uri.removeprefix(_SQLITE)))
    elif parts.scheme in ("http", "https"):
        yield _server(uri)
    elif parts.scheme.partition("+")[0] in _PORTS:
        yield _port(parts.hostname or "localhost", parts.port, parts.scheme.partition("+")[0])
    elif not parts.scheme:
        yield _database(Path(uri) / DATABASE)
    else:
        yield ok("tracking", f"{parts.scheme}: is left to mlflow")


def _wrong(seen: str) -> Finding:
    return error(
        "tracking-unreachable",
        seen,
        "start the server or name another place: --tracking-uri ./mlruns keeps runs in a directory",
    )


def _database(path: Path) -> Finding:
    above = path.parent
    place = next(each for each in (above, *above.absolute().parents) if each.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        return _wrong(f"runs cannot be written to {above}: {place} cannot be written to")
    if not path.exists():
        return note("no-runs", f"no runs in {above} yet; the first training makes {path.name}")
    try:
        found = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=_SECONDS)
        try:
            runs = found.execute("SELECT count(*) FROM runs").fetchone()[0]
        finally:
            found.close()
    except sqlite3.Error as wrong:
        return _wrong(f"{path} is no database of MLflow that can be used: {wrong}")
    return ok("tracking", f"{runs:,} runs in {path}")


def _server(uri: str) -> Finding:
    parts = urlsplit(uri)
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    try:
        with urllib.request.urlopen(f"{shown.rstrip('/')}/health", timeout=_SECONDS) as answer:
            return ok("tracking", f"{shown} answers with {answer.status}")
    except urllib.error.HTTPError as wrong:
        wrong.close()
        if wrong.code >= 500:
            return _wrong(f"{shown} answers with {wrong.code} {wrong.reason}")
        return ok("tracking", f"{shown} answers with {wrong.code}")
    except (OSError, ValueError) as wrong:
        return _wrong(f"{shown} cannot be reached: {first_line(wrong)}")


def _port(host: str, port: int | None, scheme: str) -> Finding:
    where = (host, port or _PORTS[scheme])
    try:
        socket.create_connection(where, timeout=_SECONDS).close()
    except OSError as wrong:
        return _wrong(f"{scheme} at {where[0]}:{where[1]} cannot be reached: {first_line(wrong)}")
    return ok("tracking", f"{scheme} answers at {where[0]}:{where[1]}")
