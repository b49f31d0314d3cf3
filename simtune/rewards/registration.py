"""Which rewards there are: collected from every plugin, the built-in ones included."""

from __future__ import annotations

import difflib
import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from simtune import plugins
from simtune.errors import OptionError, PluginError
from simtune.records import Reward

HOOK = "simtune_register_rewards"
DEFAULT = "environment"
"""The reward that counts where none is asked for."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class RegisteredReward(msgspec.Struct, frozen=True):
    """A reward with the name it is asked for by.

    Attributes:
        name: unique among all plugins; also the directory of its scores.
        version: a new version means new scores.
        reward: the callable.
        plugin: the plugin it came from.
    """

    name: str
    version: str
    reward: Reward
    plugin: str


def collect() -> dict[str, RegisteredReward]:
    """Every reward of every plugin, by name.

    Raises:
        PluginError: two rewards have the same name.
    """
    return dict(gather(plugins.implementations(HOOK))[0])


def select(specs: Sequence[str]) -> list[tuple[RegisteredReward, float]]:
    """The rewards that `NAME[=WEIGHT]` specs ask for, each with its weight; none means `DEFAULT`.

    Raises:
        OptionError: an unknown name (with the nearest), a weight that is no number, a repetition.
        PluginError: two rewards have the same name.
    """
    return list(_select(tuple(specs) or (DEFAULT,), plugins.implementations(HOOK)))


Implementations: TypeAlias = tuple[tuple[str, Callable[..., Any]], ...]


@functools.lru_cache(maxsize=8)
def _select(
    specs: tuple[str, ...], implementations: Implementations
) -> tuple[tuple[RegisteredReward, float], ...]:
    known, failures = gather(implementations)
    chosen: dict[str, tuple[RegisteredReward, float]] = {}
    for spec in specs:
        name, weight = _parse(spec)
        if name not in known:
            raise _unknown(name, known, failures)
        if name in chosen:
            raise OptionError(f"reward {name!r} is asked for twice", got=" ".join(specs))
        chosen[name] = (known[name], weight)
    return tuple(chosen.values())


def _parse(spec: str) -> tuple[str, float]:
    name, equals, text = spec.partition("=")
    try:
        weight = float(text) if equals else 1.0
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise OptionError(
            f"the weight of reward {name!r} is not a number", expected="NAME=WEIGHT", got=repr(spec)
        )
    return name, weight


def _unknown(
    name: str, known: dict[str, RegisteredReward], failures: tuple[plugins.Failure, ...]
) -> OptionError:
    near = difflib.get_close_matches(name, known, n=1)
    broken = "; ".join(f"plugin {failure.plugin!r}: {failure.error}" for failure in failures)
    return OptionError(
        f"unknown reward {name!r}",
        expected=f"did you mean {near[0]!r}?" if near else ", ".join(sorted(known)),
        got=f"plugins that failed to register their rewards: {broken}" if broken else None,
        fix="simtune plugins ls shows every reward; --plugin FILE_OR_MODULE loads more",
    )


@functools.lru_cache(maxsize=1)
def gather(
    implementations: Implementations,
) -> tuple[dict[str, RegisteredReward], tuple[plugins.Failure, ...]]:
    """Call the hook of one plugin after the other; once per set of plugins.

    Args:
        implementations: name and `simtune_register_rewards` of each plugin.

    Returns:
        The rewards by name, and the plugins that raised.

    Raises:
        PluginError: two rewards have the same name.
    """
    found: dict[str, RegisteredReward] = {}
    failures = []
    for plugin, function in implementations:
        register = _Registrar(plugin, found)
        _, failure = plugins.call_guarded(plugin, HOOK, function, register)
        if register.clash is not None:
            raise register.clash
        if failure is not None:
            failures.append(failure)
    return found, tuple(failures)


class _Registrar:
    """The `register` of one plugin; a clash is kept, as raising inside the plugin is guarded."""

    def __init__(self, plugin: str, found: dict[str, RegisteredReward]) -> None:
        self.clash: PluginError | None = None
        self._plugin = plugin
        self._found = found

    def __call__(self, name: str, reward: Reward, *, version: str = "1") -> None:
        """Register a reward under a name."""
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise PluginError(
                f"reward name {name!r} cannot be used",
                expected="1 to 100 letters, digits, `.`, `_`, `-`; the first a letter or digit",
            )
        if not callable(reward):
            raise PluginError(f"reward {name!r} is not callable", got=repr(reward))
        if name in self._found:
            first = self._found[name].plugin
            self.clash = PluginError(
                f"two rewards are named {name!r}: of plugin {first!r} and of {self._plugin!r}",
                fix=f"rename one, or keep a plugin out: SIMTUNE_BLOCK_PLUGINS={self._plugin}",
            )
            raise self.clash
        self._found[name] = RegisteredReward(name, str(version), reward, self._plugin)
