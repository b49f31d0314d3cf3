"""What a watch remembers between looks: where it is in the store, and what it has seen."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from simtune.errors import RegistryError
from simtune.eval.fall import Fall


class WatchState(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Written whole, in one step, together with the cursor: an episode counts once.

    Attributes:
        champion: id of the model that is watched; None: there is none.
        changes: how many promotions and rollbacks there were until then.
        own: its first scores, where they are to be the baseline.
        test: None until there is a baseline.
        baseline: whose scores the test compares with: `previous` or `own`.
        baseline_mean: of them.
        recent: newest scores by adapter hash, `base` without one.
        skipped: episodes that were left out, by reason.
        cursor: of the tail, as JSON.
    """

    champion: str | None = None
    changes: int = 0
    own: list[float] = msgspec.field(default_factory=list)
    test: Fall | None = None
    baseline: str = ""
    baseline_mean: float = 0.0
    recent: dict[str, list[float]] = msgspec.field(default_factory=dict)
    skipped: dict[str, int] = msgspec.field(default_factory=dict)
    cursor: str = ""


def state_path(models_dir: Path, store: str, metric: str) -> Path:
    """The file of a watch: one for each registry, store and metric."""
    where = store if "://" in store else str(Path(store).resolve())
    digest = hashlib.sha256(f"{where}\n{metric}".encode()).hexdigest()[:12]
    return models_dir / f".watch-{digest}.json"


def load_state(path: Path) -> WatchState:
    """Read it; a watch that has not begun has an empty one.

    Raises:
        RegistryError: the file is not what simtune wrote.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=WatchState)
    except FileNotFoundError:
        return WatchState()
    except (OSError, msgspec.DecodeError) as error:
        raise RegistryError(
            f"the watch's state {str(path)!r} cannot be read",
            got=error,
            fix="remove it to begin the watch anew",
        ) from error


def save_state(path: Path, state: WatchState) -> None:
    """Replace it in one step."""
    partial = path.with_name(f"{path.name}.partial")
    with open(partial, "wb") as handle:
        handle.write(msgspec.json.encode(state))
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(partial, path)


@contextmanager
def only_watch(path: Path) -> Iterator[None]:
    """Make sure that no other process keeps the same watch.

    Raises:
        RegistryError: one does.
    """
    with open(path.with_suffix(".lock"), "a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RegistryError(
                "another process watches the same store for this registry",
                expected="one watch for each store and metric",
                got=str(path),
            ) from error
        yield
