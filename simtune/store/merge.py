"""Files sorted by episode -> whole episodes, file after file, with little held.

An episode may run through several compactions, so its rows can be in several files. Which ones do
is known from the ids alone. Their rows are held until the last file that has some of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from simtune.errors import CorruptError
from simtune.store.footers import Part, read_batches, read_groups


def merged(
    parts: Sequence[Part], columns: Sequence[str] | None = None, *, rows: int
) -> Iterator[pa.Table]:
    """Tables of all rows of some episodes, in the order of the files that hold their last rows.

    Args:
        parts: the files; rows of the same episode come in their order.
        columns: which columns, `episode_id` among them; all where None.
        rows: how many are read at a time.

    Raises:
        CorruptError: a file is damaged, or not sorted.
    """
    last = _last_parts(parts)
    running = pa.array(last, pa.string())
    held: list[pa.Table] = []
    for position, part in enumerate(parts):
        for table in _runs(part, columns, rows):
            ids = table["episode_id"]
            alone = pc.invert(pc.is_in(ids, running)) if last else None
            if alone is None or pc.all(alone).as_py():
                yield table
                continue
            held.append(table.filter(pc.invert(alone)))
            table = table.filter(alone)
            if table.num_rows:
                yield table
        ended = [episode_id for episode_id, end in last.items() if end == position]
        if ended:
            waiting = pa.concat_tables(held)
            done = pc.is_in(waiting["episode_id"], pa.array(ended, pa.string()))
            yield waiting.filter(done)
            held = [waiting.filter(pc.invert(done)).combine_chunks()]


def _last_parts(parts: Sequence[Part]) -> dict[str, int]:
    """Position of the last file of each episode that is in several."""
    if len(parts) < 2:
        return {}
    ids = pa.concat_tables([_ids(part, position) for position, part in enumerate(parts)])
    spans = ids.group_by("episode_id").aggregate([("position", "min"), ("position", "max")])
    several = spans.filter(pc.less(spans["position_min"], spans["position_max"]))
    columns = (several["episode_id"].to_pylist(), several["position_max"].to_pylist())
    return dict(zip(*columns, strict=True))


def _ids(part: Part, position: int) -> pa.Table:
    """The different ids in a file, with its position."""
    rows = read_groups(part, [group.number for group in part.groups], ["episode_id"])
    ids = pc.unique(rows["episode_id"]).cast(pa.string())
    return pa.table({"episode_id": ids, "position": pa.array([position] * len(ids), pa.int32())})


def _runs(part: Part, columns: Sequence[str] | None, rows: int) -> Iterator[pa.Table]:
    """A file in tables that end where an episode ends."""
    held: pa.Table | None = None
    last = ""
    for batch in read_batches(part, rows, columns):
        ids = batch["episode_id"].combine_chunks()
        if ids.null_count or ids[0].as_py() < last or not _ascending(ids):
            raise CorruptError(
                f"{part.path} is not sorted by episode_id",
                expected="rows in the order of format 1: episode_id, step, seq, writer_id",
                fix=f"move it away, then: simtune episodes import {part.path.name}",
            )
        last = ids[-1].as_py()
        whole = batch if held is None else pa.concat_tables([held, batch])
        ended = pc.sum(pc.less(whole["episode_id"], last)).as_py() or 0
        if ended:
            yield whole.slice(0, ended)
        held = whole.slice(ended)
    if held is not None:
        yield held


def _ascending(ids: pa.Array) -> bool:
    return pc.all(pc.less_equal(ids[:-1], ids[1:]), min_count=0).as_py() is not False
