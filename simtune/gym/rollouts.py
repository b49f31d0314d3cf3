"""`rollout`: play episodes with a policy, many environments at a time, and capture them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, TypeAlias

from gymnasium import Env

from simtune.errors import EnvironmentSpecError, OptionError
from simtune.gym.asking import Act, Policy, batched
from simtune.gym.environments import as_text, make
from simtune.gym.render import environment_name
from simtune.gym.slot import Log, Slot, Unrecorded
from simtune.recording import open_episode
from simtune.records import Episode

EnvironmentSource: TypeAlias = Env[Any, Any] | str | Callable[[], Env[Any, Any]]
"""An environment, a spec for `make`, or a function that makes an environment."""


def rollout(
    env: EnvironmentSource,
    policy: Policy,
    *,
    episodes: int,
    seed: int = 0,
    num_envs: int = 16,
    root: str | None = None,
    run_id: str | None = None,
    on_episode: Callable[[Episode], None] | None = None,
    capture: bool = True,
) -> list[Episode]:
    """Play episodes, ask the policy for every decision, and capture each with its tokens.

    Given a spec or a function, up to `num_envs` environments are stepped together with one call
    of `policy.act` per step, and a slot that becomes free starts the next episode at once. Given
    an environment, its episodes follow each other in it; it stays open.

    Args:
        env: what to play in; wrapped in `TextEnv` unless its spaces are text.
        policy: `(messages) -> text`, or an object with `act(prompts) -> list of Reply`.
        episodes: how many to play.
        seed: episode i is reset with seed `seed + i`.
        num_envs: environments stepped together.
        root: directory of the store; None: the configured one.
        run_id: groups the episodes of one run.
        on_episode: called with each finished episode, as they finish.
        capture: False writes nothing (evaluation).

    Returns:
        The episodes in the order of their seeds, as `simtune.read(root)` would give them but for
        the time stamps.

    Raises:
        OptionError: a count below one, or a policy that is none or does not answer in text.
        EnvironmentSpecError: the environment cannot be made or put into text.
    """
    for name, value in (("episodes", episodes), ("num_envs", num_envs)):
        if value < 1:
            raise OptionError(f"{name} is too small", expected="at least 1", got=value)
    act = batched(policy)
    open_log: Callable[..., Log] = _unrecorded
    if capture:
        open_log = partial(open_episode, root=root)
    played: dict[int, Episode] = {}
    with _Slots(env, min(num_envs, episodes), run_id) as slots:
        for index, episode in _play(slots, act, episodes, seed, open_log):
            played[index] = episode
            if on_episode is not None:
                on_episode(episode)
    return [played[index] for index in range(episodes)]


def _play(
    slots: list[Slot], act: Act, episodes: int, seed: int, open_log: Callable[..., Log]
) -> Iterator[tuple[int, Episode]]:
    """Play every episode; gives each with its index when it ends."""
    waiting = iter(range(episodes))
    free, busy = list(slots), []
    while True:
        for slot, index in zip(free, waiting, strict=False):
            slot.start(index, seed + index, open_log)
            busy.append(slot)
        if not busy:
            return
        asked = time.perf_counter_ns()
        answers = act([slot.prompt for slot in busy])
        latency_us = (time.perf_counter_ns() - asked) // 1000
        free = []
        for slot, answer in zip(busy, answers, strict=True):
            episode = slot.step(answer, latency_us)
            if episode is not None:
                free.append(slot)
                yield slot.index, episode
        busy = [slot for slot in busy if slot.log is not None]


def _unrecorded(**_: Any) -> Log:
    return Unrecorded()


class _Slots:
    """The environments of one roll-out; on an error their open episodes are kept as aborted."""

    def __init__(self, env: EnvironmentSource, count: int, run_id: str | None) -> None:
        self._owned = not isinstance(env, Env)
        make_one, name = _maker(env)
        if not self._owned:
            count = 1
        self._slots: list[Slot] = []
        for _ in range(count):
            made = make_one()
            self._slots.append(Slot(made, environment_name(made, name), run_id))

    def __enter__(self) -> list[Slot]:
        return self._slots

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for slot in self._slots:
            if slot.log is not None:
                slot.log.__exit__(kind, error, trace)
            if self._owned:
                slot.env.close()


def _maker(env: EnvironmentSource) -> tuple[Callable[[], Env[str, str]], str | None]:
    """How to make one text environment, and the name that its episodes are stored under."""
    if isinstance(env, Env):
        return lambda: as_text(env), None
    if isinstance(env, str):
        return lambda: make(env), env

    def made() -> Env[str, str]:
        new = env()
        if not isinstance(new, Env):
            raise EnvironmentSpecError(
                "the environment factory did not return an environment",
                expected="gymnasium.Env",
                got=type(new).__name__,
            )
        return as_text(new)

    return made, None
