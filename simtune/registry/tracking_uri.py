"""Where a tracking URI leads: a plain path becomes a sqlite database with artifacts beside it."""

from __future__ import annotations

import re
from pathlib import Path

from simtune.errors import OptionError

DATABASE = "mlflow.db"
ARTIFACTS = "artifacts"

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def resolve_tracking_uri(uri: str) -> tuple[str, str | None]:
    """Make an MLflow URI of what the user gave.

    MLflow's plain-directory backend refuses to start in current releases, so a plain path means
    sqlite inside that directory. The directory is made.

    Returns:
        The tracking URI, and the root for artifacts (None: the server's own choice).

    Raises:
        OptionError: the path is empty, or a file is in the way.
    """
    if _SCHEME.match(uri):
        return uri, None
    if not uri:
        raise OptionError("the tracking URI is empty", expected="a directory or an MLflow URI")
    root = Path(uri).resolve()
    try:
        (root / ARTIFACTS).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise OptionError(
            f"cannot keep MLflow runs in {uri!r}",
            expected="a directory that can be written, or a URI such as http://host:5000",
            got=error,
            fix="--tracking-uri ./mlruns",
        ) from error
    return f"sqlite:///{root / DATABASE}", str(root / ARTIFACTS)
