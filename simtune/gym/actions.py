"""The names of an environment's actions, and how an answer is read as one of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from simtune.errors import EnvironmentSpecError


class Parsed(NamedTuple):
    """What an answer was read as.

    Attributes:
        name: the action's name, or None where the answer names none or several.
        problem: why there is no name, in words for the model; empty where there is one.
    """

    name: str | None
    problem: str


class ActionNames:
    """Names for the actions of one environment.

    An answer is an action if it is the name itself, or if exactly one name occurs in it as a
    whole word. Case does not matter, nor does what surrounds the word.

    Args:
        actions: each name with the action it stands for.

    Raises:
        EnvironmentSpecError: no names, an empty name, or two names that differ by case only.
    """

    def __init__(self, actions: Mapping[str, Any]) -> None:
        self.actions = dict(actions)
        self.names = tuple(self.actions)
        self.listed = ", ".join(self.names)
        self._by_key = {name.strip().casefold(): name for name in self.names}
        if not self.names or "" in self._by_key or len(self._by_key) != len(self.names):
            raise EnvironmentSpecError(
                "the actions' names cannot be told apart",
                expected="at least one name, none empty, none equal to another but for case",
                got=list(self.names),
            )
        # Longest first, so that "pick up" is not read as "up".
        words = sorted(self._by_key, key=len, reverse=True)
        self._word = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)")

    def legal(self, mask: Any, space: spaces.Space[Any]) -> tuple[str, ...]:
        """The names whose actions a mask of a Discrete space allows; all without a mask.

        A mask that allows none of them says nothing, since something has to be done.
        """
        if mask is None or not isinstance(space, spaces.Discrete):
            return self.names
        allowed = tuple(
            name for name, action in self.actions.items() if mask[int(action) - int(space.start)]
        )
        return allowed or self.names

    def parse(self, answer: str) -> Parsed:
        """Read an answer as an action."""
        key = answer.strip().casefold()
        name = self._by_key.get(key)
        if name is not None:
            return Parsed(name, "")
        found = dict.fromkeys(self._word.findall(key))
        if len(found) == 1:
            return Parsed(self._by_key[next(iter(found))], "")
        if found:
            several = ", ".join(self._by_key[word] for word in found)
            return Parsed(None, f"the answer names several actions: {several}")
        return Parsed(None, "the answer names no action")


def name_actions(
    space: spaces.Space[Any], actions: Mapping[str, Any] | Sequence[str] | None, owner: str
) -> ActionNames:
    """Names for the actions of a space: the caller's, or the numbers of a Discrete space.

    Args:
        space: the environment's action space.
        actions: names with their actions, or for a Discrete space names in action order.
        owner: the environment's name, for errors.

    Raises:
        EnvironmentSpecError: the space is not Discrete and `actions` is no mapping, or an action
            is not in the space.
    """
    if isinstance(actions, Mapping):
        return ActionNames(
            {name: _checked(space, name, action, owner) for name, action in actions.items()}
        )
    if not isinstance(space, spaces.Discrete):
        raise EnvironmentSpecError(
            f"the actions of {owner} have no names",
            expected="a Discrete action space, or a mapping of names to actions",
            got=space,
            fix='pass actions={"name": action, ...} to TextEnv with the actions to choose from',
        )
    numbers = range(int(space.start), int(space.start + space.n))
    if actions is None:
        return ActionNames({str(number): number for number in numbers})
    if len(actions) != len(numbers):
        raise EnvironmentSpecError(
            f"{owner} has {len(numbers)} actions, but {len(actions)} names were given",
            expected=f"a name for each of {numbers.start} to {numbers.stop - 1}, in that order",
            got=list(actions),
        )
    return ActionNames(dict(zip(actions, numbers, strict=True)))


def _checked(space: spaces.Space[Any], name: str, action: Any, owner: str) -> Any:
    """The action in the form its space wants: lists and numbers become arrays of its type."""
    if isinstance(space, (spaces.Box, spaces.MultiDiscrete, spaces.MultiBinary)):
        action = np.asarray(action, dtype=space.dtype)
    if not space.contains(action):
        raise EnvironmentSpecError(
            f"action {name!r} is not an action of {owner}", expected=space, got=repr(action)
        )
    return action
