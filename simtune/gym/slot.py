"""One episode under way: its environment, its log, and the decisions so far."""

from __future__ import annotations

import itertools
import time
import uuid
from array import array
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeAlias

from simtune.gym.outcomes import outcome
from simtune.gym.seats import Options, Shown, Stepped
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
    """One seat and the episode that is played on it.

    Args:
        seat: its number.
        name: how the store calls the environment.
        run_id: groups the episodes of one run.
    """

    def __init__(self, seat: int, name: str, run_id: str | None) -> None:
        self.seat = seat
        self.name = name
        self.run_id = run_id
        self.index = -1
        self.shown = Shown([], (), None)
        self.log: Log | None = None
        self._episode = Episode(episode_id="")

    def start(
        self, index: int, seed: int, options: Options, shown: Shown, open_log: Callable[..., Log]
    ) -> None:
        """Begin episode `index`, which was reset with this seed and these options."""
        self.index = index
        self.shown = shown
        metadata: dict[str, Any] = {} if options is None else {"options": plain(dict(options))}
        self.log = open_log(env=self.name, seed=seed, run_id=self.run_id, **metadata)
        self._episode = Episode(
            episode_id=self.log.id,
            run_id=self.run_id,
            env=self.name,
            metadata={"seed": seed, **metadata},
        )

    def step(self, response: str, stepped: Stepped, latency_us: int) -> Episode | None:
        """Take the policy's answer and what it led to; returns the episode where that ended it."""
        decision = Decision(
            decision_id="",
            action=DECISION_POINT,
            step=len(self._episode.decisions),
            prompt=self.shown.prompt,
            response=str(response),
            parsed=stepped.parsed,
            observation=self.shown.raw,
            valid=stepped.valid,
            error=stepped.error,
            reward=stepped.reward,
            terminated=stepped.terminated,
            truncated=stepped.truncated,
            ts=time.time_ns() // 1000,
            latency_us=latency_us,
        )
        if isinstance(response, Reply):
            _carry(decision, response)
        self._keep(decision, response)
        self.shown = stepped.shown
        ended = stepped.terminated or stepped.truncated
        return self._end(decision, stepped.success) if ended else None

    def abort(self, error: BaseException) -> None:
        """Keep an episode that is under way as aborted."""
        if self.log is not None:
            self.log.__exit__(type(error), error, error.__traceback__)
            self.log = None

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

    def _end(self, last: Decision, said: bool | None) -> Episode:
        assert self.log is not None
        episode = self._episode
        episode.ended = True
        episode.terminated, episode.truncated = last.terminated, last.truncated
        episode.outcome = outcome(
            said, terminated=last.terminated, total=float(episode.total_reward)
        )
        episode.final_prompt = self.shown.prompt
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
    decision.choices = list(reply.choices)
    decision.choice_logprobs = array("f", reply.choice_logprobs).tolist()
    decision.sampling = reply.sampling or {}
    decision.model = reply.model
    decision.adapter = reply.adapter
