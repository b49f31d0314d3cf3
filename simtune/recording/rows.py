"""The rows of one episode: what its start, decisions, rewards and end say."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from simtune.errors import CaptureError
from simtune.recording.announce import announce
from simtune.recording.answers import fill_in
from simtune.recording.conversion import Notes, describe, to_json
from simtune.recording.prompts import messages_of
from simtune.recording.recorder import Recorder
from simtune.recording.redaction import Redaction
from simtune.recording.screening import screened
from simtune.recording.storable import with_notes
from simtune.records import Kind, Messages, Row

LEFT_OUT = ""
"""The id of a decision that a plugin or a redaction kept out of the store."""


class EpisodeRows:
    """Writes the rows of one episode; every method raises what goes wrong.

    Args:
        recorder: where the rows go.
        env: name of the environment or simulation.
        agent: the agent whose decisions it holds, or None for any.
        run_id: groups the episodes of one simulation run.
        episode_id: the id that it is known by elsewhere; None: a new one.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        env: str | None,
        agent: str | None,
        run_id: str | None,
        episode_id: str | None = None,
    ) -> None:
        self.episode_id = episode_id or os.urandom(12).hex()
        self.env = env
        self.agent = agent
        self.run_id = run_id
        self._recorder = recorder
        # `next` on a count is atomic: steps stay distinct where threads share an episode.
        self._steps: dict[str | None, itertools.count[int]] = {}
        self._decisions = itertools.count()
        self._left_out = 0
        self._told: tuple[BaseException, str | None] | None = None

    def start(self, metadata: dict[str, Any]) -> None:
        """The episode begins."""
        notes: Notes = {}
        encoded = to_json(metadata or None, "metadata", notes)
        announce(
            "simtune_episode_start", episode_id=self.episode_id, env=self.env, metadata=metadata
        )
        self._write(self._row("episode_start", notes, agent_id=self.agent, metadata=encoded))

    def decision(
        self,
        row: Row,
        response: object,
        error: BaseException | str | None,
        notes: Notes,
        extra: Mapping[str, Any] | None,
        redact: tuple[Redaction, ...],
    ) -> str | None:
        """A decision was made; returns its id, None where back-pressure dropped it.

        Args:
            row: what the caller knows of it. Its place in the episode, the time, and what the
                answer says are filled in here.
            response: what the model answered.
            error: what `row.error` tells of.
            notes: conversions that were made for `row`.
            extra: what else is noted.
            redact: the rules of this decision point.
        """
        next(self._decisions)
        row.run_id = self.run_id
        row.env = self.env
        steps = self._steps.get(row.agent_id)
        row.step = next(self._first_step(row.agent_id) if steps is None else steps)
        row.ts = time.time_ns() // 1000
        row.mono_ns = time.monotonic_ns()
        uncolumned = fill_in(row, response, notes)
        if notes or extra or uncolumned:
            row.extra = to_json(with_notes({**uncolumned, **(extra or {})}, notes), "extra", {})
        kept = None
        try:
            kept = screened(row, redact)
        finally:
            self._left_out += kept is None
            if kept is not row and isinstance(error, BaseException):
                # The same exception may end the episode: no more is told of it then.
                self._told = (error, type(error).__name__ if kept is None else kept.error)
        return LEFT_OUT if kept is None else self._recorder.append(kept)

    def reward(self, value: float, decision: str | None) -> None:
        """A decision, of whichever episode, got a reward after it was written."""
        if decision == LEFT_OUT:
            return
        if not decision:
            raise CaptureError(
                "there is no decision to reward",
                expected="a captured decision in this episode, or decision=ID",
                fix="reward after the decision; one that back-pressure dropped cannot be rewarded",
            )
        self._write(
            self._row("reward", {}, agent_id=self.agent, target=decision, reward=float(value))
        )

    def end(
        self,
        aborted: BaseException | None,
        *,
        terminated: bool | None = None,
        truncated: bool | None = None,
        outcome: Mapping[str, Any] | None = None,
        prompt: Messages | str | None = None,
        prompt_token_ids: Sequence[int] = (),
    ) -> None:
        """The episode ended, or an exception ended it."""
        notes: Notes = {}
        said = dict(outcome or {})
        told, self._told = self._told, None
        metadata = to_json({"outcome": said, "aborted": aborted is not None}, "metadata", notes)
        announce(
            "simtune_episode_end",
            episode_id=self.episode_id,
            terminated=bool(terminated),
            truncated=bool(truncated),
            outcome=said,
        )
        row = self._row(
            "episode_end",
            notes,
            {"left_out": self._left_out} if self._left_out else None,
            agent_id=self.agent,
            step=next(self._decisions),
            terminated=terminated,
            truncated=truncated,
            metadata=metadata,
            error=told[1] if told and told[0] is aborted else error_text(aborted),
            prompt=None if prompt is None else messages_of(prompt, notes),
            prompt_token_ids=prompt_token_ids,
        )
        self._write(row)

    def _first_step(self, agent: str | None) -> itertools.count[int]:
        return self._steps.setdefault(agent, itertools.count())

    def _write(self, row: Row) -> None:
        kept = screened(row)
        if kept is not None:
            self._recorder.append(kept)

    def _row(
        self, kind: Kind, notes: Notes, extra: Mapping[str, Any] | None = None, /, **columns: Any
    ) -> Row:
        noted = with_notes(extra or {}, notes)
        return Row(
            kind=kind,
            episode_id=self.episode_id,
            run_id=self.run_id,
            env=self.env,
            ts=time.time_ns() // 1000,
            mono_ns=time.monotonic_ns(),
            extra=to_json(noted or None, "extra", {}),
            **columns,
        )


def error_text(error: BaseException | str | None) -> str | None:
    """An exception as one text; text as it is."""
    if isinstance(error, BaseException):
        return f"{type(error).__name__}: {describe(error, str)}"
    return error
