"""`rollout` and `Player`: play episodes with a policy, many at a time, and capture them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, TypeAlias

from simtune.errors import OptionError
from simtune.gym.asking import Act, Policy, batched
from simtune.gym.curriculum import Curriculum, Progress
from simtune.gym.history import History
from simtune.gym.seating import EnvironmentSource, WorkerKind, seats_for
from simtune.gym.seats import Shown
from simtune.gym.slot import Log, Slot, Unrecorded
from simtune.recording import flush, open_episode
from simtune.recording.guard import guarded
from simtune.records import Episode

Seeds: TypeAlias = int | Sequence[int] | Callable[[int], int]
"""Of episode i: `seeds + i`, `seeds[i]` or `seeds(i)`."""


class Player:
    """Environments that are made once and played in as often as wanted; a context manager.

    Given a spec or a function, up to `num_envs` environments are stepped together with one call
    of `policy.act` per step, and one that ends its episode starts the next at once. Given an
    environment, its episodes follow each other in it; it stays open. A vector environment is as
    many as it holds.

    What is played depends on the seeds and the policy only, not on the number of workers.

    Args:
        env: what to play in; wrapped in `TextEnv` unless its spaces are text.
        policy: `(messages) -> text`, or an object with `act(prompts) -> list of Reply`.
        num_envs: environments stepped together.
        root: directory of the store; None: the configured one.
        run_id: groups the episodes of one run.
        capture: False writes nothing (evaluation).
        workers: threads or processes that step the environments; 0: this thread.
        worker_kind: `process` or `thread`; processes need a spec or a function that pickles.
        history: earlier turns in the chats; None leaves it to the environment.
        progress: of earlier play that this goes on from, for the curriculum.

    Raises:
        OptionError: a count below one, or a policy that is none.
        EnvironmentSpecError: the environment cannot be made or put into text.
    """

    def __init__(
        self,
        env: EnvironmentSource,
        policy: Policy,
        *,
        num_envs: int = 16,
        root: str | None = None,
        run_id: str | None = None,
        capture: bool = True,
        workers: int = 0,
        worker_kind: WorkerKind = "process",
        history: History | None = None,
        progress: Progress | None = None,
    ) -> None:
        if num_envs < 1:
            raise OptionError("num_envs is too small", expected="at least 1", got=num_envs)
        self._act: Act = batched(policy)
        self._forget: Callable[[], None] | None = getattr(policy, "forget", None)
        self._captures = capture
        self._open_log: Callable[..., Log] = (
            partial(open_episode, root=root) if capture else _unrecorded
        )
        self._seats = seats_for(env, num_envs, workers, worker_kind, history)
        self._slots = [Slot(at, name, run_id) for at, name in enumerate(self._seats.names)]
        self.progress = Progress() if progress is None else progress

    def play(
        self,
        *,
        episodes: int,
        seeds: Seeds = 0,
        curriculum: Curriculum | None = None,
        on_episode: Callable[[Episode], None] | None = None,
    ) -> list[Episode]:
        """Play episodes; what was captured of them is on stable storage on return.

        Args:
            episodes: how many.
            seeds: each is reset with its own; a number is the first one's, and they count up.
            curriculum: `(index, stats) -> options` for each reset, the index counting all episodes
                of this player; see `Progress.stats`.
            on_episode: called with each finished episode, as they finish.

        Returns:
            The episodes in the order of their seeds, as `simtune.read(root)` would give them but
            for the time stamps.

        Raises:
            OptionError: less than one episode, too few seeds, or a policy that does not answer in
                text.
            WorkerError: a worker died, or an environment raised in one.
        """
        if episodes < 1:
            raise OptionError("episodes is too small", expected="at least 1", got=episodes)
        if self._forget is not None:
            # What is drawn must not depend on what was asked before: runs can be resumed.
            self._forget()
        played: dict[int, Episode] = {}
        try:
            for index, episode in self._play(_starts(episodes, seeds), curriculum):
                played[index] = episode
                self.progress.add(episode)
                if on_episode is not None:
                    on_episode(episode)
        except BaseException as error:  # noted in the episodes, and on its way again
            for slot in self._slots:
                slot.abort(error)
            raise
        if self._captures:
            # Whoever learns from these may be killed at once: what it learned from is on disk.
            guarded(flush)
        return [played[index] for index in range(episodes)]

    def close(self) -> None:
        """Close the environments, but one that was given."""
        self._seats.close()

    def __enter__(self) -> Player:
        """The player itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the environments."""
        self.close()

    def _play(
        self, starts: Sequence[int], curriculum: Curriculum | None
    ) -> Iterator[tuple[int, Episode]]:
        """Play every episode; gives each with its index when it ends."""
        before = self.progress.episodes
        waiting = iter(enumerate(starts))
        free: list[Slot] = list(self._slots)
        busy: list[Slot] = []
        while True:
            begun = []
            for slot, (index, seed) in zip(free, waiting, strict=False):
                options = None
                if curriculum is not None:
                    options = curriculum(before + index, self.progress.stats())
                begun.append((slot, index, seed, options))
            shown = self._seats.reset([(slot.seat, seed, opts) for slot, _, seed, opts in begun])
            for (slot, index, seed, options), state in zip(begun, shown, strict=True):
                slot.start(index, seed, options, state, self._open_log)
                busy.append(slot)
            if not busy:
                return
            free = []
            for slot, episode in self._step(busy):
                if episode is not None:
                    free.append(slot)
                    yield slot.index, episode
            busy = [slot for slot in busy if slot.log is not None]

    def _step(self, busy: Sequence[Slot]) -> Iterator[tuple[Slot, Episode | None]]:
        """One decision of every open episode."""
        asked = time.perf_counter_ns()
        states: list[Shown] = [slot.shown for slot in busy]
        answers = self._act([one.prompt for one in states], [one.choices for one in states])
        latency_us = (time.perf_counter_ns() - asked) // 1000
        stepped = self._seats.step(
            [(slot.seat, answer) for slot, answer in zip(busy, answers, strict=True)]
        )
        for slot, answer, after in zip(busy, answers, stepped, strict=True):
            yield slot, slot.step(answer, after, latency_us)


def rollout(
    env: EnvironmentSource,
    policy: Policy,
    *,
    episodes: int,
    seed: Seeds = 0,
    num_envs: int = 16,
    root: str | None = None,
    run_id: str | None = None,
    on_episode: Callable[[Episode], None] | None = None,
    capture: bool = True,
    workers: int = 0,
    worker_kind: WorkerKind = "process",
    history: History | None = None,
    curriculum: Curriculum | None = None,
) -> list[Episode]:
    """Play episodes once: a `Player` that is closed afterwards; see there for the arguments.

    Raises:
        OptionError: a count below one, or a policy that is none or does not answer in text.
        EnvironmentSpecError: the environment cannot be made or put into text.
        WorkerError: a worker died, or an environment raised in one.
    """
    if episodes < 1:
        raise OptionError("episodes is too small", expected="at least 1", got=episodes)
    player = Player(
        env,
        policy,
        num_envs=min(num_envs, episodes),
        root=root,
        run_id=run_id,
        capture=capture,
        workers=workers,
        worker_kind=worker_kind,
        history=history,
    )
    with player:
        return player.play(
            episodes=episodes, seeds=seed, curriculum=curriculum, on_episode=on_episode
        )


def _starts(episodes: int, seeds: Seeds) -> list[int]:
    if isinstance(seeds, int):
        return [seeds + index for index in range(episodes)]
    if callable(seeds):
        return [seeds(index) for index in range(episodes)]
    if len(seeds) < episodes:
        raise OptionError(
            "there are fewer seeds than episodes",
            expected=f"at least {episodes} seeds",
            got=len(seeds),
        )
    return list(seeds[:episodes])


def _unrecorded(**_: Any) -> Log:
    return Unrecorded()
