"""Environments in processes of their own, for simulators that take longer than the policy."""

from __future__ import annotations

import multiprocessing
import pickle
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from gymnasium import Env

from simtune.errors import OptionError, WorkerError
from simtune.gym.seats import Options, OwnSeats, Shown, Stepped

CLOSE_SECONDS = 5.0
"""How long a worker has for closing its environments, before it is killed."""

Make = Callable[[], Env[str, str]]


class ProcessSeats:
    """Environments spread over worker processes; each worker owns some seats for good.

    Requests go to all workers before the first answer is awaited, and answers are taken in the
    order of the seats, so what comes out does not depend on who is faster.

    Args:
        make: makes one text environment; pickled.
        count: environments in all.
        workers: processes, at most `count`.
        name: what the store calls the environments, where they have no registered id.

    Raises:
        OptionError: `make` cannot be sent to a process.
        WorkerError: a worker could not make its environments.
    """

    def __init__(self, make: Make, count: int, *, workers: int, name: str | None) -> None:
        try:
            pickle.dumps(make)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise OptionError(
                "this environment cannot be made in another process",
                expected="a spec, or a function that pickles, such as one of a module",
                got=str(error),
                fix="worker_kind=thread; or name it module:function",
            ) from error
        self._workers: list[_Worker] = []
        self._at: list[tuple[_Worker, int]] = []
        for number in range(workers):
            share = range(number * count // workers, (number + 1) * count // workers)
            worker = _Worker(number, make, len(share), name)
            self._workers.append(worker)
            self._at += [(worker, at) for at in range(len(share))]
        self.names: list[str] = [name for made in self._answers(self._workers) for name in made]

    def reset(self, wanted: Sequence[tuple[int, int | None, Options]]) -> list[Shown]:
        """Begin episodes."""
        return self._each("reset", wanted)

    def step(self, wanted: Sequence[tuple[int, str]]) -> list[Stepped]:
        """Give answers."""
        return self._each("step", wanted)

    def close(self) -> None:
        """Let the workers close their environments, and end them."""
        for worker in self._workers:
            worker.end()
        self._workers = []

    def _each(self, method: str, wanted: Sequence[tuple[Any, ...]]) -> list[Any]:
        asked: dict[int, list[tuple[Any, ...]]] = {}
        for seat, *what in wanted:
            worker, at = self._at[seat]
            asked.setdefault(worker.number, []).append((at, *what))
        for number, requests in asked.items():
            self._send(self._workers[number], (method, requests))
        answers = {
            number: iter(answer)
            for number, answer in zip(
                asked, self._answers([self._workers[number] for number in asked]), strict=True
            )
        }
        return [next(answers[self._at[seat][0].number]) for seat, *_ in wanted]

    def _send(self, worker: _Worker, request: object) -> None:
        try:
            worker.pipe.send(request)
        except OSError as error:
            raise self._died(worker) from error

    def _answers(self, workers: Sequence[_Worker]) -> list[Any]:
        found = []
        for worker in workers:
            try:
                answer, failure = worker.pipe.recv()
            except (EOFError, OSError) as error:
                raise self._died(worker) from error
            if failure is not None:
                self.close()
                raise WorkerError(
                    f"an environment raised in worker {worker.number}: {failure[0]}",
                    got=failure[1],
                )
            found.append(answer)
        return found

    def _died(self, worker: _Worker) -> WorkerError:
        worker.process.join(CLOSE_SECONDS)
        code = worker.process.exitcode
        self.close()
        return WorkerError(
            f"worker {worker.number}, which steps environments, died",
            got=f"exit code {code}" + (" (killed by a signal)" if code and code < 0 else ""),
            fix="look for memory, or run with workers=0 to see where it happens",
        )


class _Worker:
    def __init__(self, number: int, make: Make, count: int, name: str | None) -> None:
        # Spawned, not forked: torch's threads and the log's flusher do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self.number = number
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, make, count, name), daemon=True)
        self.process.start()
        theirs.close()

    def end(self) -> None:
        if self.process.is_alive():
            try:
                self.pipe.send(None)
            except OSError:
                self.process.kill()
            self.process.join(CLOSE_SECONDS)
            if self.process.is_alive():
                self.process.kill()
                self.process.join()
        self.pipe.close()


def serve(pipe: Connection, make: Make, count: int, name: str | None) -> None:
    """What a worker does: make environments, then answer requests until there is none.

    Args:
        pipe: to the process that plays.
        make: makes one text environment.
        count: how many.
        name: what the store calls them, where they have no registered id.
    """
    with _Reporting(pipe):
        seats = OwnSeats(make, count, name=name)
        pipe.send((seats.names, None))
        while (request := pipe.recv()) is not None:
            method, wanted = request
            pipe.send((getattr(seats, method)(wanted), None))
        seats.close()


class _Reporting:
    """Sends an exception to the process that plays, where it ends this one."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if error is None or isinstance(error, (EOFError, OSError, KeyboardInterrupt)):
            return error is not None  # the other side is gone, or being interrupted itself
        text = "".join(traceback.format_exception(error))
        self._pipe.send((None, (f"{type(error).__name__}: {error}", text)))
        return True
