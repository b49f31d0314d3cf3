"""Whether decisions and episodes were captured, ended, and could be parsed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Final

from simtune.doctor.finding import Finding, error, first_line, graded, of, ok
from simtune.doctor.sample import Sample
from simtune.doctor.subject import Subject
from simtune.recording.segments import SEGMENT_NAME, is_finished, wal_directory

_INVALID: Final = 0.3
_ABORTED: Final = 0.2
_UNFINISHED: Final = 0.1
_RUNNING_SECONDS: Final = 3600.0


def check(subject: Subject) -> Iterator[Finding]:
    """Look at the rows."""
    sample = subject.sample
    if not sample.decisions and subject.is_there:
        yield error(
            "no-decisions",
            f"no decision in {subject.store}: {len(sample.events)} rows of other kinds, "
            f"{sample.files} Parquet files",
            "decorate the function that asks the model with @simtune.capture and call it within "
            "`with simtune.episode():`; SIMTUNE_ROOT or simtune.configure(root=...) says where to",
        )
    if not sample.decisions:
        return
    episodes = {event.episode_id for event in sample.decisions}
    yield ok(
        "capture",
        f"{len(sample.decisions):,} decisions in {len(episodes):,} episodes{sample.scope}",
    )
    yield from _ends(subject, sample)
    yield from _invalid(sample)


def _ends(subject: Subject, sample: Sample) -> Iterator[Finding]:
    ended = {
        event.episode_id: event.error for event in sample.events if event.kind == "episode_end"
    }
    if not ended:
        living = _living_writers(subject)
        yield Finding(
            level="warning" if living else "error",
            code="no-episode-ends",
            seen=f"no episode has ended{sample.scope}, so training would find nothing; "
            f"{living} processes are still writing",
            fix="decide within `with simtune.episode() as episode:`, and call episode.finish() "
            "where the simulation knows how it ended",
        )
        return
    yield from _unfinished(sample, set(ended))
    aborted = [reason for reason in ended.values() if reason is not None]
    if aborted:
        reason, count = Counter(map(first_line, aborted)).most_common(1)[0]
        yield graded(
            "aborted-episodes",
            len(aborted) / len(ended),
            _ABORTED,
            f"{of(len(aborted), len(ended))} ended episodes were aborted by an exception"
            f"{sample.scope}; {count} times {reason!r}",
            "training leaves them out; mend what the simulation raised",
        )


def _unfinished(sample: Sample, ended: set[str]) -> Iterator[Finding]:
    """Episodes that began among these rows, have not ended, and are silent for an hour."""
    begun = {event.episode_id for event in sample.events if event.kind == "episode_start"}
    latest: dict[str, int] = {}
    for event in sample.events:
        latest[event.episode_id] = max(event.ts, latest.get(event.episode_id, 0))
    before = (time.time() - _RUNNING_SECONDS) * 1e6
    silent = [each for each in begun - ended if latest[each] < before]
    if silent:
        yield graded(
            "unfinished-episodes",
            len(silent) / len(begun),
            _UNFINISHED,
            f"{of(len(silent), len(begun))} episodes never ended and have been silent for over "
            f"an hour{sample.scope}",
            "training leaves them out; let `with simtune.episode():` end, and do not os._exit "
            "or kill -9 the simulation",
        )


def _invalid(sample: Sample) -> Iterator[Finding]:
    asked: Counter[str] = Counter()
    invalid: Counter[str] = Counter()
    for event in sample.decisions:
        if event.valid is not None:
            asked[event.env or "-"] += 1
            invalid[event.env or "-"] += event.valid is False
    for env, count in invalid.items():
        if count:
            yield graded(
                "invalid-answers",
                count / asked[env],
                _INVALID,
                f"env {env}: {of(count, asked[env])} answers could not be parsed{sample.scope}",
                "simtune episodes show ID shows them; a clearer instruction, a more lenient "
                "parse=, or SFT on the valid ones first",
            )


def _living_writers(subject: Subject) -> int:
    directory = wal_directory(subject.local)
    found = directory.iterdir() if directory.is_dir() else ()
    segments = [path for path in found if SEGMENT_NAME.fullmatch(path.name)]
    return sum(path.exists() and not is_finished(path) for path in segments)
