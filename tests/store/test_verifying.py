"""`verify`: every kind of damage is found, named by its code, and left as it is."""

import fcntl
import os
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from store_rows import OTHER, WRITER, decision, end, reward, start, write_segment

from simtune.errors import DataError
from simtune.store import Score, compact, read, verify, write_scores
from simtune.store.findings import CODES
from simtune.store.schema import ROWS, SCORES, parquet_writer


@pytest.fixture
def store(tmp_path):
    """Two Parquet files, a sealed segment that is not compacted yet, and scores of both kinds."""
    root = tmp_path / "store"
    rows = [start("a"), decision("a", 0), decision("a", 1), reward(f"{WRITER}-1", 1.0, "a")]
    write_segment(root, [*rows, end("a", 2)])
    compact(root)
    write_segment(root, [start("b"), decision("b", 0), end("b", 1)], writer=OTHER)
    compact(root)
    write_segment(root, [decision("c", 0)], segno=1, first_seq=5)
    common = {"scorer": "judge", "scorer_version": "1", "score": 0.5}
    write_scores(
        root,
        [
            Score(decision_id=None, episode_id="a", **common),
            Score(decision_id=f"{WRITER}-5", episode_id="c", **common),
        ],
    )
    return root


def parts(root):
    return sorted((root / "data" / "v1").glob("part-*.parquet"))


def of_episode(root, episode_id):
    (found,) = [p for p in parts(root) if episode_id in pq.read_table(p)["episode_id"].to_pylist()]
    return found


def codes(root):
    return [finding.code for finding in verify(root).findings]


def rewrite(path, table, schema=ROWS):
    with open(path, "wb") as file, parquet_writer(file, schema) as writer:
        writer.write_table(table.cast(schema))


def with_column(path, name, values, schema=ROWS):
    table = pq.read_table(path)
    column = pa.array(values, table.schema.field(name).type)
    rewrite(path, table.set_column(table.schema.get_field_index(name), name, column), schema)


def everything(root):
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in [root, *root.rglob("*")]
    }


def test_a_sound_store_has_no_findings_and_is_not_touched(store):
    before = everything(store)
    found = verify(store)
    assert found.findings == []
    assert (found.parts, found.segments, found.rows, found.scores) == (2, 1, 9, 2)
    assert everything(store) == before


def truncated(root):
    path = parts(root)[0]
    path.write_bytes(path.read_bytes()[:-9])


def flipped(root):
    path = of_episode(root, "a")
    column = pq.read_metadata(path).row_group(0).column(2)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + 30] ^= 4
    path.write_bytes(data)


def lost(root):
    of_episode(root, "a").unlink()


def copied(root):
    path = of_episode(root, "a")
    path.with_name(f"part-{'f' * 16}-0000000007.parquet").write_bytes(path.read_bytes())


def other_columns(root):
    pq.write_table(pq.read_table(parts(root)[0]).drop_columns("prompt"), parts(root)[0])


def unsorted(root):
    path = of_episode(root, "a")
    ids = pq.read_table(path)["episode_id"].to_pylist()
    with_column(path, "episode_id", ["z", *ids[1:]])


def flip_log(root, position, before=b""):
    (path,) = (root / "wal").glob("*.wal")
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(before + data)


def misstate(root):
    """The footer says that the least kind is greater than `decision`."""
    path = of_episode(root, "a")
    data = path.read_bytes()
    begin = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    footer = data[begin:]
    assert footer.count(b"\x08decision") == 1  # the least value of `kind`
    path.write_bytes(data[:begin] + footer.replace(b"\x08decision", b"\x08edcision"))


def intent(root, final):
    text = f'{{"final":"{final}","inputs":[],"damaged":[]}}'
    (root / "_staging" / f"{final}.intent").write_text(text)


FINAL = f"part-{'0' * 16}-0000000000.parquet"

DAMAGES = {
    "unreadable-part": [truncated, flipped, lambda root: parts(root)[0].write_bytes(b"")],
    "schema-difference": [other_columns],
    "wrong-statistics": [misstate],
    "unsorted-part": [unsorted],
    "bad-row": [
        lambda root: with_column(of_episode(root, "b"), "kind", ["what"] * 3),
        lambda root: with_column(of_episode(root, "b"), "writer_id", [".."] * 3),
        lambda root: with_column(of_episode(root, "b"), "decision_id", [f"{WRITER}-9"] * 3),
    ],
    "duplicate-row": [copied],
    "sequence-gap": [lost],
    "reward-of-nothing": [
        lambda root: write_segment(root, [reward("nobody", 1.0)], segno=2, first_seq=6),
        lambda root: write_segment(root, [reward(f"{WRITER}-0", 1.0)], segno=2, first_seq=6),
    ],
    "damaged-segment": [lambda root: flip_log(root, -60)],
    "unreadable-segment": [lambda root: flip_log(root, 3)],
    "set-aside-segment": [lambda root: (root / "wal" / "x.wal.damaged").write_bytes(b"x")],
    "unfinished-segment": [lambda root: (root / "wal" / f"{OTHER}-00000009.new").write_bytes(b"")],
    "unfinished-compaction": [lambda root: intent(root, FINAL)],
    "orphan-staged": [
        lambda root: (root / "_staging" / FINAL).write_bytes(b"x"),
        lambda root: (root / "_staging" / "judge-x.scores").write_bytes(b"x"),
    ],
    "foreign-file": [
        lambda root: (root / "notes.txt").write_text("mine"),
        lambda root: (root / "data" / "v1" / "mine.parquet").write_text("mine"),
        lambda root: (root / "wal" / "mine").write_text("mine"),
        lambda root: (root / "_staging" / "mine").write_text("mine"),
        lambda root: (root / "scores" / "v1" / "mine").write_text("mine"),
        lambda root: (root / "scores" / "v1" / "judge" / "mine").write_text("mine"),
    ],
    "link-outside": [lambda root: (root / "data" / "v1" / FINAL).symlink_to("/etc/hostname")],
    "unreadable-scores": [
        lambda root: next(root.glob("scores/v1/judge/*")).write_bytes(b"PAR1PAR1")
    ],
    "misplaced-score": [lambda root: (root / "scores/v1/judge").rename(root / "scores/v1/other")],
    "score-of-nothing": [
        lambda root: with_column(
            next(root.glob("scores/v1/judge/*")), "episode_id", ["zz", "c"], SCORES
        ),
        lambda root: with_column(
            next(root.glob("scores/v1/judge/*")), "decision_id", [None, f"{WRITER}-0"], SCORES
        ),
    ],
}


def test_every_code_is_tried_below():
    assert set(DAMAGES) == set(CODES)


@pytest.mark.parametrize(
    ("code", "damage"), [(code, damage) for code, found in DAMAGES.items() for damage in found]
)
def test_damage_is_found_and_left_alone(store, code, damage):
    damage(store)
    before = everything(store)
    found = {finding.code: finding for finding in verify(store).findings}
    assert code in found
    assert found[code].fix == CODES[code]
    assert not Path(found[code].path).is_absolute()
    assert everything(store) == before


def test_a_finding_says_what_and_how_much(store):
    (store / "data" / "v1" / of_episode(store, "a").name).unlink()
    found = {finding.code: finding for finding in verify(store).findings}
    gap = found["sequence-gap"]
    assert (gap.path, gap.detail, gap.count) == ("data/v1", f"{WRITER}: no 0 to 4", 5)
    assert found["score-of-nothing"].detail == "no episode a"


def test_rows_before_damage_count(store):
    flip_log(store, -60)
    assert set(codes(store)) == {"damaged-segment", "score-of-nothing"}


def test_a_torn_tail_is_what_a_crash_leaves_and_no_damage(store):
    (path,) = (store / "wal").glob("*.wal")
    write_segment(store, [decision("c", 0), decision("c", 1)], segno=1, first_seq=5, sealed=False)
    path.write_bytes(path.read_bytes()[:-7])
    assert codes(store) == []


def test_a_running_compaction_is_waited_for(store):
    intent(store, FINAL)
    lock = os.open(store / "_staging" / "compactor.lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    found = []
    checking = threading.Thread(target=lambda: found.extend(codes(store)))
    checking.start()
    checking.join(0.3)
    assert checking.is_alive()
    (store / "_staging" / f"{FINAL}.intent").unlink()
    os.close(lock)
    checking.join(30)
    assert not checking.is_alive()
    assert found == []


def test_reading_mends_what_a_compaction_left(store):
    intent(store, FINAL)
    read(store)
    assert codes(store) == []


def test_no_store_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no store at"):
        verify(tmp_path / "nothing")
