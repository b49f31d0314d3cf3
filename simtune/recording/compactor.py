"""Has the log compacted by a process of its own, at most one a host for each store.

A file's lock makes it one: this process takes the lock and hands it to the compactor as its
standard input, so it is free again when the compactor ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from pathlib import Path

from simtune.errors import CompactorError
from simtune.recording.directories import make_directory

LOCK = Path("_staging/on-demand.lock")
_PAUSE_SECONDS = 2.0
_PROGRAM = (
    "import os, sys; os.nice(10); from simtune.cli.main import main;"
    " sys.exit(main(['episodes', 'compact', '--store', sys.argv[1]]))"
)


class Compactor:
    """Starts `simtune episodes compact` for one store.

    Args:
        root: directory of the log; that of a remote store knows its URL.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._pid: int | None = None
        self._status = 0
        self._next_start = 0.0

    def ensure(self) -> CompactorError | None:
        """Start a compactor, unless one of this host is at it or one has only just ended.

        Returns:
            Why none could be started, or how the one before failed.
        """
        if time.monotonic() < self._next_start or self._running():
            return None
        self._next_start = time.monotonic() + _PAUSE_SECONDS
        status, self._status = self._status, 0
        if status:
            code = os.waitstatus_to_exitcode(status)
            return self._failed(f"it ended with code {code}")
        try:
            self._start()
        except OSError as error:
            return self._failed(str(error))
        return None

    def _running(self) -> bool:
        """Whether the compactor that this process started still runs; collects it where not."""
        if self._pid is None:
            return False
        try:
            ended, self._status = os.waitpid(self._pid, os.WNOHANG)
        except ChildProcessError:  # the simulation has collected it
            ended = self._pid
        if ended:
            self._pid = None
        return not ended

    def _start(self) -> None:
        path = self._root / LOCK
        make_directory(path.parent)
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.truncate(fd, 0)
            self._pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-P", "-c", _PROGRAM, str(self._root)],
                os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, fd, standard) for standard in (0, 1, 2)],
                setpgroup=0,  # a Ctrl-C at the simulation's terminal is not meant for it
            )
        except BlockingIOError:  # another process's compactor is at it
            return
        finally:
            os.close(fd)

    def _failed(self, got: str) -> CompactorError:
        return CompactorError(
            f"the log in {self._root} has become large, and no compactor could run",
            got=f"{got}; {self._root / LOCK} holds what it said",
            fix=f"run `simtune episodes compact --store {self._root}`",
        )
