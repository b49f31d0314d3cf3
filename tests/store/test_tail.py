"""The tail hands out every row once, wherever it lies at the moment."""

import os
import shutil
import time

import pytest
from store_rows import OTHER, WRITER, decision, end, reward, segment_bytes, start, write_segment

import simtune
from simtune.errors import CorruptError, OptionError
from simtune.recording import seal
from simtune.store import compact, layout
from simtune.store.cursor import Cursor, Position
from simtune.store.tailing import BATCH_ROWS, tail


def keys(batches):
    """(writer_id, seq) of every row, in the order of the batches."""
    return [
        key
        for batch in batches
        for key in zip(
            batch.rows["writer_id"].to_pylist(), batch.rows["seq"].to_pylist(), strict=True
        )
    ]


def of(writer, *seqs):
    return [(writer, seq) for seq in seqs]


def live(root, rows, *, torn=0, **where):
    """A segment without a seal, its last bytes cut off."""
    path = write_segment(root, rows, sealed=False, **where)
    path.write_bytes(path.read_bytes()[: -torn or None])
    return path


def test_nothing_yet_is_no_error(tmp_path):
    assert keys(tail(tmp_path / "no such store")) == []
    assert not (tmp_path / "no such store").exists()


def test_rows_of_the_log_then_of_parquet_then_of_the_log(tmp_path):
    write_segment(tmp_path, [decision(step=step) for step in range(3)])
    following = tail(tmp_path)
    assert keys(following) == of(WRITER, 0, 1, 2)
    write_segment(tmp_path, [decision(step=3)], segno=1, first_seq=3)
    compact(tmp_path)
    live(tmp_path, [decision(step=4)], segno=2, first_seq=4)
    assert keys(following) == of(WRITER, 3, 4)
    assert keys(following) == []


def test_a_frame_counts_once_it_is_whole(tmp_path):
    whole = segment_bytes([decision(step=0), decision(step=1)], sealed=False)
    first = len(segment_bytes([decision(step=0)], sealed=False))
    path = live(tmp_path, [])
    following = tail(tmp_path)
    seen = {}
    for size in range(len(segment_bytes([], sealed=False)), len(whole) + 1):
        path.write_bytes(whole[:size])
        for key in keys(following):
            seen[key] = size
    assert seen == {(WRITER, 0): first, (WRITER, 1): len(whole)}


def test_rows_have_every_column_and_each_writers_order(tmp_path):
    write_segment(tmp_path, [decision(step=1), decision(step=0)])
    (batch,) = tail(tmp_path)
    assert batch.rows["step"].to_pylist() == [1, 0]
    assert batch.rows["decision_id"].to_pylist() == [f"{WRITER}-0", f"{WRITER}-1"]
    compact(tmp_path)
    (again,) = tail(tmp_path)
    assert again.rows.equals(batch.rows)
    assert again.rows.schema == batch.rows.schema


def test_decisions_have_the_late_rewards_of_their_batch(tmp_path):
    write_segment(tmp_path, [start(), decision(reward=0.5), reward(f"{WRITER}-1", 0.25), end()])
    (batch,) = tail(tmp_path)
    assert batch.rows["kind"].to_pylist() == ["episode_start", "decision", "reward", "episode_end"]
    assert batch.decisions["reward"].to_pylist() == [0.75]


def test_many_rows_come_in_batches_and_each_cursor_goes_on_where_its_batch_ended(tmp_path):
    count = 2 * BATCH_ROWS + 10
    write_segment(tmp_path, [decision(step=step) for step in range(count)])
    batches = list(tail(tmp_path))
    assert [batch.rows.num_rows for batch in batches] == [BATCH_ROWS, BATCH_ROWS, 10]
    for number, batch in enumerate(batches):
        begin = min(count, (number + 1) * BATCH_ROWS)
        assert keys(tail(tmp_path, batch.cursor)) == of(WRITER, *range(begin, count))
    compact(tmp_path)
    begin = BATCH_ROWS
    assert keys(tail(tmp_path, batches[0].cursor)) == of(WRITER, *range(begin, count))


def test_an_older_cursor_gives_the_same_rows_from_parquet(tmp_path):
    write_segment(tmp_path, [decision(step=step) for step in range(4)])
    write_segment(tmp_path, [decision()], writer=OTHER)
    path = live(tmp_path, [decision(step=4)], segno=1, first_seq=4)
    cursor = Cursor(writers={WRITER: Position(0, 0, 2)})
    rest = [*of(WRITER, 2, 3, 4), *of(OTHER, 0)]
    assert sorted(keys(tail(tmp_path, cursor))) == rest
    path.write_bytes(segment_bytes([decision(step=4)], segno=1, first_seq=4))
    compact(tmp_path)
    assert sorted(keys(tail(tmp_path, cursor))) == rest


def test_between_commit_and_removal_a_row_is_in_both_and_counts_once(tmp_path):
    path = write_segment(tmp_path, [decision(step=step) for step in range(3)])
    shutil.copy(path, tmp_path / "kept")
    compact(tmp_path)
    shutil.move(tmp_path / "kept", path)
    assert sorted(keys(tail(tmp_path))) == of(WRITER, 0, 1, 2)
    before = tail(tmp_path, Cursor(writers={WRITER: Position(0, path.stat().st_size - 16, 3)}))
    assert keys(before) == []
    # Once the segment is gone, the file alone says that its rows were taken.
    path.unlink()
    assert keys(tail(tmp_path, before.cursor)) == []
    assert keys(before) == []
    assert before.cursor.writers == {}


def test_a_cursor_holds_positions_of_writers_with_segments_only(tmp_path):
    for number in range(40):
        write_segment(tmp_path, [decision()], writer=f"{number:016x}")
    following = tail(tmp_path)
    assert len(keys(following)) == 40
    assert len(following.cursor.writers) == 40
    compact(tmp_path)
    assert keys(following) == []
    assert following.cursor.writers == {}
    assert list(following.cursor.parts.values()) == [0]
    assert keys(tail(tmp_path, following.cursor)) == []


def test_a_writer_comes_back_after_all_its_segments_were_compacted(root):
    following = tail(root)
    for step in range(3):
        with simtune.episode(root=root) as episode:
            episode.decision("?", "!", reward=float(step))
        seal(root)
        assert [batch.rows["kind"].to_pylist() for batch in following] == [
            ["episode_start", "decision", "episode_end"]
        ]
        compact(root)
        assert keys(following) == []
        assert following.cursor.writers == {}


def test_what_a_damaged_segment_lost_is_passed_over(tmp_path):
    path = write_segment(tmp_path, [decision(step=step) for step in range(5)])
    first = len(segment_bytes([decision(step=0), decision(step=1)], sealed=False))
    data = bytearray(path.read_bytes())
    data[first + 40] ^= 1
    path.write_bytes(data)
    following = tail(tmp_path)
    assert keys(following) == of(WRITER, 0, 1)
    write_segment(tmp_path, [decision(step=5)], segno=1, first_seq=5)
    assert keys(following) == of(WRITER, 5)
    compact(tmp_path)
    assert (tmp_path / "wal" / f"{path.name}.damaged").exists()
    assert keys(following) == []
    assert sorted(keys(tail(tmp_path))) == of(WRITER, 0, 1, 5)


def test_a_segment_written_again_after_a_failed_sync_is_read_once(tmp_path):
    # The first one's rows from 2 on may not be on the disk: its writer wrote them again.
    live(tmp_path, [decision(step=step) for step in range(4)])
    following = tail(tmp_path)
    assert keys(following) == of(WRITER, 0, 1, 2, 3)
    again = [decision(step=step) for step in range(2, 6)]
    path = live(tmp_path, again, segno=1, first_seq=2)
    assert keys(following) == of(WRITER, 4, 5)
    assert keys(tail(tmp_path)) == of(WRITER, *range(6))
    # Cut, and replaced under its own name: the offset of the cursor is only a hint.
    path.write_bytes(segment_bytes(again[:1], segno=1, first_seq=2, sealed=False))
    assert keys(following) == []
    path.write_bytes(segment_bytes([*again, decision(step=6)], segno=1, first_seq=2))
    assert keys(following) == of(WRITER, 6)
    wrong = Cursor(writers={WRITER: Position(1, 77, 4)})
    assert keys(tail(tmp_path, wrong)) == of(WRITER, 4, 5, 6)


def test_a_segment_without_a_readable_header_is_told_and_passed_over(tmp_path):
    (tmp_path / "wal").mkdir()
    (tmp_path / "wal" / f"{OTHER}-00000000.wal").write_bytes(b"SIMTUNE1 no header")
    write_segment(tmp_path, [decision()])
    with pytest.warns(UserWarning, match=f"{OTHER}-00000000.wal"):
        assert keys(tail(tmp_path)) == of(WRITER, 0)


def test_a_parquet_file_that_cannot_be_read_is_named_and_nothing_is_passed_over(tmp_path):
    for number in range(3):
        write_segment(tmp_path, [decision()], segno=number, first_seq=number)
        compact(tmp_path)
    second = sorted((tmp_path / "data" / "v1").iterdir())[1]
    sound = second.read_bytes()
    second.write_bytes(sound[:-9])
    following = tail(tmp_path)
    batches = iter(following)
    assert keys([next(batches)]) == of(WRITER, 0)
    with pytest.raises(CorruptError, match=second.name):
        next(batches)
    cursor = following.cursor
    second.write_bytes(sound)
    assert keys(tail(tmp_path, cursor)) == of(WRITER, 1, 2)
    # Moved away instead: what is there is read.
    second.unlink()
    assert keys(tail(tmp_path, cursor)) == of(WRITER, 2)


def test_files_of_several_compactors_come_in_each_writers_order(tmp_path, monkeypatch):
    for number in range(6):
        write_segment(tmp_path, [decision()], segno=number, first_seq=number)
        write_segment(tmp_path, [decision()], writer=OTHER, segno=number, first_seq=number)
        monkeypatch.setattr(layout, "_identity", (os.getpid(), f"{(number * 5) % 6:016x}"))
        compact(tmp_path)
    found = keys(tail(tmp_path))
    assert [key for key in found if key[0] == WRITER] == of(WRITER, *range(6))
    assert [key for key in found if key[0] == OTHER] == of(OTHER, *range(6))


def test_files_whose_order_contradicts_itself_come_all_the_same(tmp_path, monkeypatch):
    # No compactor writes such files, but they can be copied together.
    write_segment(tmp_path / "a", [decision()])
    write_segment(tmp_path / "a", [decision()], writer=OTHER, segno=1, first_seq=1)
    write_segment(tmp_path / "b", [decision()], segno=1, first_seq=1)
    write_segment(tmp_path / "b", [decision()], writer=OTHER)
    data = tmp_path / "store/data/v1"
    data.mkdir(parents=True)
    for number, name in enumerate("ab"):
        compact(tmp_path / name)
        (path,) = (tmp_path / name / "data/v1").iterdir()
        shutil.copy(path, data / f"part-{number:016x}-{0:010d}.parquet")
    assert sorted(keys(tail(tmp_path / "store"))) == [*of(WRITER, 0, 1), *of(OTHER, 0, 1)]


def test_files_from_another_store_are_new_whatever_their_order(tmp_path):
    other = tmp_path / "other"
    for number in range(2):
        write_segment(other, [decision()], segno=number, first_seq=number)
        compact(other)
    older, newer = sorted((other / "data" / "v1").iterdir())
    following = tail(tmp_path / "store")
    (tmp_path / "store" / "data" / "v1").mkdir(parents=True)
    for compactor, path in (("a" * 16, newer), ("b" * 16, older)):
        shutil.copy(path, tmp_path / "store/data/v1" / f"part-{compactor}-{0:010d}.parquet")
        assert len(keys(following)) == 1
    assert keys(tail(tmp_path / "store", following.cursor)) == []


def test_follow_ends_after_a_silence(tmp_path):
    write_segment(tmp_path, [decision()])
    assert keys(tail(tmp_path, follow=True, timeout=0.05)) == of(WRITER, 0)


def test_arguments_are_checked(tmp_path):
    with pytest.raises(OptionError, match="timeout"):
        tail(tmp_path, timeout=3)
    with pytest.raises(OptionError, match="cannot start there"):
        tail(tmp_path, cursor={"parts": {}})


@pytest.fixture
def miss(monkeypatch):
    """Directories that change while they are listed: says what the next listings leave out."""
    from simtune.store import live_log, part_feed

    missing = {"segments": [], "files": []}

    def listdir(path):
        hidden = missing["segments"].pop(0) if missing["segments"] else ()
        return [name for name in os.listdir(path) if not name.endswith(tuple(hidden))]

    def parts(directory):
        hidden = missing["files"].pop(0) if missing["files"] else ()
        return [feed for feed in listed(directory) if feed.number not in hidden]

    listed = part_feed.all_parts
    monkeypatch.setattr(live_log, "listdir", listdir)
    monkeypatch.setattr(part_feed, "all_parts", parts)
    return missing


def test_a_file_that_a_listing_missed_is_not_passed_over(tmp_path, miss):
    for number in range(3):
        write_segment(tmp_path, [decision()], segno=number, first_seq=number)
        compact(tmp_path)
    miss["files"] = [[1]]
    assert keys(tail(tmp_path)) == of(WRITER, 0, 1, 2)
    miss["files"] = [[0, 1]]
    assert keys(tail(tmp_path)) == of(WRITER, 0, 1, 2)


def test_a_segment_that_a_listing_missed_is_not_passed_over(tmp_path, miss):
    for number in range(3):
        write_segment(tmp_path, [decision()], segno=number, first_seq=number)
    miss["segments"] = [["0.wal", "1.wal"]]
    assert keys(tail(tmp_path)) == of(WRITER, 0, 1, 2)


def test_a_segment_made_and_committed_during_a_look_counts_once(tmp_path, miss):
    path = write_segment(tmp_path, [decision(), decision()])
    shutil.copy(path, tmp_path / "kept")
    compact(tmp_path)
    shutil.move(tmp_path / "kept", path)
    miss["segments"] = [[".wal"]]
    following = tail(tmp_path)
    assert keys(following) == of(WRITER, 0, 1)
    assert keys(tail(tmp_path, following.cursor)) == []
    path.unlink()
    assert keys(following) == []
    assert following.cursor.writers == {}


def test_a_position_is_kept_while_a_file_waits_for_one_that_was_missed(tmp_path, miss):
    write_segment(tmp_path, [decision()], writer=OTHER)
    compact(tmp_path)
    write_segment(tmp_path, [decision()])
    following = tail(tmp_path)
    miss["files"] = [[0]]
    assert keys(following) == of(WRITER, 0)
    compact(tmp_path)
    miss["files"] = [[0]]
    assert keys(following) == of(OTHER, 0)


def test_a_clock_set_back_changes_nothing(tmp_path, monkeypatch):
    write_segment(tmp_path, [decision(step=0, ts=2_000_000), decision(step=1, ts=1_000_000)])
    following = tail(tmp_path)
    assert keys(following) == of(WRITER, 0, 1)
    write_segment(tmp_path, [decision(step=2, ts=0)], segno=1, first_seq=2)
    for path in (tmp_path / "wal").iterdir():
        os.utime(path, (0, 0))
    os.utime(tmp_path / "wal", (0, 0))
    assert keys(following) == of(WRITER, 2)
    compact(tmp_path)
    live(tmp_path, [decision(step=3, ts=-5)], segno=2, first_seq=3)
    monkeypatch.setattr(time, "time", lambda: pytest.fail("the wall clock was asked"))
    assert keys(following) == of(WRITER, 3)
    assert keys(tail(tmp_path)) == of(WRITER, 0, 1, 2, 3)
