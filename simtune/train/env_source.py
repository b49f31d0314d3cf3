"""PPO's episodes from roll-outs in an environment."""

from __future__ import annotations

import time
from collections import Counter
from functools import partial
from typing import Any

from simtune.data.selection import episodes_digest
from simtune.gym import Player, build
from simtune.gym.curriculum import Progress, load_curriculum
from simtune.policy.local import LocalPolicy
from simtune.registry import DataSeen
from simtune.train.options import SEEDS_PER_RUN, PPOOptions
from simtune.train.parallel import Processes
from simtune.train.reward_use import rewards_used, usable_episodes
from simtune.train.sources import Gathered, summary


class EnvSource:
    """Rolls out the policy as it is now; every decision is captured into the store.

    Episode i of the run is reset with seed `seed * 1_000_000 + i // group_size`, so runs of
    different seeds see different episodes and a run can be repeated. In several processes each
    plays a contiguous share of a round's episodes, and all get all of them.

    Args:
        options: of the run.
        policy: as it is now; its adapter changes between rounds.
        run_id: recorded with every episode.
        processes: of the run.
    """

    def __init__(
        self, options: PPOOptions, policy: LocalPolicy, run_id: str, processes: Processes
    ) -> None:
        self.options = options
        self.policy = policy
        self.run_id = run_id
        self.processes = processes
        self.skipped: Counter[str] = Counter()
        self.episode_ids: list[str] = []
        self.decisions = 0
        self.curriculum = load_curriculum(options.curriculum) if options.curriculum else None
        self.progress = Progress()
        self._playing: Player | None = None

    def gather(self, index: int) -> Gathered:
        """Play this round's episodes.

        Raises:
            DataError: a reward failed on every one of them.
        """
        options, processes = self.options, self.processes
        share = processes.share(options.episodes_per_iteration)
        seeds = [self._seed(index * options.episodes_per_iteration + number) for number in share]
        started = time.perf_counter()
        with processes.together():
            own = self._player().play(episodes=len(share), seeds=seeds, curriculum=self.curriculum)
        episodes = processes.gather(own)
        seconds = time.perf_counter() - started
        skipped: Counter[str] = Counter()
        turns = usable_episodes(own, options.reward, self.policy, skipped)
        self.skipped = sum(processes.gather([skipped]), self.skipped)
        self.episode_ids += [episode.episode_id for episode in episodes]
        self.decisions += sum(map(len, episodes))
        tokens = sum(len(d.token_ids) for episode in episodes for d in episode.decisions)
        metrics = summary(episodes) | {
            "rollout_tokens_per_s": tokens / seconds,
            "staleness": 0.0,
            "episodes_seen": float(len(self.episode_ids)),
            "decisions_seen": float(self.decisions),
        }
        return Gathered(episodes=processes.gather(turns), metrics=metrics)

    def state_dict(self) -> dict[str, Any]:
        """What has been played, for a checkpoint: 32 characters an episode."""
        return {
            "episode_ids": list(self.episode_ids),
            "decisions": self.decisions,
            "skipped": dict(self.skipped),
            "progress": self.progress.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting from a checkpoint."""
        self.episode_ids = list(state["episode_ids"])
        self.decisions = state["decisions"]
        self.skipped = Counter(state["skipped"])
        self.progress.load_state_dict(state["progress"])

    def close(self) -> None:
        """Close the environments."""
        if self._playing is not None:
            self._playing.close()
            self._playing = None

    def _seed(self, number: int) -> int:
        """Reset seed of a run's episode; those of a group begin alike."""
        return self.options.seed * SEEDS_PER_RUN + number // self.options.group_size

    def _player(self) -> Player:
        """Environments that are made once, for all rounds."""
        options = self.options
        if self._playing is None:
            self._playing = Player(
                partial(build, str(options.env), **options.env_arg),
                self.policy,
                num_envs=min(options.num_envs, options.episodes_per_iteration),
                root=options.capture_root,
                run_id=self.run_id,
                workers=options.env_workers,
                history=options.history,
                progress=self.progress,
            )
        return self._playing

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
