"""Which episode a decision belongs to, per thread and per asyncio task."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simtune.recording.episodes import EpisodeLog

_open: ContextVar[tuple[EpisodeLog, ...]] = ContextVar("simtune_open_episodes", default=())
_lone: ContextVar[EpisodeLog | None] = ContextVar("simtune_lone_decision", default=None)


def enter(log: EpisodeLog) -> None:
    """Make an episode the innermost one here and in what is started from here."""
    _open.set((*_open.get(), log))


def leave(log: EpisodeLog) -> None:
    """Take an episode off, wherever it stands: generators may leave out of order."""
    _open.set(tuple(other for other in _open.get() if other is not log))


def current(agent: str | None = None) -> EpisodeLog | None:
    """The episode that a decision of this agent belongs to.

    The innermost one opened for the agent; else the innermost one opened for no agent in
    particular; else the innermost one. None outside of any.
    """
    open_here = _open.get()
    if not open_here:
        return None
    if agent is not None:
        for wanted in (agent, None):
            for log in reversed(open_here):
                if log.agent == wanted:
                    return log
    return open_here[-1]


def set_lone(log: EpisodeLog) -> None:
    """Remember the one-decision episode of a decision made outside of any episode."""
    _lone.set(log)


def rewarded() -> EpisodeLog | None:
    """The episode that `simtune.reward` means: the innermost, or the latest lone decision's."""
    return current() or _lone.get()
