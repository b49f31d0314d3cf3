"""What a simulation calls: settings, episodes, rewards, and making captured rows safe."""

from __future__ import annotations

import os
from typing import Any

from simtune import config
from simtune.errors import OptionError
from simtune.recording import context
from simtune.recording.episodes import EpisodeLog
from simtune.recording.guard import guarded
from simtune.recording.recorders import active, existing, recorder_of, recorders
from simtune.recording.redaction import Redact, apply_everywhere
from simtune.recording.rows import EpisodeRows


def configure(
    *,
    root: str | os.PathLike[str] | None = None,
    durability: config.Durability | None = None,
    backpressure: config.Backpressure | None = None,
    redact: Redact | None = None,
    local: str | os.PathLike[str] | None = None,
    buffer_bytes: int | None = None,
    backlog_bytes: int | None = None,
    record_bytes: int | None = None,
    compactor: config.CompactorStart | None = None,
) -> config.Config:
    """Say where and how decisions are kept; what is not named stays as it is.

    Args:
        root: directory of the store, or a URL such as `s3://bucket/prefix`, to which compaction
            uploads; `./simtune-data` or `SIMTUNE_ROOT` at first.
        durability: `buffered` (with the operating system within 20 ms), `os` (on return; survives
            kill -9), or `disk` (on stable storage on return).
        backpressure: what happens to the caller where the buffer or the log is full: `block`
            (waits), `raise` (gets a `BackpressureError`, and every other failure of capture too),
            or `drop` (the decision is not kept; the next row counts how many were not).
        redact: as for `simtune.capture`, for every row of this process, after the rules of its
            decision point; `()` ends it. A function is given starts, ends and rewards too
            (`row.kind`); where it returns None for one of those, or raises, the row is written
            without its contents.
        local: the directory for the logs of stores whose root is a URL, on a local disk;
            `~/.local/state/simtune` or `SIMTUNE_LOCAL` at first.
        buffer_bytes: captured bytes that may wait in memory; 8 MiB at first.
        backlog_bytes: bytes of log that may wait for compaction; 4 GiB at first.
        record_bytes: size of the largest row that is kept; 64 MiB at first.
        compactor: `auto` has the log compacted by a process of its own from an eighth of
            `backlog_bytes` on; `none` leaves that to readers and to you.

    Returns:
        The settings now in force.

    Raises:
        OptionError: a value cannot be used.
    """
    path = None if root is None else os.fspath(root)
    if redact is not None:
        apply_everywhere(redact)
    return config.replace(
        root=path,
        durability=durability,
        backpressure=backpressure,
        local=None if local is None else os.fspath(local),
        buffer_bytes=buffer_bytes,
        backlog_bytes=backlog_bytes,
        record_bytes=record_bytes,
        compactor=compactor,
    )


def episode(
    *,
    env: str | None = None,
    agent: str | None = None,
    seed: int | None = None,
    run_id: str | None = None,
    root: str | os.PathLike[str] | None = None,
    **metadata: Any,
) -> EpisodeLog:
    """An episode to group decisions in: `with simtune.episode(env="maze", seed=3) as log:`.

    Episodes nest: a decision of agent A belongs to the innermost episode of A, else to the
    innermost one of no agent in particular, else to the innermost one.

    Args:
        env: name of the environment or simulation.
        agent: the agent whose decisions it holds, or None for any.
        seed: the seed it runs with.
        run_id: groups the episodes of one simulation run.
        root: the store, where it is not the configured one.
        **metadata: the caller's own fields.

    Returns:
        The episode's log, a context manager for `with` and `async with`.

    Raises:
        OptionError: `redact` is among the metadata, where it would be written instead of heeded.
    """
    if "redact" in metadata:
        raise OptionError(
            "an episode has no rules of its own",
            got="redact=...",
            fix="use @simtune.capture(redact=...) or simtune.configure(redact=...)",
        )
    known = metadata if seed is None else {"seed": seed, **metadata}
    return EpisodeLog(recorder_of(root), env=env, agent=agent, run_id=run_id, metadata=known)


def open_episode(
    *,
    env: str | None = None,
    agent: str | None = None,
    seed: int | None = None,
    run_id: str | None = None,
    root: str | os.PathLike[str] | None = None,
    **metadata: Any,
) -> EpisodeLog:
    """As `episode`, begun at once and ended by `finish`: for many episodes at a time."""
    log = episode(env=env, agent=agent, seed=seed, run_id=run_id, root=root, **metadata)
    log.begin()
    return log


def reward(value: float, *, decision: str | None = None) -> None:
    """Reward the latest decision of the current episode, or a named one, at any time.

    Args:
        value: the reward; several rewards of one decision add up.
        decision: the decision's id.
    """
    log = context.rewarded() if decision is None else context.current()
    if log is not None:
        log.reward(value, decision)
    else:
        guarded(_reward_outside, value, decision)


def _reward_outside(value: float, decision: str | None) -> None:
    EpisodeRows(active(), env=None, agent=None, run_id=None).reward(value, decision)


def flush() -> None:
    """Everything captured so far in this process is on stable storage on return.

    Raises:
        CaptureError: it is not; what could not be written is kept and tried again.
    """
    for recorder in recorders():
        recorder.flush()


def seal(root: str | os.PathLike[str]) -> None:
    """`flush` one store and end its live segment, so that a reader can compact it now.

    Raises:
        CaptureError: as for `flush`.
    """
    recorder = existing(root)
    if recorder is not None:
        recorder.seal()
