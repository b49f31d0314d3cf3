"""The log of one episode, as the simulation holds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from simtune.recording import context
from simtune.recording.conversion import Notes, to_json
from simtune.recording.guard import guarded, report
from simtune.recording.prompts import messages_of
from simtune.recording.recorder import Recorder
from simtune.recording.redaction import Redaction
from simtune.recording.rows import EpisodeRows, error_text
from simtune.records import Messages, Row


class EpisodeLog:
    """Groups the decisions of one episode; a context manager, sync and async.

    Leaving the `with` block ends the episode; an exception inside marks it as aborted and goes
    on its way. Methods may be called from any thread. None of them raises for a failure of
    capture unless `backpressure="raise"` is set; see `simtune.configure`.

    Attributes:
        id: the episode's id.
        env: name of the environment or simulation.
        agent: the agent whose decisions it holds, or None for any.
        run_id: groups the episodes of one simulation run.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        env: str | None = None,
        agent: str | None = None,
        run_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        episode_id: str | None = None,
    ) -> None:
        self._rows = EpisodeRows(
            recorder, env=env, agent=agent, run_id=run_id, episode_id=episode_id
        )
        self.id = self._rows.episode_id
        self.env = env
        self.agent = agent
        self.run_id = run_id
        self._metadata = dict(metadata or {})
        self._begun = False
        self._finished = False
        self._latest: str | None = None
        self._last_said: tuple[bool | None, bool | None] = (None, None)

    def stand_alone(self) -> None:
        """Hold a decision made outside of any episode: no start is written for it."""
        self._begun = True

    def begin(self) -> None:
        """Write the episode's start, once."""
        if not self._begun:
            self._begun = True
            guarded(self._rows.start, self._metadata)

    def decision(
        self,
        prompt: Messages | str | None,
        response: object,
        *,
        action: str | None = None,
        agent: str | None = None,
        parsed: Any = None,
        valid: bool = True,
        error: BaseException | str | None = None,
        observation: Any = None,
        reward: float | None = None,
        terminated: bool | None = None,
        truncated: bool | None = None,
        choices: Sequence[str] = (),
        choice_logprobs: Sequence[float] = (),
        latency_us: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
        redact: tuple[Redaction, ...] = (),
    ) -> str:
        """Capture one decision and return its id, empty where it could not be kept.

        The fields are those of `simtune.records.Row`. `prompt` is the messages the model was
        asked, or one user message as text; `response` is a `simtune.Reply`, text, or an OpenAI
        chat completion, from which token ids, log-probabilities, sampling, model and adapter are
        taken. `agent` is the episode's by default. `parsed`, `observation` and `metadata` are
        anything JSON can hold. `reward`, `terminated` and `truncated` are given where they are
        known at once. `extra` is what an integration notes beside the caller's `metadata`, and
        `redact` are functions of the row, as for `simtune.capture`.
        """
        notes: Notes = {}
        try:
            row = Row(
                kind="decision",
                episode_id=self.id,
                agent_id=self.agent if agent is None else agent,
                action=action,
                latency_us=latency_us,
                prompt=None if prompt is None else messages_of(prompt, notes),
                parsed=to_json(parsed, "parsed", notes),
                observation=to_json(observation, "observation", notes),
                metadata=to_json(metadata or None, "metadata", notes),
                valid=valid,
                error=error_text(error),
                choices=choices,
                choice_logprobs=choice_logprobs,
                reward=reward,
                terminated=terminated,
                truncated=truncated,
            )
            return self.decide(row, response, error, notes, extra, redact) or ""
        except Exception as failure:  # whatever it is, as in `guarded`
            self.lost()
            report(failure)
            return ""

    def decide(
        self,
        row: Row,
        response: object,
        error: BaseException | str | None,
        notes: Notes,
        extra: Mapping[str, Any] | None,
        redact: tuple[Redaction, ...],
    ) -> str | None:
        """Capture a decision of this episode, as `EpisodeRows.decision`; raises what goes wrong."""
        if not self._begun:
            self.begin()
        self.lost()
        self._last_said = (row.terminated, row.truncated)
        self._latest = kept = self._rows.decision(row, response, error, notes, extra, redact)
        return kept

    def lost(self) -> None:
        """The latest decision could not be kept: there is none to reward, not the one before it."""
        self._latest = None

    def reward(self, value: float, decision: str | None = None) -> None:
        """Reward a decision; several rewards of one decision add up.

        Args:
            value: the reward.
            decision: the decision's id; the latest of this episode by default.
        """
        guarded(self._rows.reward, value, self._latest if decision is None else decision)

    def finish(
        self,
        terminated: bool = False,
        truncated: bool = False,
        outcome: Mapping[str, Any] | None = None,
        final_prompt: Messages | str | None = None,
        final_prompt_token_ids: Sequence[int] = (),
    ) -> None:
        """End the episode; only the first call counts.

        Args:
            terminated: the environment reached a terminal state.
            truncated: the episode was cut by a limit.
            outcome: the simulation's own summary; `success` is understood everywhere.
            final_prompt: what the model would be asked next, for bootstrapping its value.
            final_prompt_token_ids: the same as token ids, where known.
        """
        self._end(
            terminated=terminated,
            truncated=truncated,
            outcome=outcome,
            prompt=final_prompt,
            prompt_token_ids=final_prompt_token_ids,
        )

    def _end(self, *, aborted: BaseException | None = None, **said: Any) -> None:
        if not self._finished:
            self.begin()
            self._finished = True
            guarded(self._rows.end, aborted, may_raise=aborted is None, **said)

    def __enter__(self) -> EpisodeLog:
        """Begin the episode and make it the current one."""
        self.begin()
        context.enter(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the episode, as its last decision said or aborted, where `finish` did not."""
        context.leave(self)
        if error is not None:
            self._end(aborted=error)
        else:
            terminated, truncated = self._last_said
            self._end(terminated=terminated, truncated=truncated)

    async def __aenter__(self) -> EpisodeLog:
        """As `with`."""
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """As `with`."""
        self.__exit__(kind, error, traceback)
