"""Observations of any space as text, and as plain values that JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from simtune.errors import EnvironmentSpecError

LARGEST_ARRAY = 512
"""Numbers in one array beyond which text is no sensible form (images, point clouds)."""


def check_readable(space: spaces.Space[Any], owner: str) -> None:
    """Refuse a space whose observations the generic renderer cannot put into useful text.

    Raises:
        EnvironmentSpecError: an unknown kind of space, or an array of too many numbers.
    """
    if isinstance(space, spaces.Dict):
        for part in space.spaces.values():
            check_readable(part, owner)
    elif isinstance(space, spaces.Tuple):
        for part in space.spaces:
            check_readable(part, owner)
    elif isinstance(space, (spaces.Box, spaces.MultiDiscrete, spaces.MultiBinary)):
        size = math.prod(space.shape)
        if size > LARGEST_ARRAY:
            _refuse(owner, f"arrays of at most {LARGEST_ARRAY} numbers", f"{size} in {space}")
    elif not isinstance(space, (spaces.Discrete, spaces.Text)):
        _refuse(owner, "Discrete, Box, MultiDiscrete, MultiBinary, Text, Dict or Tuple", space)


def _refuse(owner: str, expected: str, got: object) -> None:
    raise EnvironmentSpecError(
        f"the observations of {owner} cannot be put into text by default",
        expected=expected,
        got=got,
        fix="pass render=(observation, env) -> str to TextEnv",
    )


def space_text(observation: Any) -> str:
    """One observation as text.

    Numbers have at most four significant digits; a vector is one line, a matrix one line a row;
    a Dict is `key: value` lines in the space's order; a Tuple is one line a part.
    """
    if isinstance(observation, Mapping):
        return "\n".join(f"{key}: {space_text(part)}" for key, part in observation.items())
    if isinstance(observation, tuple):
        return "\n".join(space_text(part) for part in observation)
    if isinstance(observation, np.ndarray) and observation.ndim > 1:
        return "\n".join(space_text(row) for row in observation)
    if isinstance(observation, np.ndarray):
        return " ".join(_number(value) for value in observation.reshape(-1).tolist())
    return _number(observation)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (float, np.floating)) else str(value)


def plain(value: Any) -> Any:
    """The value without numpy: arrays and tuples as lists, numpy scalars as Python's."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return value
