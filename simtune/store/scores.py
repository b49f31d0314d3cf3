"""Scores: what reward plugins and people said about decisions, in sidecar files.

Decisions are never rewritten. Each call of `write_scores` adds one file per scorer; of several
scores for one subject by one scorer, that of the latest (scorer_version, seq) counts.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from simtune.recording.conversion import to_json
from simtune.store.files import open_part, part_files, read_part, reading
from simtune.store.layout import (
    SCORES,
    STAGING,
    checked_name,
    compactor_id,
    durable_file,
    locked,
    part_name,
)
from simtune.store.placing import place, prepare
from simtune.store.remote import AnyPath
from simtune.store.roots import Root, claimed, open_root
from simtune.store.schema import ROW_GROUP_ROWS, parquet_writer
from simtune.store.schema import SCORES as SCHEMA


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """One judgement by one scorer.

    Attributes:
        decision_id: the decision that is scored; None scores the whole episode.
        episode_id: the episode it belongs to.
        scorer: name of the reward plugin or annotator.
        scorer_version: its version; numbers in it compare as numbers.
        score: the score; None where scoring failed, and `detail` says why.
        detail: anything JSON can hold, such as {"error": "..."}; None for nothing.
        ts: microseconds since the epoch, UTC; 0 means now.
    """

    decision_id: str | None
    episode_id: str
    scorer: str
    scorer_version: str
    score: float | None
    detail: Any = None
    ts: int = 0


def write_scores(root: str | os.PathLike[str], rows: Iterable[Score]) -> int:
    """Add scores to a store; durable, and all of a scorer's or none, on return.

    Args:
        root: directory of the store, or its URL; one host at a time writes a scorer's there.
        rows: the scores, of one scorer or of several.

    Returns:
        How many were written.
    """
    where = open_root(root)
    by_scorer: dict[str, list[Score]] = {}
    for row in rows:
        by_scorer.setdefault(checked_name(row.scorer, what="a scorer's name"), []).append(row)
    if by_scorer:
        claimed(root)
        with locked(where.local, "scores"):
            for unfinished in (where.local / STAGING).glob("*.scores"):
                unfinished.unlink()
            for scorer, scores in by_scorer.items():
                _write_part(where, scorer, scores)
    return sum(map(len, by_scorer.values()))


def all_scores(root: str | os.PathLike[str], scorer: str | None = None) -> pa.Table:
    """The scores that count: for each subject and scorer the latest (scorer_version, seq).

    Args:
        root: directory of the store.
        scorer: only this one's; everyone's where None.
    """
    path = open_root(root).tables
    tables = [
        read_part(part, SCHEMA)
        for directory in _scorer_directories(path)
        if scorer is None or directory.name == scorer
        for part in part_files(directory)
    ]
    return _latest(pa.concat_tables([SCHEMA.empty_table(), *tables]))


def latest_scores(root: str | os.PathLike[str], scorer: str) -> dict[str, float | None]:
    """The scores that count of one scorer, by decision id, or by episode id for whole episodes."""
    table = all_scores(root, scorer)
    subjects = pc.coalesce(table["decision_id"], table["episode_id"]).to_pylist()
    return dict(zip(subjects, table["score"].to_pylist(), strict=True))


def version_key(version: str) -> list[tuple[int, int, str]]:
    """Order of versions: runs of digits compare as numbers, the rest as text."""
    return [
        (1, int(part), "") if part.isdecimal() else (0, 0, part)
        for part in re.findall(r"\d+|\D+", version)
    ]


def _scorer_directories(root: AnyPath) -> list[AnyPath]:
    directory = root / SCORES
    found = directory.iterdir() if directory.is_dir() else ()
    return sorted((path for path in found if path.is_dir()), key=lambda path: path.name)


def _write_part(root: Root, scorer: str, scores: list[Score]) -> None:
    directory = root.tables / SCORES / scorer
    prepare(directory)
    first = _next_seq(directory)
    now = time.time_ns() // 1000
    table = pa.Table.from_pydict(
        {
            "decision_id": [score.decision_id for score in scores],
            "episode_id": [score.episode_id for score in scores],
            "scorer": [scorer] * len(scores),
            "scorer_version": [score.scorer_version for score in scores],
            "score": [score.score for score in scores],
            "detail": [to_json(score.detail, "detail", {}) for score in scores],
            "ts": [score.ts or now for score in scores],
            "writer_id": [compactor_id()] * len(scores),
            "seq": range(first, first + len(scores)),
        },
        schema=SCHEMA,
    )
    name = part_name(directory)
    staged = root.local / STAGING / f"{scorer}-{name}.scores"
    with durable_file(staged) as file, parquet_writer(file, SCHEMA) as writer:
        writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
    place(staged, directory / name)


def _next_seq(directory: AnyPath) -> int:
    """One past the highest seq of a scorer, from the files' statistics."""
    position = SCHEMA.get_field_index("seq")
    highest = -1
    for path in part_files(directory):
        with open_part(path, SCHEMA) as file, reading(path):
            for group in range(file.metadata.num_row_groups):
                statistics = file.metadata.row_group(group).column(position).statistics
                highest = max(highest, statistics.max)
    return highest + 1


def _latest(table: pa.Table) -> pa.Table:
    versions = sorted(pc.unique(table["scorer_version"]).to_pylist(), key=version_key)
    rank = pc.index_in(table["scorer_version"], pa.array(versions, pa.string()))
    order = pc.sort_indices(
        pa.table({"rank": rank, "seq": table["seq"]}),
        [("rank", "ascending"), ("seq", "ascending")],
    )
    ordered = table.take(order)
    subjects = pa.table(
        {
            "subject": pc.coalesce(ordered["decision_id"], ordered["episode_id"]),
            "whole": pc.is_null(ordered["decision_id"]),
            "scorer": ordered["scorer"],
            "position": pa.array(range(len(ordered)), pa.int64()),
        }
    )
    last = subjects.group_by(["subject", "whole", "scorer"]).aggregate([("position", "max")])
    return ordered.take(last.sort_by("position_max")["position_max"])
