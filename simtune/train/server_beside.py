"""`--serve PORT`: `simtune serve` in a process of its own, as long as the trainer runs."""

from __future__ import annotations

import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from simtune.errors import TrainingError
from simtune.train.options import PPOOptions, SFTOptions

READY = "simtune serves on "

_PROGRAM = """
import os, signal, sys, threading

def end_with_the_trainer():
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=end_with_the_trainer, daemon=True).start()
from simtune.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
"""Standard input ends when the trainer does, however it does."""

_SECONDS_TO_END = 10.0
_SECONDS_BEFORE_ANOTHER = 1.0


@contextmanager
def server_beside(options: PPOOptions | SFTOptions) -> Iterator[None]:
    """Serve the base, `latest` and `champion`, capturing into the followed store; or do nothing.

    A server that dies is started again, with a warning.

    Raises:
        TrainingError: it ended before it listened; what it said is on stderr.
    """
    if options.serve is None:
        yield
        return
    server = _Server(options)
    try:
        server.start()
        yield
    finally:
        server.stop()


class _Server:
    def __init__(self, options: PPOOptions | SFTOptions) -> None:
        self._arguments = [
            *("serve", "--llm-path", options.llm_path, "--models-dir", options.models_dir),
            *("--port", str(options.serve), "--capture", str(options.store)),
        ]
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._process = self._begin()
        self._watch = threading.Thread(target=self._keep_alive, daemon=True)

    def start(self) -> None:
        if not self._listens():
            raise TrainingError(
                "the server beside the trainer could not start",
                got=f"exit code {self._process.wait()}",
                fix="see what it said above; --serve 0 takes a free port",
            )
        self._watch.start()

    def stop(self) -> None:
        with self._lock:
            self._ending.set()
            self._process.terminate()
        try:
            self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._process.communicate()
        if self._watch.is_alive():
            self._watch.join()

    def _begin(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Ctrl-C is the trainer's: it ends the server when its own round is done.
            start_new_session=True,
        )

    def _listens(self) -> bool:
        """Wait until the server says where it listens, and pass that on; False where it ends."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            sys.stderr.write(line)
            sys.stderr.flush()
            if line.startswith(READY):
                return True
        return False

    def _keep_alive(self) -> None:
        while True:
            code = self._process.wait()
            if self._ending.wait(_SECONDS_BEFORE_ANOTHER):
                return
            warnings.warn(
                f"the server ended with code {code}; another one is started",
                RuntimeWarning,
                stacklevel=1,
            )
            self._process.communicate()
            with self._lock:
                if self._ending.is_set():
                    return
                self._process = self._begin()
            self._listens()
