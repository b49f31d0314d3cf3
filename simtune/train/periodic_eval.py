"""Evaluation while training: the same held-out episodes every time, and which round did best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from simtune.eval.compare import Evaluation, summarise
from simtune.eval.intervals import Interval, paired_difference
from simtune.policy.local import LocalPolicy
from simtune.train.options import PPOOptions
from simtune.train.parallel import Processes

UNKNOWN = -1.0
"""Stands for the success rate where the environment does not say; below every rate."""


class HeldOut:
    """Plays the policy on the episodes of the evaluation's own seeds; nothing is captured.

    Training is not disturbed: the policy's decoding and its random generator are as before
    afterwards.

    Args:
        options: of the run.
        policy: the one that is trained.
        processes: of the run; each plays a share of the episodes.

    Attributes:
        first_returns: of the policy that training started from, one per episode; what later
            evaluations are paired with.
    """

    def __init__(self, options: PPOOptions, policy: LocalPolicy, processes: Processes) -> None:
        self.options = options
        self.policy = policy
        self.processes = processes
        self.first_returns: list[float] = []

    def due(self, done: int) -> bool:
        """Whether to evaluate after `done` rounds: before the first, every so many, at the end."""
        every = self.options.eval_every
        return every > 0 and (done % every == 0 or done == self.options.iterations)

    def measure(self) -> Evaluation:
        """Play all held-out episodes; the same on every process."""
        from simtune.gym import build, rollout

        options = self.options
        env = str(options.eval_env or options.env)
        arguments = ({} if options.eval_env else options.env_arg) | options.eval_env_arg
        share = self.processes.share(options.eval_episodes)
        with self._evaluating(), self.processes.together():
            own = rollout(
                lambda: build(env, **arguments),
                self.policy,
                episodes=len(share),
                seed=options.eval_seed + share.start,
                num_envs=options.num_envs,
                history=options.history,
                capture=False,
            )
        played = self.processes.gather(own)
        return summarise(played, seed=options.eval_seed, label=options.eval_decoding)

    def metrics(self, evaluation: Evaluation) -> dict[str, float]:
        """The evaluation as curves; `eval_gain` is paired with the policy training started from."""
        if not self.first_returns:
            self.first_returns = evaluation.returns
        gain = paired_difference(evaluation.returns, self.first_returns)
        named = {"return": evaluation.mean_return, "gain": gain}
        if evaluation.success is not None:
            named["success"] = evaluation.success
        found = {
            key: value for name, interval in named.items() for key, value in _limits(name, interval)
        }
        if evaluation.valid_rate is not None:
            found["eval_valid"] = evaluation.valid_rate
        return found

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        policy, generator = self.policy, self.policy.generator
        greedy = policy.greedy
        policy.forget()
        own_seed = self.options.eval_seed + self.processes.rank
        policy.generator = torch.Generator(device=generator.device).manual_seed(own_seed)
        policy.greedy = self.options.eval_decoding == "greedy"
        try:
            yield
        finally:
            policy.generator, policy.greedy = generator, greedy


def score(evaluation: Evaluation) -> tuple[float, float]:
    """What "best" is decided by: the success rate where it is known, then the mean return."""
    rate = UNKNOWN if evaluation.success is None else evaluation.success.estimate
    return rate, evaluation.mean_return.estimate


def is_best(found: Sequence[float], best: Sequence[float] | None) -> bool:
    """Whether a score is the best so far; of equal ones the later is."""
    return best is None or tuple(found) >= tuple(best)


def _limits(name: str, interval: Interval) -> list[tuple[str, float]]:
    return [
        (f"eval_{name}", interval.estimate),
        (f"eval_{name}_low", interval.low),
        (f"eval_{name}_high", interval.high),
    ]
