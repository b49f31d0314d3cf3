"""Where episodes are played: environments by number, and what each of them shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

from gymnasium import Env

from simtune.gym.asking import Choices, choices_for, messages_for
from simtune.gym.outcomes import said_success
from simtune.gym.render import environment_name
from simtune.gym.space_text import plain
from simtune.records import Messages

Options = Mapping[str, Any] | None
"""What `Env.reset` is given as `options`."""


class Shown(NamedTuple):
    """What there is to decide on.

    Attributes:
        prompt: the chat that asks for an answer.
        choices: names of the legal actions; empty where the environment does not say.
        raw: the environment's own observation, as JSON can hold it.
    """

    prompt: Messages
    choices: Choices
    raw: Any


class Stepped(NamedTuple):
    """What an answer led to.

    Attributes:
        shown: the next state.
        reward: of the step.
        terminated: the environment reached a terminal state.
        truncated: a limit cut the episode.
        parsed: the action the answer was read as, None where it was read as none.
        valid: whether it could be read.
        error: why not.
        success: what the environment says about success, if anything.
    """

    shown: Shown
    reward: float
    terminated: bool
    truncated: bool
    parsed: Any
    valid: bool
    error: str | None
    success: bool | None


class Seats(Protocol):
    """Environments that are stepped together."""

    names: list[str]
    """How the store calls each environment."""

    def reset(self, wanted: Sequence[tuple[int, int | None, Options]]) -> list[Shown]:
        """Begin episodes: (seat, seed, options) of each."""

    def step(self, wanted: Sequence[tuple[int, str]]) -> list[Stepped]:
        """Give answers: (seat, answer) of each."""

    def close(self) -> None:
        """Close the environments that were made for it."""


class Seat:
    """One text environment.

    Args:
        env: its spaces are text.
    """

    def __init__(self, env: Env[str, str]) -> None:
        self.env = env

    def reset(self, seed: int | None, options: Options) -> Shown:
        """Begin an episode."""
        observation, info = self.env.reset(
            seed=seed, options=None if options is None else dict(options)
        )
        return self._shown(observation, info)

    def step(self, answer: str) -> Stepped:
        """Give an answer."""
        observation, reward, terminated, truncated, info = self.env.step(answer)
        return Stepped(
            shown=self._shown(observation, info),
            reward=float(reward),
            terminated=bool(terminated),
            truncated=bool(truncated),
            parsed=info.get("action", str(answer)),
            valid=bool(info.get("valid", True)),
            error=info.get("error"),
            success=said_success(info),
        )

    def _shown(self, observation: str, info: dict[str, Any]) -> Shown:
        return Shown(
            messages_for(self.env, observation),
            choices_for(self.env),
            plain(info.get("raw_observation", observation)),
        )


class OwnSeats:
    """Environments in this process, one after the other or in threads.

    Args:
        make: makes one text environment.
        count: how many.
        name: what the store calls them, where they have no registered id.
        threads: threads that step them; 0 for none.
        keep_open: leave them open in the end.
    """

    def __init__(
        self,
        make: Callable[[], Env[str, str]],
        count: int,
        *,
        name: str | None = None,
        threads: int = 0,
        keep_open: bool = False,
    ) -> None:
        self._seats: list[Seat] = []
        self._keep_open = keep_open
        self._pool = ThreadPoolExecutor(threads) if threads else None
        for _ in range(count):
            self._seats.append(Seat(make()))
        self.names = [environment_name(seat.env, name) for seat in self._seats]

    def reset(self, wanted: Sequence[tuple[int, int | None, Options]]) -> list[Shown]:
        """Begin episodes."""
        return self._each(lambda one: self._seats[one[0]].reset(*one[1:]), wanted)

    def step(self, wanted: Sequence[tuple[int, str]]) -> list[Stepped]:
        """Give answers."""
        return self._each(lambda one: self._seats[one[0]].step(one[1]), wanted)

    def close(self) -> None:
        """Close the environments, but one that was given."""
        if self._pool is not None:
            self._pool.shutdown()
        if not self._keep_open:
            for seat in self._seats:
                seat.env.close()

    def _each(self, do: Callable[[Any], Any], wanted: Sequence[Any]) -> list[Any]:
        return list(map(do, wanted) if self._pool is None else self._pool.map(do, wanted))
