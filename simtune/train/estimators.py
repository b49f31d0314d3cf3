"""Which advantage estimators there are: the built-in ones, and those of plugins."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import msgspec

from simtune import plugins
from simtune.errors import OptionError, PluginError
from simtune.train.advantages import Estimate, Trace, gae, group_relative, rloo

HOOK = "simtune_register_estimators"

Estimator: TypeAlias = Callable[..., Sequence[Estimate]]
"""`(traces, *, gamma, gae_lambda)` -> one `Estimate` per trace, in order."""


class RegisteredEstimator(msgspec.Struct, frozen=True, kw_only=True):
    """An estimator with the name it is asked for by.

    Attributes:
        name: unique.
        estimator: the callable; sees all episodes of a round.
        per: what a step is: a decision, or each token (or option) that the policy chose.
        critic: whether values are needed; without, none are computed or trained.
        grouped: whether it compares episodes of a group, and is of no use without groups.
        plugin: where it came from.
    """

    name: str
    estimator: Estimator
    per: Literal["decision", "token"] = "decision"
    critic: bool = True
    grouped: bool = False
    plugin: str = "simtune"


BUILT_IN = (
    RegisteredEstimator(name="gae", estimator=gae),
    RegisteredEstimator(name="token-gae", estimator=gae, per="token"),
    RegisteredEstimator(name="rloo", estimator=rloo, critic=False, grouped=True),
    RegisteredEstimator(name="group", estimator=group_relative, critic=False, grouped=True),
)


def collect() -> dict[str, RegisteredEstimator]:
    """Every estimator by name.

    Raises:
        PluginError: a plugin's estimator cannot be used, or has a name that is taken.
    """
    found = {built_in.name: built_in for built_in in BUILT_IN}
    for plugin, function in plugins.implementations(HOOK):
        register = _Registrar(plugin, found)
        plugins.call_guarded(plugin, HOOK, function, register)
        if register.refused is not None:
            raise register.refused
    return found


def select(name: str) -> RegisteredEstimator:
    """The estimator of a name.

    Raises:
        OptionError: there is none; names the nearest.
        PluginError: a plugin's estimator cannot be used, or has a name that is taken.
    """
    known = collect()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        raise OptionError(
            f"unknown advantage estimator {name!r}",
            expected=f"did you mean {near[0]!r}?" if near else ", ".join(sorted(known)),
            fix="--plugin FILE_OR_MODULE loads more",
        )
    return known[name]


class _Registrar:
    """The `register` of one plugin; a refusal is kept, as raising inside a plugin is guarded."""

    def __init__(self, plugin: str, found: dict[str, RegisteredEstimator]) -> None:
        self.refused: PluginError | None = None
        self._plugin = plugin
        self._found = found

    def __call__(
        self,
        name: str,
        estimator: Callable[..., Sequence[Estimate]],
        *,
        per: Literal["decision", "token"] = "decision",
        critic: bool = True,
    ) -> None:
        """Register an estimator under a name."""
        if not callable(estimator) or per not in ("decision", "token"):
            self.refused = PluginError(
                f"advantage estimator {name!r} of plugin {self._plugin!r} cannot be used",
                expected="a callable, and per='decision' or per='token'",
                got=f"{estimator!r}, per={per!r}",
            )
        elif name in self._found:
            self.refused = PluginError(
                f"two advantage estimators are named {name!r}: of {self._found[name].plugin!r} "
                f"and of plugin {self._plugin!r}",
                fix="rename one",
            )
        else:
            self._found[name] = RegisteredEstimator(
                name=name, estimator=estimator, per=per, critic=critic, plugin=self._plugin
            )
        if self.refused is not None:
            raise self.refused


def check_estimates(
    registered: RegisteredEstimator, traces: Sequence[Trace], estimates: Sequence[Estimate]
) -> None:
    """Make sure that an estimator gave an advantage and a return for every step.

    Raises:
        PluginError: it did not.
    """
    steps = [len(trace.rewards) for trace in traces]
    given = [(len(one.advantages), len(one.returns)) for one in estimates]
    if given != [(n, n) for n in steps]:
        raise PluginError(
            f"advantage estimator {registered.name!r} gave other counts than it was given",
            expected=f"advantages and returns of {sum(steps)} steps in {len(steps)} episodes",
            got=f"{sum(n for n, _ in given)} and {sum(n for _, n in given)} in {len(given)}",
        )
