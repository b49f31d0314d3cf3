"""PPO's episodes from roll-outs in an environment."""

from __future__ import annotations

import time
from collections import Counter

from simtune.data.selection import episodes_digest
from simtune.policy.local import LocalPolicy
from simtune.registry import DataSeen
from simtune.train.options import PPOOptions
from simtune.train.reward_use import rewards_used, usable_episodes
from simtune.train.sources import Gathered, summary


class EnvSource:
    """Rolls out the policy as it is now; every decision is captured into the store.

    Episode i of the run is reset with seed `seed * 1_000_000 + i`, so runs of different seeds
    see different episodes and a run can be repeated.
    """

    def __init__(self, options: PPOOptions, policy: LocalPolicy, run_id: str) -> None:
        self.options = options
        self.policy = policy
        self.run_id = run_id
        self.skipped: Counter[str] = Counter()
        self.episode_ids: list[str] = []
        self.decisions = 0

    def gather(self, index: int) -> Gathered:
        """Play this round's episodes.

        Raises:
            DataError: a reward failed on every one of them.
        """
        from simtune.gym import make, rollout

        options = self.options
        started = time.perf_counter()
        episodes = rollout(
            lambda: make(str(options.env), **options.env_arg),
            self.policy,
            episodes=options.episodes_per_iteration,
            seed=options.seed * 1_000_000 + index * options.episodes_per_iteration,
            num_envs=options.num_envs,
            root=options.capture_root,
            run_id=self.run_id,
        )
        seconds = time.perf_counter() - started
        turns = usable_episodes(episodes, options.reward, self.policy, self.skipped)
        self.episode_ids += [episode.episode_id for episode in episodes]
        self.decisions += sum(map(len, episodes))
        tokens = sum(len(d.token_ids) for episode in episodes for d in episode.decisions)
        metrics = summary(episodes) | {"rollout_tokens_per_s": tokens / seconds}
        return Gathered(episodes=turns, metrics=metrics)

    def seen(self) -> DataSeen:
        """The captured roll-outs."""
        return DataSeen(
            source="env",
            root=self.options.capture_root,
            digest=episodes_digest(self.episode_ids),
            episodes=len(self.episode_ids),
            decisions=self.decisions,
            rewards=rewards_used(self.options.reward),
            skipped=dict(self.skipped),
        )
