"""What is captured (Row) and what rewards and training read (Decision, Episode).

A `Row` is the unit on disk: one frame of the write-ahead log, one row of the Parquet table.
A `Decision` and an `Episode` are the assembled view: late rewards folded in, JSON decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

Message: TypeAlias = dict[str, Any]
"""One chat turn: role and content, and optionally name, tool_calls, tool_call_id."""

Messages: TypeAlias = list[Message]

Kind: TypeAlias = Literal["decision", "reward", "episode_start", "episode_end"]

SCHEMA_VERSION = 1


class Row(msgspec.Struct, array_like=True, kw_only=True):
    """One captured event. `writer_id` and `seq` live in the log frame, not here.

    Field order is the format of the log's payload: append only, never reorder.

    Attributes:
        kind: what happened.
        episode_id: the episode it belongs to.
        target: for kind `reward`, the decision_id it rewards; None otherwise.
        run_id: groups the episodes of one simulation run.
        env: name of the environment or simulation.
        agent_id: which agent decided.
        action: what was decided on (the name of the decision point).
        model: base model that answered.
        adapter: content hash of the adapter that answered.
        step: index of the decision within its episode and agent, from 0.
        ts: wall clock, microseconds since the epoch, UTC.
        mono_ns: monotonic clock of the writer, nanoseconds.
        latency_us: how long the wrapped call took, microseconds.
        prompt: the messages the model was asked; for `episode_end` those it would be asked next.
        response: the answer, verbatim.
        parsed: JSON of the parsed action.
        observation: JSON of what the environment showed before the decision.
        metadata: JSON of the caller's own fields; for `episode_end` holds `outcome`.
        extra: JSON of what simtune notes about this row (conversions, drop counts).
        valid: False where the answer could not be parsed.
        error: the exception of the wrapped function or of the parser, as text.
        prompt_token_ids: ids the model was given.
        token_ids: ids the model sampled.
        logprobs: log-probability of each sampled id; NaN where unknown.
        choices: the named options of a decision among options.
        choice_logprobs: log-probability of each option.
        sampling: JSON of the sampling parameters.
        reward: the reward known when the row was written.
        terminated: the environment reached a terminal state.
        truncated: the episode was cut by a limit.
    """

    kind: Kind
    episode_id: str
    target: str | None = None
    run_id: str | None = None
    env: str | None = None
    agent_id: str | None = None
    action: str | None = None
    model: str | None = None
    adapter: str | None = None
    step: int = 0
    ts: int = 0
    mono_ns: int = 0
    latency_us: int | None = None
    prompt: Messages | None = None
    response: str | None = None
    parsed: str | None = None
    observation: str | None = None
    metadata: str | None = None
    extra: str | None = None
    valid: bool | None = None
    error: str | None = None
    prompt_token_ids: Sequence[int] = ()
    token_ids: Sequence[int] = ()
    logprobs: Sequence[float] = ()
    choices: Sequence[str] = ()
    choice_logprobs: Sequence[float] = ()
    sampling: str | None = None
    reward: float | None = None
    terminated: bool | None = None
    truncated: bool | None = None


class Decision(msgspec.Struct, kw_only=True):
    """One LLM decision as rewards and training see it; fields as in `Row`, JSON decoded.

    Attributes:
        decision_id: `<writer_id>-<seq>`, unique in the store.
        reward: sum of every reward given to this decision; None where none was.
    """

    decision_id: str
    agent_id: str | None = None
    action: str | None = None
    step: int = 0
    prompt: Messages = msgspec.field(default_factory=list)
    response: str = ""
    parsed: Any = None
    observation: Any = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    extra: dict[str, Any] = msgspec.field(default_factory=dict)
    valid: bool = True
    error: str | None = None
    prompt_token_ids: list[int] = msgspec.field(default_factory=list)
    token_ids: list[int] = msgspec.field(default_factory=list)
    logprobs: list[float] = msgspec.field(default_factory=list)
    choices: list[str] = msgspec.field(default_factory=list)
    choice_logprobs: list[float] = msgspec.field(default_factory=list)
    sampling: dict[str, Any] = msgspec.field(default_factory=dict)
    model: str | None = None
    adapter: str | None = None
    reward: float | None = None
    terminated: bool = False
    truncated: bool = False
    ts: int = 0
    latency_us: int | None = None


class Episode(msgspec.Struct, kw_only=True):
    """One episode: its decisions in order, and how it ended.

    Attributes:
        metadata: what the simulation said at the start (`seed` among it).
        terminated: the environment reached a terminal state; wins where truncated is set too.
        truncated: the episode was cut by a limit.
        aborted: an exception ended it; `error` says which.
        ended: an `episode_end` was captured. False while an episode is still running.
        outcome: the simulation's own summary; the key `success` is understood everywhere.
        final_prompt: messages of the state after the last decision, for bootstrapping its value.
        final_prompt_token_ids: the same as token ids, where known.
    """

    episode_id: str
    run_id: str | None = None
    env: str | None = None
    agent_id: str | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    decisions: list[Decision] = msgspec.field(default_factory=list)
    terminated: bool = False
    truncated: bool = False
    aborted: bool = False
    ended: bool = False
    error: str | None = None
    outcome: dict[str, Any] = msgspec.field(default_factory=dict)
    final_prompt: Messages = msgspec.field(default_factory=list)
    final_prompt_token_ids: list[int] = msgspec.field(default_factory=list)

    @property
    def total_reward(self) -> float:
        """Undiscounted sum of the decisions' rewards; missing rewards count as nothing."""
        return sum(decision.reward or 0.0 for decision in self.decisions)

    @property
    def success(self) -> bool | None:
        """The outcome's own `success`, or None where the simulation did not say."""
        said = self.outcome.get("success")
        return None if said is None else bool(said)

    def __len__(self) -> int:
        """Number of decisions."""
        return len(self.decisions)


Reward: TypeAlias = Callable[[Episode], "float | Sequence[float]"]
"""A float scores the episode; a sequence scores each decision, in order."""
