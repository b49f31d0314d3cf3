"""`CaptureEnv`: every step of any environment, as a captured decision."""

from __future__ import annotations

import json
import time
from typing import Any, SupportsFloat

from gymnasium import Env, Wrapper
from gymnasium.utils import RecordConstructorArgs

from simtune.gym.asking import messages_for
from simtune.gym.outcomes import outcome, said_success
from simtune.gym.render import environment_name
from simtune.gym.space_text import plain
from simtune.recording import EpisodeLog, open_episode
from simtune.records import Messages


class CaptureEnv(Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """A gymnasium environment that logs each step into the store; it changes nothing else.

    Every `reset` opens an episode. A decision holds the observation before the step, the action,
    the reward, and `terminated` and `truncated` apart. Around an environment whose spaces are
    text (a `TextEnv`) it also holds the chat that asked for the answer and whether the answer was
    valid, so that these episodes can be trained on. A `reset` or `close` in mid-episode ends the
    episode as truncated, with `{"abandoned": True}` in its outcome.

    Args:
        env: the environment to wrap.
        root: directory of the store; None: the configured one.
        run_id: groups the episodes of one run.
        agent: name of the one who acts.
    """

    def __init__(
        self,
        env: Env[Any, Any],
        *,
        root: str | None = None,
        run_id: str | None = None,
        agent: str | None = None,
    ) -> None:
        RecordConstructorArgs.__init__(self, root=root, run_id=run_id, agent=agent)
        super().__init__(env)
        self._where = {"root": root, "run_id": run_id, "agent": agent}
        self._name = environment_name(env)
        self._log: EpisodeLog | None = None
        self._prompt: Messages = []
        self._raw: Any = None
        self._total = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start and open an episode; see `gymnasium.Env.reset`."""
        self._abandon()
        observation, info = self.env.reset(seed=seed, options=options)
        self._log = open_episode(env=self._name, seed=seed, **self._where)
        self._remember(observation, info)
        self._total = 0.0
        return observation, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take and log a step; see `gymnasium.Env.step`."""
        started = time.perf_counter_ns()
        observation, reward, terminated, truncated, info = self.env.step(action)
        latency_us = (time.perf_counter_ns() - started) // 1000
        if self._log is None:  # stepping on after the end is the environment's to judge
            return observation, reward, terminated, truncated, info
        value = float(reward)
        self._total += value
        is_text = isinstance(action, str)
        self._log.decision(
            self._prompt if is_text else [],
            action if is_text else json.dumps(plain(action)),
            action="step",
            parsed=info.get("action") if is_text else plain(action),
            valid=bool(info.get("valid", True)),
            error=info.get("error") if is_text else None,
            observation=self._raw,
            reward=value,
            terminated=bool(terminated),
            truncated=bool(truncated),
            latency_us=latency_us,
        )
        self._remember(observation, info)
        if terminated or truncated:
            self._finish(bool(terminated), bool(truncated), info)
        return observation, reward, terminated, truncated, info

    def close(self) -> None:
        """End the open episode, if any, and close the environment."""
        self._abandon()
        super().close()

    def _remember(self, observation: Any, info: dict[str, Any]) -> None:
        # Plain copies, made now: an environment may reuse its arrays.
        self._prompt = messages_for(self.env, observation) if isinstance(observation, str) else []
        self._raw = plain(info.get("raw_observation", observation))

    def _finish(self, terminated: bool, truncated: bool, info: dict[str, Any]) -> None:
        if self._log is None:
            return
        self._log.finish(
            terminated=terminated,
            truncated=truncated,
            outcome=outcome(said_success(info), terminated=terminated, total=self._total),
            final_prompt=self._prompt or None,
        )
        self._log = None

    def _abandon(self) -> None:
        if self._log is None:
            return
        self._log.finish(truncated=True, outcome={"abandoned": True, "return": self._total})
        self._log = None
