"""A vector environment whose parts are stepped by one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import Env, spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import iterate

from simtune.errors import EnvironmentSpecError
from simtune.gym.render import environment_name
from simtune.gym.seats import Options, Seat, Shown, Stepped
from simtune.gym.text_env import TextEnv


class Part(Env[Any, Any]):
    """One part of a vector environment; `reset` and `step` give what the vector call gave."""

    def __init__(self, vector: VectorEnv[Any, Any, Any]) -> None:
        self.observation_space = vector.single_observation_space
        self.action_space = vector.single_action_space
        # A vector of separate environments has no spec of its own, but each of them may.
        get = getattr(vector, "get_attr", None)
        self.spec = vector.spec or (get("spec")[0] if get is not None else None)
        self.latest: tuple[Any, ...] = ()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """What the vector's reset gave this part."""
        observation, info = self.latest
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """What the vector's step gave this part."""
        observation, reward, terminated, truncated, info = self.latest
        return observation, reward, terminated, truncated, info


class VectorSeats:
    """The parts of a vector environment as seats.

    The whole vector moves at once. A part whose answer cannot be read cannot stand still, so there
    such an answer ends the episode, as with `max_invalid=1`; a part that waits moves at random.

    Args:
        vector: made with `AutoresetMode.DISABLED`, so that each episode has its own seed.
        text: puts a part into text.
        keep_open: leave it open in the end.

    Raises:
        EnvironmentSpecError: it resets its parts itself.
    """

    def __init__(
        self,
        vector: VectorEnv[Any, Any, Any],
        text: Callable[[Env[Any, Any]], Env[str, str]],
        *,
        keep_open: bool,
    ) -> None:
        mode = vector.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.DISABLED:
            raise EnvironmentSpecError(
                "this vector environment resets its parts itself, so episodes have no seeds",
                expected="AutoresetMode.DISABLED",
                got=mode,
                fix='gymnasium.make_vec(id, num_envs=8, vectorization_mode="async", '
                'vector_kwargs={"autoreset_mode": gymnasium.vector.AutoresetMode.DISABLED})',
            )
        self._vector = vector
        self._keep_open = keep_open
        self._parts = [Part(vector) for _ in range(vector.num_envs)]
        self._texts = [text(part) for part in self._parts]
        for one in self._texts:
            if isinstance(one, TextEnv):
                one.max_invalid = 1
        self._seats = [Seat(one) for one in self._texts]
        self._over = np.ones(vector.num_envs, dtype=np.bool_)
        self.names = [environment_name(part) for part in self._parts]

    def reset(self, wanted: Sequence[tuple[int, int | None, Options]]) -> list[Shown]:
        """Begin episodes; those with equal options in one call."""
        shown: dict[int, Shown] = {}
        left = list(wanted)
        while left:
            options = left[0][2]
            same = [one for one in left if one[2] == options]
            left = [one for one in left if one[2] != options]
            self._reset({seat: seed for seat, seed, _ in same}, options)
            for seat, seed, _ in same:
                shown[seat] = self._seats[seat].reset(seed, options)
        return [shown[seat] for seat, _, _ in wanted]

    def step(self, wanted: Sequence[tuple[int, str]]) -> list[Stepped]:
        """Give answers; parts without one move at random, in an episode that nobody sees."""
        answers = dict(wanted)
        idle = {seat: None for seat in range(len(self._seats)) if self._over[seat]}
        if idle:
            self._reset(idle, None)
        space = self._vector.single_action_space
        actions = [
            self._action(seat, answers[seat]) if seat in answers else space.sample()
            for seat in range(len(self._seats))
        ]
        results = self._vector.step(_batched(space, actions))
        observations, rewards, terminated, truncated, infos = results
        self._over = np.logical_or(terminated, truncated)
        rows = list(iterate(self._vector.observation_space, observations))
        for seat in answers:
            self._parts[seat].latest = (
                rows[seat],
                float(rewards[seat]),
                bool(terminated[seat]),
                bool(truncated[seat]),
                part_info(infos, seat),
            )
        return [self._seats[seat].step(answer) for seat, answer in wanted]

    def close(self) -> None:
        """Close the vector environment, but one that was given."""
        if not self._keep_open:
            self._vector.close()

    def _action(self, seat: int, answer: str) -> Any:
        text = self._texts[seat]
        action = text.read(answer) if isinstance(text, TextEnv) else answer
        return self._vector.single_action_space.sample() if action is None else action

    def _reset(self, seeds: Mapping[int, int | None], options: Options) -> None:
        size = len(self._seats)
        mask = np.zeros(size, dtype=np.bool_)
        mask[list(seeds)] = True
        observations, infos = self._vector.reset(
            # Every vector environment with a reset mask takes a list; the base class says int.
            seed=[seeds.get(seat) for seat in range(size)],  # type: ignore[arg-type]
            options={**(options or {}), "reset_mask": mask},
        )
        self._over[mask] = False
        rows = list(iterate(self._vector.observation_space, observations))
        for seat in seeds:
            self._parts[seat].latest = (rows[seat], part_info(infos, seat))


def part_info(infos: Mapping[str, Any], seat: int) -> dict[str, Any]:
    """The info of one part: gymnasium keeps arrays, and `_name` says which parts have a value."""
    found = {}
    for name, values in infos.items():
        has = infos.get(f"_{name}")
        if has is None or not has[seat]:
            continue
        found[name] = part_info(values, seat) if isinstance(values, dict) else values[seat]
    return found


def _batched(space: spaces.Space[Any], actions: Sequence[Any]) -> Any:
    if isinstance(space, spaces.Discrete):
        return np.asarray(actions, dtype=space.dtype)
    if isinstance(space, (spaces.Box, spaces.MultiDiscrete, spaces.MultiBinary)):
        return np.stack(actions)
    return tuple(actions)
