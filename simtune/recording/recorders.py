"""Which recorder takes a row: one per store in this process, across forks, until it ends."""

from __future__ import annotations

import atexit
import os
import threading
from pathlib import Path

import msgspec

from simtune import config
from simtune.recording.recorder import Recorder, RecorderStatus
from simtune.recording.spool import is_url, remember_url, spool_directory

_by_root: dict[Path, Recorder] = {}
_active: tuple[config.Config, Recorder] | None = None
_lock = threading.Lock()
_held: list[Recorder] = []


def active() -> Recorder:
    """The recorder of the settings in force."""
    settings = config.current()
    if _active is not None and _active[0] is settings:
        return _active[1]
    return _activate(settings)


def recorder_of(root: str | os.PathLike[str] | None) -> Recorder:
    """The recorder of one store; None means that of the settings in force."""
    if root is None:
        return active()
    return _find(msgspec.structs.replace(config.current(), root=os.fspath(root)))


def recorders() -> list[Recorder]:
    """Every recorder of this process."""
    with _lock:
        return list(_by_root.values())


def statuses() -> list[RecorderStatus]:
    """What each recorder of this process holds, and what it could not take."""
    return [recorder.status() for recorder in recorders()]


def existing(root: str | os.PathLike[str]) -> Recorder | None:
    """The recorder of a store, where this process has captured anything into it."""
    return _by_root.get(local_root(os.fspath(root)))


def local_root(root: str) -> Path:
    """Where the log of a store lies: the store itself, or the local spool of a remote one."""
    return spool_directory(root) if is_url(root) else Path(root).absolute()


def _activate(settings: config.Config) -> Recorder:
    global _active
    recorder = _find(settings)
    recorder.settings = settings
    _active = (settings, recorder)
    return recorder


def _find(settings: config.Config) -> Recorder:
    root = local_root(settings.root)
    with _lock:
        recorder = _by_root.get(root)
        if recorder is None:
            if is_url(settings.root):
                remember_url(root, settings.root)
            recorder = _by_root[root] = Recorder(root, settings)
    return recorder


def _before_fork() -> None:
    # No segment is half made and no write half done at the moment of the fork.
    _lock.acquire()
    _held[:] = _by_root.values()
    for recorder in _held:
        recorder.io.acquire()


def _after_fork_in_parent() -> None:
    for recorder in _held:
        recorder.io.release()
    _held.clear()
    _lock.release()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    for recorder in _held:
        recorder.begin_anew_in_child()
    _held.clear()


def _close_all() -> None:
    for recorder in recorders():
        recorder.close()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
atexit.register(_close_all)
