"""One round's episodes, numbered and flat: what every pass over them indexes into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import torch

from simtune.errors import DataError
from simtune.train import packing, rows
from simtune.train.advantages import Trace, whiten
from simtune.train.episode_turns import EpisodeTurns
from simtune.train.estimators import RegisteredEstimator, check_estimates
from simtune.train.seen_states import SeenStates
from simtune.train.turns import Turn


class Credit(msgspec.Struct, kw_only=True):
    """What credit assignment gives for a round.

    Attributes:
        advantages: of each unit, float32 `[N]`.
        returns: the critic's target for each value, float32 `[S]`.
    """

    advantages: torch.Tensor
    returns: torch.Tensor


class RoundData:
    """D decisions with N units and S steps (of which credit moves over) as flat arrays.

    Args:
        episodes: the global batch.
        estimator: says whether a step is a decision or a unit.
        normalise: whether each unit counts the same in the loss, or each decision.
        seen: states that the present weights computed already; None for none.

    Attributes:
        entries: the decisions, numbered.
        finals: states after truncated episodes, their values numbered S and up.
        chains: decisions that share a row within an episode, `[C]` lists of indices.
        behaviour: log-probabilities under the policies that sampled, float32 `[N]`.
        weights: of each unit in the loss, float32 `[N]`.
        steps: S.
    """

    def __init__(
        self,
        episodes: Sequence[EpisodeTurns],
        estimator: RegisteredEstimator,
        normalise: Literal["tokens", "decisions"] = "tokens",
        seen: SeenStates | None = None,
    ) -> None:
        self.episodes = episodes
        self.seen = seen or SeenStates()
        self.estimator = estimator
        turns = [turn for episode in episodes for turn in episode.turns]
        self.per_unit = estimator.per == "token"
        self.entries = packing.prepare(turns, value_per_unit=self.per_unit)
        units = torch.tensor([turn.units for turn in turns], dtype=torch.long)
        self.steps = int(units.sum()) if self.per_unit else len(turns)
        self.finals = self._finals()
        self.chains = self._chains()
        self.chain_tokens = [self._tokens(chain) for chain in self.chains]
        self.behaviour = torch.tensor(
            [value for turn in turns for value in turn.behaviour_logprobs], dtype=torch.float32
        )
        share = units.reciprocal() if normalise == "decisions" else torch.ones(len(turns))
        self.weights = share.repeat_interleave(units)
        steps = torch.arange(self.steps)
        self._step_of_unit = steps if self.per_unit else steps.repeat_interleave(units)

    def values_of(self, turn: int) -> torch.Tensor:
        """Numbers of a decision's values, int64."""
        entry = self.entries[turn]
        return torch.arange(entry.value, entry.value + entry.values)

    def _finals(self) -> list[packing.Entry]:
        finals = [episode.final for episode in self.episodes if episode.final is not None]
        return [
            packing.Entry(turn, rows.key(turn.prompt_ids), 0, self.steps + index, 1)
            for index, turn in enumerate(finals)
        ]

    def _chains(self) -> list[range]:
        chains = []
        first = 0
        for episode in self.episodes:
            prompts = [turn.prompt_ids for turn in episode.turns]
            answers = [turn.action_ids for turn in episode.turns]
            for chain in rows.chains(prompts, answers):
                chains.append(range(first + chain.start, first + chain.stop))
            first += len(prompts)
        return chains

    def _tokens(self, chain: range) -> int:
        last: Turn = self.entries[chain[-1]].turn
        return len(last.prompt_ids) + len(last.action_ids)

    def credit(
        self,
        values: torch.Tensor,
        penalties: torch.Tensor | None,
        *,
        gamma: float,
        gae_lambda: float,
        whitened: bool,
    ) -> Credit:
        """Advantages and returns; advantages are whitened over all steps of the round.

        Args:
            values: the critic's, of every step and then of the final states, `[S + F]`.
            penalties: taken from the reward of each unit, `[N]`; None for none.
            gamma: discount per step.
            gae_lambda: lambda per step.
            whitened: False leaves the advantages as they are.

        Raises:
            DataError: a grouped estimator got no two episodes that began alike.
            PluginError: an estimator gave other counts than it was given.
        """
        traces = self._traces(values.tolist(), penalties)
        groups = {trace.group for trace in traces}
        if self.estimator.grouped and len(groups) == len(traces):
            raise DataError(
                f"the estimator {self.estimator.name!r} compares episodes that began alike",
                expected="several episodes with the same environment and reset seed",
                got=f"{len(traces)} episodes, all of them alone",
                fix="--estimator gae, or capture several episodes of each seed",
            )
        estimates = self.estimator.estimator(traces, gamma=gamma, gae_lambda=gae_lambda)
        check_estimates(self.estimator, traces, estimates)
        flat = torch.tensor([a for one in estimates for a in one.advantages], dtype=torch.float64)
        advantages = whiten(flat) if whitened else flat
        returns = [value for one in estimates for value in one.returns]
        return Credit(
            advantages=advantages[self._step_of_unit].float(),
            returns=torch.tensor(returns, dtype=torch.float32),
        )

    def _traces(self, values: list[float], penalties: torch.Tensor | None) -> list[Trace]:
        """Each episode's rewards and values over its steps."""
        costs = None if penalties is None else penalties.tolist()
        finals = iter(values[self.steps :])
        traces = []
        first = 0
        for number, episode in enumerate(self.episodes):
            last = first + len(episode.turns)
            entries = self.entries[first:last]
            rewards: list[float] = []
            for entry, reward in zip(entries, episode.rewards, strict=True):
                units = entry.turn.units
                cost = [0.0] * units if costs is None else costs[entry.unit : entry.unit + units]
                if self.per_unit:
                    rewards += [-c for c in cost]
                    rewards[-1] += reward
                else:
                    rewards.append(reward - sum(cost))
            start = entries[0].value if entries else 0
            traces.append(
                Trace(
                    rewards=rewards,
                    values=values[start : start + len(rewards)],
                    final_value=0.0 if episode.final is None else next(finals),
                    group=episode.group or f"alone {number}",
                )
            )
            first = last
        return traces
