"""From what was given as the environment to environments that can be stepped together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeAlias

from gymnasium import Env
from gymnasium.vector import SyncVectorEnv, VectorEnv

from simtune.errors import EnvironmentSpecError, OptionError
from simtune.gym.environments import as_text, build
from simtune.gym.history import History, remember
from simtune.gym.seats import OwnSeats, Seats
from simtune.gym.vector_seats import VectorSeats

EnvironmentSource: TypeAlias = (
    Env[Any, Any]
    | VectorEnv[Any, Any, Any]
    | str
    | Callable[[], Env[Any, Any] | VectorEnv[Any, Any, Any]]
)
"""An environment, a vector environment, a spec for `build`, or a function that makes one."""

WorkerKind: TypeAlias = Literal["process", "thread"]


def seats_for(
    env: EnvironmentSource, count: int, workers: int, kind: WorkerKind, history: History | None
) -> Seats:
    """Make or take environments.

    Args:
        env: what was given.
        count: how many to make of a spec or a function.
        workers: threads or processes to step them; 0: this thread.
        kind: of the workers.
        history: earlier turns in the chats; None leaves it to the environment.

    Raises:
        OptionError: workers that cannot be had for this.
        EnvironmentSpecError: it is no environment.
    """
    if workers < 0 or kind not in ("process", "thread"):
        raise OptionError(
            "there are no such workers",
            expected="workers of at least 0, worker_kind process or thread",
            got=f"workers={workers}, worker_kind={kind!r}",
        )
    if isinstance(env, (Env, VectorEnv)) or (not callable(env) and not isinstance(env, str)):
        _refuse_workers(workers, env)
        return _given(env, history, keep_open=True)
    name = env if isinstance(env, str) else None
    source = partial(build, env) if isinstance(env, str) else env
    make_one = Made(source, history)
    if workers and kind == "process":
        from simtune.gym.workers import ProcessSeats

        return ProcessSeats(make_one, count, workers=min(workers, count), name=name)
    first = source()
    if isinstance(first, VectorEnv):
        _refuse_workers(workers, first)
        return _given(first, history, keep_open=False)
    make_one = Made(source, history, first)
    return OwnSeats(make_one, count, name=name, threads=min(workers, count))


def check_source(make: Callable[[], Any], *, workers: int = 0) -> None:
    """Make an environment, put it into text and close it, so that a wrong one is found early.

    Raises:
        OptionError: it is a vector environment, and there are workers.
        EnvironmentSpecError: it cannot be used.
    """
    made = make()
    if isinstance(made, VectorEnv):
        _refuse_workers(workers, made)
    seats_for(lambda: made, 1, 0, "process", None).close()


class Made:
    """Makes one text environment after the other; pickles where the source does.

    Args:
        source: a function.
        history: earlier turns in the chats.
        first: an environment of the source that was made already.
    """

    def __init__(
        self,
        source: Callable[[], Any],
        history: History | None,
        first: object | None = None,
    ) -> None:
        self._source = source
        self._history = history
        self._first = first

    def __call__(self) -> Env[str, str]:
        """Make one."""
        made, self._first = self._first or self._source(), None
        return _text(made, self._history)


def _text(made: object, history: History | None) -> Env[str, str]:
    if isinstance(made, VectorEnv):
        _refuse_workers(1, made)
    if not isinstance(made, Env):
        raise EnvironmentSpecError(
            "this is not an environment",
            expected="a gymnasium.Env, a vector environment, a spec, or a function that makes one",
            got=type(made).__name__,
        )
    env = as_text(made)
    remember(env, history)
    return env


def _given(env: Any, history: History | None, *, keep_open: bool) -> Seats:
    """One environment, or the parts of a vector environment."""
    if isinstance(env, SyncVectorEnv):
        # Its parts are environments like any other, with words of their own.
        parts = iter(env.envs)
        return OwnSeats(lambda: _text(next(parts), history), env.num_envs, keep_open=keep_open)
    if isinstance(env, VectorEnv):
        return VectorSeats(env, partial(_text, history=history), keep_open=keep_open)
    return OwnSeats(lambda: _text(env, history), 1, keep_open=keep_open)


def _refuse_workers(workers: int, env: object) -> None:
    if workers:
        raise OptionError(
            "workers make environments of their own, and cannot step one that exists",
            expected="no workers, or a spec or function that makes a single environment",
            got=env,
        )
