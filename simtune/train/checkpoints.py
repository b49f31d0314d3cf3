"""Checkpoints of a run: written whole or not at all, checked when read, old ones removed.

    ROOT/<run id>/.lock                     held while the run trains
    ROOT/<run id>/round-000005/             the run after 5 rounds
        weights.safetensors                 adapter and value head
        best.safetensors                    those of the best evaluated round, where there is one
        update.pt                           optimizer, shuffle, counters, random generators
        state.json                          everything else; see `RunState`
        manifest.json                       size and sha256 of the other files

A checkpoint is staged in a hidden directory, every file of it is synced, and a rename publishes it:
a process killed at any moment leaves the checkpoints that it had, and perhaps a hidden directory
that the next one removes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from simtune.errors import CorruptError, TrainingError

if TYPE_CHECKING:
    import torch

Weights = Mapping[str, "torch.Tensor"]

FORMAT = 1
LOCK = ".lock"
WEIGHTS, BEST, UPDATE = "weights.safetensors", "best.safetensors", "update.pt"
STATE, MANIFEST = "state.json", "manifest.json"

_NAME = re.compile(r"round-(\d{6,})")
_PARTIAL = ".partial-"


class RunState(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a checkpoint knows beside tensors.

    Attributes:
        format: of the checkpoint.
        method: ppo.
        run_id: of the MLflow run, which goes on when the run is resumed.
        round: rounds that are done; the next one has this index.
        options: every option of the run.
        history: (round, metrics) of every point of the curves so far.
        best_round: of the best evaluation so far; 0 where there is none.
        best_score: of that evaluation; see `periodic_eval.score`.
        first_returns: of the policy that training started from, one per held-out episode.
        source: `Source.state_dict()`.
        made_with: versions and settings that the last bits of a result depend on.
    """

    method: str
    run_id: str
    round: int
    options: dict[str, Any]
    history: Sequence[tuple[int, Mapping[str, float | None]]]
    source: dict[str, Any]
    best_round: int = 0
    best_score: tuple[float, float] | None = None
    first_returns: list[float] = msgspec.field(default_factory=list)
    made_with: dict[str, str] = msgspec.field(default_factory=dict)
    format: int = FORMAT


class Checkpoint(msgspec.Struct, frozen=True):
    """A checkpoint that was read and found whole."""

    path: Path
    state: RunState

    def weights(self) -> dict[str, torch.Tensor]:
        """Adapter and value head."""
        return _tensors(self.path / WEIGHTS)

    def best(self) -> dict[str, torch.Tensor] | None:
        """Those of the best evaluated round."""
        return _tensors(self.path / BEST) if self.state.best_round else None

    def update(self) -> dict[str, Any]:
        """Optimizer, shuffle, counters, random generators."""
        import torch

        loaded: dict[str, Any] = torch.load(self.path / UPDATE, weights_only=True)
        return loaded


class Begun(msgspec.Struct):
    """What a run began with; a part of `RunState`."""

    method: str
    options: dict[str, Any]


def begun(run_dir: Path) -> Begun | None:
    """What a run began with, without reading its tensors; None where that cannot be read."""
    try:
        return msgspec.json.decode((rounds(run_dir)[-1] / STATE).read_bytes(), type=Begun)
    except (OSError, msgspec.DecodeError):
        return None


def save(
    run_dir: Path,
    state: RunState,
    *,
    weights: Weights,
    best: Weights | None,
    update: dict[str, Any],
    keep: int,
) -> Path:
    """Write the checkpoint of a round, then remove all but the newest `keep`.

    Raises:
        TrainingError: the disk refuses it.
    """
    import torch
    from safetensors.torch import save_file

    target = run_dir / f"round-{state.round:06d}"
    staged = run_dir / f"{_PARTIAL}{target.name}"
    try:
        _clear(run_dir)
        staged.mkdir(parents=True)
        save_file(_contiguous(weights), staged / WEIGHTS)
        if best is not None:
            save_file(_contiguous(best), staged / BEST)
        torch.save(update, staged / UPDATE)
        (staged / STATE).write_bytes(msgspec.json.encode(state))
        _seal(staged)
        if target.exists():
            shutil.rmtree(target)
        staged.rename(target)
        _sync(run_dir)
    except OSError as error:
        raise TrainingError(
            f"the checkpoint {str(target)!r} cannot be written",
            got=error,
            fix="free the disk, or name another with --checkpoint-dir; --save-every 0 writes none",
        ) from error
    prune(run_dir, keep=keep)
    return target


def prune(run_dir: Path, *, keep: int) -> None:
    """Remove all checkpoints of a run but the newest `keep`."""
    for old in rounds(run_dir)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)


def rounds(run_dir: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    found = [path for path in run_dir.glob("round-*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("round-")))


def newest(run_dir: Path) -> Checkpoint:
    """The newest checkpoint that is whole; a damaged one is passed over with a warning.

    Raises:
        CorruptError: there is none, or none is whole.
    """
    damage = []
    for path in reversed(rounds(run_dir)):
        try:
            checkpoint = read(path)
        except CorruptError as error:
            damage.append(str(error).splitlines()[0])
            continue
        for said in damage:
            warnings.warn(f"{said}; going on from {path.name}", RuntimeWarning, stacklevel=2)
        return checkpoint
    raise CorruptError(
        f"no checkpoint in {str(run_dir)!r} can be used",
        expected="a directory round-NNNNNN that is whole",
        got="; ".join(damage) or "none",
        fix="start a new run; a registered adapter is continued with --adapter",
    )


def read(path: Path) -> Checkpoint:
    """Read a checkpoint and hold every file of it against its manifest.

    Raises:
        CorruptError: a file is missing, cut or changed, or another release wrote it.
    """
    try:
        manifest = msgspec.json.decode((path / MANIFEST).read_bytes(), type=dict[str, str])
        for name, expected in manifest.items():
            if _sha256(path / name) != expected:
                raise CorruptError(f"checkpoint {path.name} is damaged: {name} has changed")
        state = msgspec.json.decode((path / STATE).read_bytes(), type=RunState)
    except (OSError, msgspec.DecodeError) as error:
        raise CorruptError(f"checkpoint {path.name} is damaged: {error}") from error
    if state.format != FORMAT:
        raise CorruptError(
            f"checkpoint {path.name} has format {state.format}, this release reads {FORMAT}"
        )
    return Checkpoint(path=path, state=state)


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Hold a run's directory; two processes never train one run.

    Raises:
        TrainingError: another process holds it.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with open(run_dir / LOCK, "a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(
                f"run {run_dir.name} is being trained by another process",
                fix="wait for it, or end it; then resume",
            ) from None
        yield


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    loaded: dict[str, torch.Tensor] = load_file(path)
    return loaded


def _contiguous(weights: Weights) -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous() for name, tensor in weights.items()}


def _clear(run_dir: Path) -> None:
    """Remove what a killed process had staged."""
    for left in run_dir.glob(f"{_PARTIAL}*"):
        shutil.rmtree(left)


def _seal(staged: Path) -> None:
    """Write the manifest, and have everything on disk before the rename."""
    files = sorted(staged.iterdir())
    manifest = {path.name: _sha256(path) for path in files}
    (staged / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    for path in [*files, staged / MANIFEST, staged]:
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
