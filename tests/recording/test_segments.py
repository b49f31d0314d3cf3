"""What is read from a segment is exactly what was written, whatever happened to the file."""

import contextlib
import fcntl
import os

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtune.errors import CorruptError
from simtune.recording import open_episode, seal
from simtune.recording.frames import encode_frame, is_seal
from simtune.recording.segments import (
    Segment,
    iter_segment,
    remove_abandoned,
    sealed_segments,
    segment_header,
    segment_path,
    wal_directory,
)
from simtune.records import Row

WRITER = "00112233445566aa"
encode = msgspec.msgpack.encode


@pytest.fixture
def wal(tmp_path):
    directory = wal_directory(tmp_path)
    directory.mkdir()
    return directory


def make(directory, rows, *, segno=0, first_seq=0, seal=False):
    segment = Segment(directory, writer=WRITER, segno=segno, first_seq=first_seq)
    for seq, row in enumerate(rows, first_seq):
        segment.write(encode_frame(seq, encode(row)), seq + 1)
    if seal:
        segment.seal()
    else:
        segment.close()
    return segment.path


def some_rows(count):
    return [Row(kind="decision", episode_id="e", step=i, response="x" * i) for i in range(count)]


def read(path):
    """What a segment yields, rows in their encoded form: () and [] are the same on disk."""
    return [(seq, encode(row)) for seq, row in iter_segment(path)]


def numbered(rows, first_seq=0):
    return [(seq, encode(row)) for seq, row in enumerate(rows, first_seq)]


def sound_prefix(path):
    """The records read before the end or before the damage."""
    found = []
    with contextlib.suppress(CorruptError):
        for seq, row in iter_segment(path):
            found.append((seq, encode(row)))
    return found


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
rows = st.builds(
    Row,
    kind=st.sampled_from(["decision", "reward", "episode_start", "episode_end"]),
    episode_id=text,
    agent_id=st.none() | text,
    step=st.integers(0, 2**63 - 1),
    prompt=st.none() | st.lists(st.dictionaries(text, text, max_size=3), max_size=3),
    response=st.none() | text,
    valid=st.none() | st.booleans(),
    token_ids=st.lists(st.integers(0, 2**31 - 1), max_size=5),
    logprobs=st.lists(st.floats(max_value=0, allow_nan=False), max_size=5),
    reward=st.none() | st.floats(allow_nan=False),
)


@given(written=st.lists(rows, max_size=8), first_seq=st.integers(0, 2**40), seal=st.booleans())
@settings(max_examples=60, deadline=None)
def test_round_trip(tmp_path_factory, written, first_seq, seal):
    path = make(tmp_path_factory.mktemp("wal"), written, first_seq=first_seq, seal=seal)
    assert read(path) == numbered(written, first_seq)


def test_the_header_says_who_wrote_it(wal):
    header = segment_header(make(wal, [], segno=3, first_seq=17))
    assert (header.writer, header.segno, header.first_seq) == (WRITER, 3, 17)
    assert header.schema_version == 1
    assert header.pid > 0


@pytest.mark.parametrize("seal", [False, True])
def test_a_tail_torn_at_any_byte_leaves_a_contiguous_prefix(wal, seal):
    written = some_rows(4)
    path = make(wal, written, seal=seal)
    whole = path.read_bytes()
    body = len(whole) - (16 if seal else 0)
    ends = []
    for row, seq in zip(reversed(written), range(3, -1, -1), strict=True):
        ends.append(body)
        body -= len(encode_frame(seq, encode(row)))
    ends.reverse()
    for size in range(body, len(whole) + 1):
        path.write_bytes(whole[:size])
        complete = sum(end <= size for end in ends)
        assert read(path) == numbered(written)[:complete]
    for size in range(body):
        path.write_bytes(whole[:size])
        with pytest.raises(CorruptError):
            list(iter_segment(path))


def test_no_flipped_bit_yields_a_wrong_record(wal):
    written = numbered(some_rows(3))
    path = make(wal, some_rows(3), seal=True)
    whole = path.read_bytes()
    for position in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        found = sound_prefix(path)
        assert found == written[: len(found)]


def test_damage_before_the_tail_is_said(wal):
    path = make(wal, some_rows(3))
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    rows = iter_segment(path)
    assert [next(rows)[0], next(rows)[0]] == [0, 1]
    with pytest.raises(CorruptError, match="checksum"):
        next(rows)


def test_a_tail_of_zeros_is_a_torn_tail(wal):
    path = make(wal, some_rows(2))
    path.write_bytes(path.read_bytes() + bytes(100))
    assert len(list(iter_segment(path))) == 2


def test_a_length_the_file_cannot_hold_is_never_allocated(wal):
    path = make(wal, some_rows(1))
    path.write_bytes(path.read_bytes() + b"\xff" * 16)
    assert len(list(iter_segment(path))) == 1


def test_records_out_of_sequence_are_refused(wal):
    path = make(wal, some_rows(2))
    path.write_bytes(path.read_bytes() + encode_frame(1, encode(some_rows(1)[0])))
    with pytest.raises(CorruptError, match="sequence"):
        list(iter_segment(path))


def test_a_foreign_file_is_refused(wal):
    path = wal / "x.wal"
    path.write_bytes(b"PAR1" * 10)
    with pytest.raises(CorruptError, match="no log segment"):
        segment_header(path)


def test_records_written_again_in_the_next_segment_are_read_once(wal):
    written = some_rows(5)
    first = make(wal, written[:4])
    second = make(wal, written[2:], segno=1, first_seq=2)
    found = [seq for path in (first, second) for seq, _ in iter_segment(path)]
    assert found == [0, 1, 2, 3, 4]


def test_sealed_and_dead_segments_are_listed_in_order_and_live_ones_are_not(wal):
    second = make(wal, some_rows(1), segno=1, first_seq=1)
    first = make(wal, some_rows(1), seal=True)
    live = Segment(wal, writer=WRITER, segno=2, first_seq=2)
    (wal / f"{WRITER}-00000009.new").touch()
    assert sealed_segments(wal.parent) == [first, second]
    live.close()
    assert sealed_segments(wal.parent) == [first, second, segment_path(wal, WRITER, 2)]


def test_a_seal_counts_even_where_a_stray_descriptor_holds_the_lock(wal):
    path = make(wal, some_rows(1), seal=True)
    with open(path, "rb") as stray:
        fcntl.flock(stray, fcntl.LOCK_EX)
        assert sealed_segments(wal.parent) == [path]


def test_no_end_of_a_record_passes_for_a_seal():
    for end in (None, True, False):
        frame = encode_frame(1, encode(Row(kind="decision", episode_id="e", truncated=end)))
        assert not is_seal(frame[-16:])


def test_a_header_that_names_another_segment_is_refused(wal):
    path = make(wal, some_rows(1))
    for name in (f"{WRITER}-00000001.wal", f"{'f' * 16}-00000000.wal"):
        other = wal / name
        other.write_bytes(path.read_bytes())
        with pytest.raises(CorruptError, match="does not belong under its name"):
            segment_header(other)


@pytest.mark.parametrize("writer", ["../../../etc/pas", "0011223344556677/", "", "X" * 16])
def test_a_writers_id_cannot_leave_the_directory(wal, writer):
    with pytest.raises(CorruptError, match="no writer's id"):
        segment_path(wal, writer, 0)


def test_what_a_killed_writer_left_half_made_is_removed(wal):
    """Old and unlocked goes; young, locked, or of another name stays."""
    old, young, held = (wal / f"{WRITER}-{segno:08d}.new" for segno in range(3))
    foreign = wal / "mine.new"
    for path in (old, young, held, foreign):
        path.write_bytes(b"SIMTUNE1")
        os.utime(path, (0, 0))
    os.utime(young)
    with open(held, "rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert remove_abandoned(wal.parent) == 1
    assert sorted(wal.iterdir()) == sorted([young, held, foreign])
    assert remove_abandoned(wal.parent / "nothing") == 0


def test_the_first_capture_of_a_process_removes_what_was_abandoned(tmp_path):
    root = tmp_path / "store"
    wal_directory(root).mkdir(parents=True)
    abandoned = wal_directory(root) / f"{WRITER}-00000000.new"
    abandoned.touch()
    os.utime(abandoned, (0, 0))
    open_episode(env="e", root=str(root)).finish()
    seal(root)
    assert not abandoned.exists()


def test_a_segment_is_made_although_an_attempt_before_left_a_locked_file(wal):
    left = wal / f"{WRITER}-00000000.new"
    with open(left, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        path = make(wal, some_rows(2))
    assert len(read(path)) == 2
    assert not left.exists()


def test_a_write_done_twice_is_there_once(wal):
    """A Ctrl-C after the last byte of a write, before the write is known to be done."""
    segment = Segment(wal, writer=WRITER, segno=0, first_seq=0)
    frames = [encode_frame(seq, encode(row)) for seq, row in enumerate(some_rows(3))]
    end = segment.end
    segment.write(b"".join(frames[:2]), 2)
    segment.end = end
    segment.write(b"".join(frames), 3)
    segment.seal()
    assert [seq for seq, _ in iter_segment(segment.path)] == [0, 1, 2]


def test_a_store_without_a_log_has_no_segments(tmp_path):
    assert sealed_segments(tmp_path) == []


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_nobody_else_can_read_the_log(tmp_path, mask):
    """Whatever the umask, and for parents that had to be made too."""
    root = tmp_path / "made" / "store"
    before = os.umask(mask)
    try:
        _capture_and_seal(root)
    finally:
        os.umask(before)
    (segment,) = (root / "wal").glob("*.wal")
    made = [root.parent, root, root / "wal", segment]
    assert [path.stat().st_mode & 0o777 for path in made] == [0o700, 0o700, 0o700, 0o600]


def _capture_and_seal(root):
    log = open_episode(env="e", root=str(root))
    log.finish(terminated=True)
    seal(root)
