"""Served answers as decisions of episodes that a simulation names."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec

from simtune.recording import EpisodeLog, flush
from simtune.recording.recorders import recorder_of
from simtune.records import Messages
from simtune.reply import Reply
from simtune.serving.refusals import Refusal, unusable

T = TypeVar("T")

REMEMBERED = 65_536
"""Open episodes that are known, and finished ones; the least lately used are forgotten first."""

PREFIX = "simtune_"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


class Turn(msgspec.Struct, kw_only=True, frozen=True):
    """What a request says about the decision that its answer is.

    Attributes:
        episode: the episode's id; None: an episode of its own.
        env: name of the environment or simulation.
        agent: who decides.
        action: name of the decision point.
        run_id: groups the episodes of one simulation run.
        metadata: the caller's own fields.
    """

    episode: str | None = None
    env: str | None = None
    agent: str | None = None
    action: str | None = None
    run_id: str | None = None
    metadata: dict[str, Any] = {}


class Begun(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/simtune/episodes`."""

    episode: str | None = None
    env: str | None = None
    agent: str | None = None
    seed: int | None = None
    run_id: str | None = None
    metadata: dict[str, Any] = {}


class Rewarded(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/simtune/episodes/{id}/reward`."""

    reward: float
    decision: str | None = None


class Finished(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/simtune/episodes/{id}/finish`."""

    terminated: bool = False
    truncated: bool = False
    outcome: dict[str, Any] = {}
    final_messages: list[dict[str, Any]] | None = None


class Decided(msgspec.Struct, frozen=True):
    """Ids of a captured decision; `decision` is empty where it could not be kept."""

    episode: str
    decision: str


def turn_of(header: str | None, metadata: Mapping[str, Any] | None) -> Turn:
    """Read a request's header and metadata; fields that begin with `simtune_` are taken out.

    Raises:
        Refusal: an id that cannot be one, or a field that is unknown.
    """
    said = dict(metadata or {})
    own = {name: said.pop(name) for name in list(said) if name.startswith(PREFIX)}
    episode = header or own.pop(f"{PREFIX}episode", None)
    if header and own.pop(f"{PREFIX}episode", header) != header:
        raise unusable("the header and the metadata name different episodes", "metadata")
    fields = {name: own.pop(PREFIX + name, None) for name in ("env", "agent", "action", "run_id")}
    if own:
        raise unusable(f"{next(iter(own))!r} is not understood", "metadata", "unknown_parameter")
    for name, value in fields.items():
        if value is not None and not isinstance(value, str):
            raise unusable(f"{PREFIX}{name} is a text", "metadata", "invalid_type")
    return Turn(episode=None if episode is None else checked_id(episode), metadata=said, **fields)


def checked_id(episode: object) -> str:
    """An episode's id.

    Raises:
        Refusal: it cannot be one.
    """
    if not isinstance(episode, str) or not _ID.fullmatch(episode):
        raise unusable(
            "an episode's id is up to 128 letters, digits and . _ : -, and begins with a letter "
            "or digit",
            "simtune_episode",
        )
    return episode


class Capture:
    """Episodes that simulations play against this server.

    One thread of its own writes, in order: where the disk is full and capture waits, answers wait
    for it, but health and metrics do not.

    Args:
        root: the store.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._open: OrderedDict[str, EpisodeLog] = OrderedDict()
        self._latest: dict[str, str] = {}
        self._finished: OrderedDict[str, None] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="simtune-capture")

    @property
    def open_episodes(self) -> int:
        """Episodes that were begun and not finished."""
        return len(self._open)

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Have one of the methods below called by the thread that writes."""
        return self._thread.submit(work)

    def begin(self, said: Begun) -> str:
        """Begin an episode; returns its id.

        Raises:
            Refusal: there is one of this id.
        """
        if said.episode is not None and self._known(checked_id(said.episode)):
            raise Refusal(409, f"episode {said.episode!r} was begun already", code="episode_exists")
        metadata = said.metadata if said.seed is None else {"seed": said.seed, **said.metadata}
        log = EpisodeLog(
            recorder_of(self.root),
            env=said.env,
            agent=said.agent,
            run_id=said.run_id,
            metadata=metadata,
            episode_id=said.episode,
        )
        log.begin()
        self._keep(log)
        return log.id

    def decide(
        self,
        turn: Turn,
        prompt: Messages | str,
        reply: Reply,
        *,
        latency_us: int,
        extra: Mapping[str, Any],
        error: str | None = None,
    ) -> Decided:
        """An answer was given; an episode that is not known begins with it.

        Raises:
            Refusal: the episode is finished.
        """
        log = self._log_of(turn)
        decision = log.decision(
            prompt,
            reply,
            action=turn.action,
            agent=turn.agent,
            valid=error is None,
            error=error,
            latency_us=latency_us,
            metadata=turn.metadata,
            extra=extra,
        )
        if turn.episode is not None:
            self._latest[log.id] = decision
        return Decided(log.id, decision)

    def reward(self, episode: str, said: Rewarded) -> None:
        """Reward a decision, the episode's latest by default; also when it has been finished.

        Raises:
            Refusal: no such episode, or no decision to reward.
        """
        log = self._open.get(episode)
        if log is not None:
            decision = said.decision or self._latest.get(episode)
            if not decision:
                raise Refusal(409, "there is no decision to reward yet", code="no_decision")
            log.reward(said.reward, decision)
        elif said.decision is not None:
            late = EpisodeLog(recorder_of(self.root), episode_id=checked_id(episode))
            late.stand_alone()
            late.reward(said.reward, said.decision)
        else:
            raise self._unknown(episode, "name the decision")

    def finish(self, episode: str, said: Finished) -> None:
        """End an episode.

        Raises:
            Refusal: it is not open.
        """
        log = self._open.pop(episode, None)
        if log is None:
            raise self._unknown(episode, "an episode is finished once, after it was begun")
        self._latest.pop(episode, None)
        log.finish(
            terminated=said.terminated,
            truncated=said.truncated,
            outcome=said.outcome,
            final_prompt=said.final_messages,
        )
        self._finished[episode] = None
        if len(self._finished) > REMEMBERED:
            self._finished.popitem(last=False)

    def check(self, turn: Turn) -> None:
        """Refuse a decision of an episode that is finished, before it is computed.

        Raises:
            Refusal: it is.
        """
        if turn.episode in self._finished:
            raise Refusal(409, f"episode {turn.episode!r} is finished", code="episode_finished")

    def close(self) -> None:
        """Everything captured is on stable storage on return."""
        self.submit(flush).result()
        self._thread.shutdown()

    def _log_of(self, turn: Turn) -> EpisodeLog:
        if turn.episode is None:
            log = EpisodeLog(
                recorder_of(self.root), env=turn.env, agent=turn.agent, run_id=turn.run_id
            )
            log.stand_alone()
            return log
        self.check(turn)
        known = self._open.get(turn.episode)
        if known is None:
            self.begin(Begun(episode=turn.episode, env=turn.env, run_id=turn.run_id))
            return self._open[turn.episode]
        self._open.move_to_end(turn.episode)
        return known

    def _keep(self, log: EpisodeLog) -> None:
        self._open[log.id] = log
        if len(self._open) > REMEMBERED:
            forgotten, _ = self._open.popitem(last=False)
            self._latest.pop(forgotten, None)

    def _known(self, episode: str) -> bool:
        return episode in self._open or episode in self._finished

    def _unknown(self, episode: str, advice: str) -> Refusal:
        state = "is finished" if episode in self._finished else "is not known here"
        return Refusal(404, f"episode {episode!r} {state}; {advice}", code="episode_not_found")
