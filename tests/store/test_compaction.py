"""Compaction: everything arrives once, whatever is killed, torn or damaged on the way."""

import json
import os
import signal
import stat
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from store_rows import OTHER, WRITER, decision, segment_bytes, write_segment

from simtune.errors import CorruptError, DataError, OptionError
from simtune.store import compact, compaction
from simtune.store.layout import locked


def stored(root):
    """(writer_id, seq) of every row in the Parquet files, by a plain glob."""
    found = []
    for path in sorted((root / "data" / "v1").glob("*.parquet")):
        table = pq.read_table(path, columns=["writer_id", "seq"])
        found += zip(*table.to_pydict().values(), strict=True)
    return sorted(found)


def logged(root):
    return sorted(path.name for path in (root / "wal").iterdir())


def two_writers(root):
    """Five rows in three segments; returns their identities."""
    write_segment(root, [decision(step=0), decision(step=1)])
    write_segment(root, [decision(step=2)], segno=1, first_seq=2, sealed=False)
    write_segment(root, [decision(step=0), decision(step=1)], writer=OTHER)
    return [*((WRITER, seq) for seq in range(3)), (OTHER, 0), (OTHER, 1)]


def test_segments_become_one_file_and_are_gone(tmp_path):
    rows = two_writers(tmp_path)
    report = compact(tmp_path)
    assert (report.segments, report.rows, len(report.files), report.damaged) == (3, 5, 1, [])
    assert report.log_bytes > 0
    assert report.parquet_bytes == os.path.getsize(report.files[0])
    assert stored(tmp_path) == rows
    assert logged(tmp_path) == []
    assert sorted(path.name for path in (tmp_path / "_staging").iterdir()) == ["compactor.lock"]


def test_compacting_again_adds_nothing(tmp_path):
    rows = two_writers(tmp_path)
    compact(tmp_path)
    assert compact(tmp_path).files == []
    assert stored(tmp_path) == rows


def test_an_untouched_directory_stays_untouched(tmp_path):
    assert compact(tmp_path / "nothing").rows == 0
    assert not (tmp_path / "nothing").exists()


def test_names_count_up_and_are_private(tmp_path):
    for segno in range(2):
        write_segment(tmp_path, [decision()], segno=segno, first_seq=segno)
        compact(tmp_path)
    names = sorted(path.name for path in (tmp_path / "data" / "v1").iterdir())
    compactor = names[0].split("-")[1]
    assert names == [f"part-{compactor}-{n:010d}.parquet" for n in range(2)]
    for path in [tmp_path / "data", *(tmp_path / "data").rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_many_segments_make_files_of_bounded_size(tmp_path, monkeypatch):
    size = len(segment_bytes([decision()] * 4))
    monkeypatch.setattr(compaction, "_GROUP_BYTES", 2 * size + 8)
    for segno in range(5):
        write_segment(tmp_path, [decision()] * 4, segno=segno, first_seq=4 * segno)
    report = compact(tmp_path)
    assert [pq.read_metadata(file).num_rows for file in report.files] == [8, 8, 4]
    assert stored(tmp_path) == [(WRITER, seq) for seq in range(20)]


def test_a_torn_tail_costs_only_the_torn_record(tmp_path):
    data = segment_bytes([decision(step=0), decision(step=1)], sealed=False)
    path = write_segment(tmp_path, [])
    path.write_bytes(data[:-1])
    assert compact(tmp_path).damaged == []
    assert stored(tmp_path) == [(WRITER, 0)]
    assert logged(tmp_path) == []


def test_a_damaged_segment_is_kept_beside_what_could_be_read(tmp_path):
    first = len(segment_bytes([decision(step=0)], sealed=False))
    path = write_segment(tmp_path, [decision(step=step) for step in range(3)])
    data = bytearray(path.read_bytes())
    data[first + 40] ^= 1
    path.write_bytes(data)
    report = compact(tmp_path)
    assert report.damaged == [f"{path}.damaged"]
    assert stored(tmp_path) == [(WRITER, 0)]
    assert logged(tmp_path) == [f"{path.name}.damaged"]
    assert compact(tmp_path).damaged == []


def test_a_segment_without_a_readable_header_stays_where_it_is(tmp_path):
    rows = two_writers(tmp_path)
    path = tmp_path / "wal" / f"{'a' * 16}-00000000.wal"
    path.write_bytes(b"SIMTUNE1 no header")
    assert compact(tmp_path).damaged == [str(path)]
    assert stored(tmp_path) == rows
    assert logged(tmp_path) == [path.name]


def test_segments_without_rows_leave_no_file(tmp_path):
    write_segment(tmp_path, [])
    assert compact(tmp_path).files == []
    assert logged(tmp_path) == []
    assert not (tmp_path / "data").exists()


class Killed(BaseException):
    """The process stops here: nothing after this point happens."""


EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.link")
_fuse = {"left": None, "root": ""}


def _burn(event, arguments):
    if _fuse["left"] is None or event not in EVENTS:
        return
    if str(arguments[0]).startswith(_fuse["root"]):
        _fuse["left"] -= 1
        if _fuse["left"] < 0:
            raise Killed(event)


sys.addaudithook(_burn)  # Python has no way to remove one; it does nothing while left is None.


def killed_at(step, root):
    """Run compact with every file operation from the given one on refused."""
    _fuse.update(left=step, root=str(root))
    try:
        compact(root)
    except Killed:
        return True
    finally:
        _fuse["left"] = None
    return False


def test_killed_at_any_file_operation_nothing_is_lost_or_doubled(tmp_path):
    outcomes = []
    while not outcomes or outcomes[-1] != "done":
        root = tmp_path / str(len(outcomes))
        rows = two_writers(root)
        killed = killed_at(len(outcomes), root)
        visible = stored(root)
        # A reader that globs right now sees all of the commit or nothing of it.
        assert visible in ([], rows), outcomes
        compact(root)
        assert stored(root) == rows, outcomes
        assert logged(root) == []
        assert [path.name for path in (root / "_staging").iterdir()] == ["compactor.lock"]
        outcomes.append("done" if not killed else "before" if not visible else "after")
    # The kills fell on both sides of the commit point, in this order.
    assert outcomes == sorted(outcomes, key=["before", "after", "done"].index)
    assert outcomes.count("before") > 5
    assert outcomes.count("after") > 3


def test_killed_twice_in_a_row_nothing_is_lost_or_doubled(tmp_path):
    for first in range(4, 30, 3):
        for second in range(2, 30, 4):
            root = tmp_path / f"{first}-{second}"
            rows = two_writers(root)
            killed_at(first, root)
            killed_at(second, root)
            compact(root)
            assert stored(root) == rows, (first, second)


KILLED_FOR_REAL = """
import os, pathlib, signal, sys
from simtune.store import compact
root, wanted, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
def watch(event, arguments):
    global count
    if event == wanted and str(arguments[0]).startswith(root):
        count -= 1
        if count < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
compact(root)
"""


@pytest.mark.parametrize(
    ("event", "count", "committed"),
    [("os.rename", 1, False), ("os.remove", 0, True), ("os.remove", 2, True)],
)
def test_sigkill_before_the_commit_and_between_the_unlinks(tmp_path, event, count, committed):
    rows = two_writers(tmp_path)
    command = [sys.executable, "-c", KILLED_FOR_REAL, str(tmp_path), event, str(count)]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    assert stored(tmp_path) == (rows if committed else [])
    assert logged(tmp_path) != []
    compact(tmp_path)
    assert stored(tmp_path) == rows
    assert logged(tmp_path) == []


def test_compactors_take_turns(tmp_path):
    rows = two_writers(tmp_path)
    script = "import sys; from simtune.store import compact; print(compact(sys.argv[1]).rows)"
    command = [sys.executable, "-c", script, str(tmp_path)]
    with locked(tmp_path, "compactor"):
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        assert stored(tmp_path) == []
    counts = sorted(int(process.communicate()[0]) for process in running)
    assert counts == [0, 5]
    assert stored(tmp_path) == rows


@pytest.mark.parametrize(
    "intent",
    [
        {"final": "../../wal/x.parquet", "inputs": [], "damaged": []},
        {"final": None, "inputs": ["../../../etc/passwd"], "damaged": []},
        {"final": None, "inputs": [], "damaged": ["../data"]},
        {"final": None},
    ],
)
def test_an_intent_cannot_name_anything_outside(tmp_path, intent):
    part = f"part-{'0' * 16}-{0:010d}.parquet"
    (tmp_path / "_staging").mkdir()
    path = tmp_path / "_staging" / f"{part}.intent"
    path.write_text(
        json.dumps(
            {key: value or part if key == "final" else value for key, value in intent.items()}
        )
    )
    with pytest.raises(CorruptError, match="no usable record"):
        compact(tmp_path)


def test_a_disk_that_refuses_is_said_and_loses_nothing(tmp_path, monkeypatch):
    rows = two_writers(tmp_path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(DataError, match=r"(?s)cannot compact.*No space left"):
            compact(tmp_path)
    assert len(logged(tmp_path)) == 3
    compact(tmp_path)
    assert stored(tmp_path) == rows


def test_a_url_that_nothing_opens_is_refused_in_plain_words():
    with pytest.raises(OptionError, match="nothing can open a store at nowhere://"):
        compact("nowhere://bucket/store")
