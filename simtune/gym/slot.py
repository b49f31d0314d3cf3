"""One episode under way: its environment, its log, and the decisions so far."""

from __future__ import annotations

import itertools
import time
import uuid
from array import array
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeAlias

from gymnasium import Env

from simtune.gym.asking import messages_for
from simtune.gym.outcomes import outcome
from simtune.gym.space_text import plain
from simtune.recording import EpisodeLog
from simtune.records import Decision, Episode, Messages
from simtune.reply import Reply

DECISION_POINT = "step"


class Unrecorded:
    """A log that keeps nothing; it only gives ids (evaluation)."""

    def __init__(self) -> None:
        self.id = uuid.uuid4().hex
        self._steps = itertools.count()

    def decision(self, prompt: Messages, response: str, **fields: Any) -> str:
        """Give the decision an id."""
        return f"{self.id}-{next(self._steps)}"

    def finish(self, **fields: Any) -> None:
        """Nothing to keep."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to keep."""


Log: TypeAlias = EpisodeLog | Unrecorded


class Slot:
    """One environment and the episode that runs in it.

    Args:
        env: an environment whose spaces are text; `start` puts an episode into it.
        name: how the store calls the environment.
        run_id: groups the episodes of one run.
    """

    def __init__(self, env: Env[str, str], name: str, run_id: str | None) -> None:
        self.env = env
        self.name = name
        self.run_id = run_id
        self.index = -1
        self.prompt: Messages = []
        self.log: Log | None = None
        self._raw: Any = None
        self._episode = Episode(episode_id="")

    def start(self, index: int, seed: int, open_log: Callable[..., Log]) -> None:
        """Begin episode `index` with its own seed."""
        observation, info = self.env.reset(seed=seed)
        self.index = index
        self.log = open_log(env=self.name, seed=seed, run_id=self.run_id)
        self._episode = Episode(
            episode_id=self.log.id, run_id=self.run_id, env=self.name, metadata={"seed": seed}
        )
        self._show(observation, info)

    def step(self, response: str, latency_us: int) -> Episode | None:
        """Take the policy's answer; returns the episode where that ended it."""
        observation, reward, terminated, truncated, info = self.env.step(response)
        decision = Decision(
            decision_id="",
            action=DECISION_POINT,
            step=len(self._episode.decisions),
            prompt=self.prompt,
            response=str(response),
            parsed=info.get("action", str(response)),
            observation=self._raw,
            valid=bool(info.get("valid", True)),
            error=info.get("error"),
            reward=float(reward),
            terminated=bool(terminated),
            truncated=bool(truncated),
            ts=time.time_ns() // 1000,
            latency_us=latency_us,
        )
        if isinstance(response, Reply):
            _carry(decision, response)
        self._keep(decision, response)
        self._show(observation, info)
        return self._end(decision, info) if terminated or truncated else None

    def _show(self, observation: str, info: dict[str, Any]) -> None:
        self.prompt = messages_for(self.env, observation)
        self._raw = plain(info.get("raw_observation", observation))

    def _keep(self, decision: Decision, response: str) -> None:
        assert self.log is not None
        decision.decision_id = self.log.decision(
            decision.prompt,
            response,
            action=decision.action,
            parsed=decision.parsed,
            valid=decision.valid,
            error=decision.error,
            observation=decision.observation,
            reward=decision.reward,
            terminated=decision.terminated,
            truncated=decision.truncated,
            latency_us=decision.latency_us,
        )
        self._episode.decisions.append(decision)

    def _end(self, last: Decision, info: dict[str, Any]) -> Episode:
        assert self.log is not None
        episode = self._episode
        episode.ended = True
        episode.terminated, episode.truncated = last.terminated, last.truncated
        episode.outcome = outcome(
            info, terminated=last.terminated, total=float(episode.total_reward)
        )
        episode.final_prompt = self.prompt
        self.log.finish(
            terminated=episode.terminated,
            truncated=episode.truncated,
            outcome=episode.outcome,
            final_prompt=episode.final_prompt,
        )
        self.log = None
        return episode


def _carry(decision: Decision, reply: Reply) -> None:
    """Copy what the reply carries, in the precision that the store has."""
    decision.prompt_token_ids = list(reply.prompt_token_ids)
    decision.token_ids = list(reply.token_ids)
    decision.logprobs = array("f", reply.logprobs).tolist()
    decision.sampling = reply.sampling or {}
    decision.model = reply.model
    decision.adapter = reply.adapter
