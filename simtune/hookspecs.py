"""The hooks of simtune. A plugin implements any of them with `@simtune.hookimpl`.

Plugins are called one at a time: one that raises costs its own contribution, never another's,
and never the simulation. Each hook says when it is called, on which thread, what the return
value does, and what raising does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

import pluggy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from simtune.records import Reward, Row

hookspec = pluggy.HookspecMarker("simtune")
hookimpl = pluggy.HookimplMarker("simtune")


class RegisterReward(Protocol):
    """The function that `simtune_register_rewards` is given."""

    def __call__(self, name: str, reward: Reward, *, version: str = "1") -> None:
        """Register a reward under a name; a new version means new scores."""


@hookspec
def simtune_episode_start(episode_id: str, env: str | None, metadata: dict[str, Any]) -> None:
    """An episode begins.

    Called in the simulation's process, on the thread that opens the episode, before its first
    decision. Return value: none. Raising: counted, warned about once per plugin.
    """


@hookspec
def simtune_decision(row: Row) -> Literal[False] | None:
    """A decision was made and is about to be written.

    Called in the simulation's process, on the thread that captured it, before encoding; plugins
    are called in pluggy's order, and the rules of `redact=` after them. The row is a copy, and
    may be changed in place; JSON columns stay JSON. Where prompt, response or choices are
    changed, the token ids that spell them are left out. Keep it short: the simulation waits.
    Return value: False keeps the decision out of the store, and no further plugin is called;
    anything else means nothing. Raising: counted, warned about once per plugin; the row is
    written, with what was changed until then.
    """


@hookspec
def simtune_episode_end(
    episode_id: str, terminated: bool, truncated: bool, outcome: dict[str, Any]
) -> None:
    """An episode ended, by its own rules, by a limit or by an exception.

    Called in the simulation's process, on the thread that closes the episode, after its last
    decision. Return value: none. Raising: counted, warned about once per plugin.
    """


@hookspec
def simtune_register_rewards(register: RegisterReward) -> None:
    """Rewards are being collected: call `register("name", reward, version="1")` for each.

    Called once per process that scores or trains, on its main thread. A reward is a callable
    `(episode: simtune.Episode) -> float | Sequence[float]`. Return value: none. Raising: this
    plugin's remaining rewards are unavailable, and asking for one of them names the error.
    """


class RegisterEstimator(Protocol):
    """The function that `simtune_register_estimators` is given."""

    def __call__(
        self,
        name: str,
        estimator: Callable[..., Sequence[Any]],
        *,
        per: Literal["decision", "token"] = "decision",
        critic: bool = True,
    ) -> None:
        """Register an estimator of advantages under a name, for `--estimator`."""


@hookspec
def simtune_register_estimators(register: RegisterEstimator) -> None:
    """Advantage estimators are being collected: call `register("name", estimator)` for each.

    Called where PPO starts, on its main thread. An estimator is a callable
    `(traces, *, gamma, gae_lambda) -> [Estimate, ...]` over the `Trace`s of a whole round, both of
    `simtune.train.advantages`; `per` says whether a step is a decision or a token, and `critic`
    whether values are needed. Return value: none. Raising: this plugin's remaining estimators are
    unavailable.
    """


@hookspec
def simtune_training_start(method: str, options: dict[str, Any], run_id: str | None) -> None:
    """A training run begins; `run_id` is the MLflow run's.

    Called on the trainer's main thread before the model is loaded. Return value: none.
    Raising: counted, warned about once per plugin.
    """


@hookspec
def simtune_training_metrics(method: str, step: int, metrics: dict[str, float]) -> None:
    """A training step finished; `metrics` are those that MLflow gets at that step.

    Called on the trainer's main thread. Return value: none. Raising: counted, warned about once
    per plugin.
    """


@hookspec
def simtune_training_end(method: str, model_id: str | None, error: str | None) -> None:
    """A training run ended: with a registered model, or with an error.

    Called on the trainer's main thread. Return value: none. Raising: counted, warned about once
    per plugin.
    """


@hookspec
def simtune_model_registered(record: dict[str, Any]) -> None:
    """A model record was written to the registry; `record` is its JSON form.

    Called on the thread that registers, after the lock is released. Return value: none.
    Raising: counted, warned about once per plugin.
    """
