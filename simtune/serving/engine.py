"""The thread that owns the models: every lane that has work takes a step, again and again."""

from __future__ import annotations

import queue
import sys
import threading
import traceback
from collections.abc import Callable, Sequence

import torch

from simtune.serving.asks import Ask
from simtune.serving.lane import Lane

STOPPED = "the engine has stopped"


class Engine:
    """Runs lanes until stopped; `submit` may be called from any thread.

    Args:
        wake: told, from the engine's thread, which answers have news.
    """

    def __init__(self, wake: Callable[[Sequence[Ask]], None]) -> None:
        self._wake = wake
        self._inbox: queue.SimpleQueue[tuple[Lane, Ask] | None] = queue.SimpleQueue()
        self._active: list[Lane] = []
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="simtune-engine", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether answers can be had."""
        return self._thread.is_alive() and not self._stopping

    @property
    def waiting(self) -> int:
        """Answers that wait for a place."""
        return self._inbox.qsize() + sum(len(lane.waiting) for lane in list(self._active))

    def submit(self, lane: Lane, ask: Ask) -> None:
        """Have an answer written by a lane; it stays with that lane, whatever is swapped."""
        self._inbox.put((lane, ask))

    def stop(self) -> None:
        """End; answers that are being written fail."""
        self._stopping = True
        self._inbox.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            with torch.inference_mode():
                while not self._stopping:
                    self._receive()
                    for lane in list(self._active):
                        self._step(lane)
        finally:
            # Also where a defect ended the thread: nobody waits for ever, and /health says so.
            self._stopping = True
            self._give_up()

    def _receive(self) -> None:
        """Take in what was submitted; waits where there is nothing else to do."""
        block = not self._active
        while not (self._inbox.empty() and not block):
            item = self._inbox.get()
            block = False
            if item is not None:
                lane, ask = item
                lane.waiting.append(ask)
                if lane not in self._active:
                    self._active.append(lane)

    def _step(self, lane: Lane) -> None:
        try:
            news = lane.step()
        except (RuntimeError, ValueError) as error:
            # What torch raises: out of memory, weights that are not finite. Other lanes go on.
            traceback.print_exc(file=sys.stderr)
            news = lane.fail(f"{type(error).__name__}: {error}".splitlines()[0])
        if not lane.busy:
            self._active.remove(lane)
        if news:
            self._wake(news)

    def _give_up(self) -> None:
        lost = [ask for lane in self._active for ask in lane.fail(STOPPED)]
        while not self._inbox.empty():
            item = self._inbox.get()
            if item is not None:
                item[1].fail(STOPPED)
                lost.append(item[1])
        if lost:
            self._wake(lost)
