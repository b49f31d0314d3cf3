"""The newest rows of a store, read without compacting it: bounded, so that a look stays a look."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from simtune.errors import CorruptError, RemoteError
from simtune.recording.segments import SEGMENT_NAME, iter_segment, segment_header, wal_directory
from simtune.records import Decision, Row
from simtune.store.assembly import mapping
from simtune.store.files import part_files
from simtune.store.footers import Part, read_footers, read_groups
from simtune.store.layout import DATA
from simtune.store.remote import AnyPath
from simtune.store.roots import open_root

ROWS: Final = 20_000
"""Rows of Parquet files that are looked at."""

LOG_BYTES: Final = 32 * 1024 * 1024
"""Bytes of log that are looked at."""

FILES: Final = 500
"""Parquet files whose footers are read."""

_COLUMNS: Final = (
    "decision_id",
    "writer_id",
    "seq",
    "kind",
    "episode_id",
    "env",
    "model",
    "adapter",
    "ts",
    "mono_ns",
    "extra",
    "valid",
    "error",
    "prompt_token_ids",
    "token_ids",
    "logprobs",
    "choice_logprobs",
    "sampling",
    "reward",
)


class Event(msgspec.Struct, kw_only=True):
    """A row, with what the checks look at; fields as in `simtune.records.Row`.

    Attributes:
        target: for kind `reward`, the decision it rewards.
        prompt_tokens: number of prompt token ids.
    """

    writer: str
    seq: int
    kind: str
    episode_id: str
    decision_id: str | None
    target: str | None
    env: str | None
    model: str | None
    adapter: str | None
    ts: int
    mono_ns: int
    extra: str | None
    valid: bool | None
    error: str | None
    prompt_tokens: int
    token_ids: list[int]
    logprobs: list[float]
    choice_logprobs: list[float]
    sampling: str | None
    reward: float | None

    def decision(self) -> Decision:
        """As training sees it; of the prompt there is only whether it has token ids."""
        return Decision(
            decision_id=self.decision_id or "",
            prompt_token_ids=[0] if self.prompt_tokens else [],
            token_ids=self.token_ids,
            logprobs=self.logprobs,
            choice_logprobs=self.choice_logprobs,
            sampling=decoded(self.sampling),
            reward=self.reward,
        )


class Sample(msgspec.Struct, kw_only=True, dict=True):
    """What was read of a store.

    Attributes:
        events: rows, each once.
        files: Parquet files there are.
        file_bytes: their size.
        file_rows: rows of each file whose footer was read.
        whole: whether `events` is all there is.
        unreadable: Parquet file -> why it cannot be read.
        damaged: segment of the log -> why it cannot be read to its end.
    """

    events: list[Event] = msgspec.field(default_factory=list)
    files: int = 0
    file_bytes: int = 0
    file_rows: list[int] = msgspec.field(default_factory=list)
    whole: bool = True
    unreadable: dict[str, str] = msgspec.field(default_factory=dict)
    damaged: dict[str, str] = msgspec.field(default_factory=dict)

    @functools.cached_property
    def decisions(self) -> list[Event]:
        """The decisions among the rows."""
        return [event for event in self.events if event.kind == "decision"]

    @property
    def scope(self) -> str:
        """Which rows figures are about, where they are not about all."""
        return "" if self.whole else f" among the newest {len(self.events):,} rows"


@functools.lru_cache(maxsize=256)
def _decoded(text: str) -> dict[str, Any]:
    return mapping(text)


def decoded(text: str | None) -> dict[str, Any]:
    """A JSON object of a row as a dict that is shared, so not to be changed."""
    return _decoded(text) if text else {}


def take_sample(store: str) -> Sample:
    """Read the newest rows of a store; nothing is compacted, locked or written.

    Raises:
        RemoteError: its URL cannot be reached.
        OptionError: nothing can open such a URL.
    """
    where = open_root(store)
    sample = Sample()
    known: set[tuple[str, int]] = set()
    for event in (*_logged(where.local, sample), *_filed(where.tables / DATA, sample)):
        # A compaction that was cut short after its commit leaves rows in both places.
        if (event.writer, event.seq) not in known:
            known.add((event.writer, event.seq))
            sample.events.append(event)
    return sample


def _logged(root: Any, sample: Sample) -> Iterator[Event]:
    directory = wal_directory(root)
    names = directory.iterdir() if directory.is_dir() else ()
    found = [(_age(path), path) for path in names if SEGMENT_NAME.fullmatch(path.name)]
    left = LOG_BYTES
    for (_, length), path in sorted(found, reverse=True):
        if left <= 0:
            sample.whole = False
            return
        left -= length
        try:
            writer = segment_header(path).writer
            for seq, row in iter_segment(path):
                yield _from_log(writer, seq, row)
        except FileNotFoundError:  # compacted meanwhile
            continue
        except CorruptError as error:
            sample.damaged[path.name] = str(error)


def _age(path: Any) -> tuple[float, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return (0.0, 0)
    return (getattr(found, "st_mtime", 0.0), found.st_size)


def _from_log(writer: str, seq: int, row: Row) -> Event:
    return Event(
        writer=writer,
        seq=seq,
        kind=row.kind,
        episode_id=row.episode_id,
        decision_id=f"{writer}-{seq}" if row.kind == "decision" else None,
        target=row.target,
        env=row.env,
        model=row.model,
        adapter=row.adapter,
        ts=row.ts,
        mono_ns=row.mono_ns,
        extra=row.extra,
        valid=row.valid,
        error=row.error,
        prompt_tokens=len(row.prompt_token_ids),
        token_ids=list(row.token_ids),
        logprobs=list(row.logprobs),
        choice_logprobs=list(row.choice_logprobs),
        sampling=row.sampling,
        reward=row.reward,
    )


def _filed(directory: AnyPath, sample: Sample) -> Iterator[Event]:
    try:
        found = sorted(((_age(path), path) for path in part_files(directory)), reverse=True)
    except RemoteError:
        raise
    except CorruptError as error:
        sample.unreadable[str(directory)] = str(error)
        return
    sample.files = len(found)
    sample.file_bytes = sum(length for (_, length), _ in found)
    left = ROWS
    for number, (_, path) in enumerate(found):
        if number == FILES:
            sample.whole = False
            return
        try:
            for part in read_footers([path]):
                sample.file_rows.append(sum(group.rows for group in part.groups))
                events = list(_of_part(part, left))
                sample.whole &= len(events) == sample.file_rows[-1]
                left -= len(events)
                yield from events
        except CorruptError as error:
            sample.unreadable[str(path)] = str(error)


def _of_part(part: Part, limit: int) -> Iterator[Event]:
    """The first rows of a file, in whole episodes where not all are taken."""
    taken = groups = 0
    while groups < len(part.groups) and taken < limit:
        taken += part.groups[groups].rows
        groups += 1
    if not groups:
        return
    events = list(_events(read_groups(part, range(groups), _COLUMNS)))
    cut = events[-1].episode_id if groups < len(part.groups) else None
    yield from (event for event in events if event.episode_id != cut)


def _events(table: Any) -> Iterator[Event]:
    columns = {
        name: table[name].to_pylist()
        for name in _COLUMNS
        if name not in ("ts", "prompt_token_ids", "decision_id")
    }
    times = [time for chunk in table["ts"].chunks for time in chunk.cast("int64").to_pylist()]
    lengths = [
        length
        for chunk in table["prompt_token_ids"].chunks
        for length in chunk.value_lengths().to_pylist()
    ]
    ids = table["decision_id"].to_pylist()
    names = list(columns)
    for at, values in enumerate(zip(*columns.values(), strict=True)):
        row = dict(zip(names, values, strict=True))
        row["writer"] = row.pop("writer_id")
        late = row["kind"] == "reward"
        for name in ("token_ids", "logprobs", "choice_logprobs"):
            row[name] = row[name] or []
        yield Event(
            decision_id=None if late else ids[at],
            target=ids[at] if late else None,
            ts=times[at] or 0,
            prompt_tokens=lengths[at] or 0,
            **row,
        )


def is_finite(value: float | None) -> bool:
    """Whether there is a number, and a finite one."""
    return value is not None and math.isfinite(value)
