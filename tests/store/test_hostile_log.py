"""Log files that nobody should have written end as damage: no crash, no memory on their word."""

import os
import struct
import tracemalloc

import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_rows import WRITER, decision, segment_bytes, write_segment

from simtune.errors import CorruptError
from simtune.recording.encoding import encode_row
from simtune.recording.frames import MAX_PAYLOAD, encode_frame
from simtune.recording.segments import iter_logged, iter_segment
from simtune.records import Row
from simtune.store import compact

ROW = encode_row(decision())
HEADER = segment_bytes([], sealed=False)
PEAK = 8 * 1024 * 1024


def written(root, data):
    path = write_segment(root, [])
    path.write_bytes(data)
    return path


def rows_before_damage(path, read=iter_logged):
    """How many rows a segment yields, and whether it then says that it is damaged."""
    count = 0
    try:
        for _ in read(path):
            count += 1
    except CorruptError:
        return count, True
    return count, False


def fields(**changed):
    """A row's payload with some fields replaced by whatever, encoded without any check."""
    values = dict(zip(Row.__struct_fields__, msgspec.msgpack.decode(ROW), strict=True))
    return msgspec.msgpack.encode(list({**values, **changed}.values()))


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=400), headed=st.booleans())
def test_random_bytes_are_damage_or_a_torn_tail(tmp_path_factory, data, headed):
    path = written(tmp_path_factory.mktemp("log"), HEADER + data if headed else data)
    for read in (iter_segment, iter_logged):
        assert rows_before_damage(path, read)[0] == 0


@settings(max_examples=150, deadline=None)
@given(payload=st.binary(min_size=1, max_size=200))
def test_random_payloads_with_a_good_checksum_are_damage(tmp_path_factory, payload):
    data = HEADER + encode_frame(0, ROW) + encode_frame(1, payload)
    path = written(tmp_path_factory.mktemp("log"), data)
    for read in (iter_segment, iter_logged):
        assert rows_before_damage(path, read) == (1, True)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_payload_changed_anywhere_is_damage_or_a_row_that_fits_the_table(tmp_path_factory, data):
    position = data.draw(st.integers(0, len(ROW) - 1))
    changed = bytearray(ROW)
    changed[position] = data.draw(st.integers(0, 255))
    root = tmp_path_factory.mktemp("log")
    written(root, HEADER + encode_frame(0, ROW) + encode_frame(1, bytes(changed)))
    report = compact(root)
    assert (report.rows, len(report.damaged)) in [(2, 0), (1, 1)]
    assert sum(pq.read_metadata(file).num_rows for file in report.files) == report.rows


def claims(*kinds):
    """A payload whose last value claims the most that its kind of length can say."""
    return [bytes([0x9A]) + b"\xa1x" * 9 + bytes([kind]) + b"\xff\xff\xff\xff" for kind in kinds]


HOSTILE = {
    "an array of 4 billion": b"\xdd\xff\xff\xff\xff",
    "a map of 4 billion": b"\xdf\xff\xff\xff\xff",
    "text, bytes, array, map of 4 GiB within": b"".join(claims(0xDB)),
    "bytes of 4 GiB within": b"".join(claims(0xC6)),
    "an array of 4 billion within": b"".join(claims(0xDD)),
    "arrays a million deep": b"\x91" * 1_000_000 + b"\xc0",
    "maps a million deep": b"\x81\xa1a" * 1_000_000 + b"\xc0",
    "a prompt a million deep": fields(prompt=0)[:-1] + b"\x91" * 1_000_000,
    "message fields a million deep": fields(
        prompt=[{"role": "u", "tool_calls": msgspec.Raw(b"\x91" * 1_000_000 + b"\xc0")}]
    ),
    "text that is no UTF-8": fields(response=msgspec.Raw(b"\xa2\xff\xfe")),
    "half a token id": fields(token_ids=b"\x01\x02\x03"),
    "a kind that is none": fields(kind="deed"),
    "an integer in place of text": fields(response=7),
    "a row without its second field": msgspec.msgpack.encode(["decision"]),
    "a map": msgspec.msgpack.encode({"kind": "decision"}),
    "nothing of msgpack": b"\xc1",
}


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("read", [iter_segment, iter_logged])
def test_a_hostile_payload_is_damage_and_takes_no_memory(tmp_path, payload, read):
    data = HEADER + encode_frame(0, ROW) + encode_frame(1, payload) + encode_frame(2, ROW)
    path = written(tmp_path, data)
    tracemalloc.start()
    try:
        assert rows_before_damage(path, read) == (1, True)
        assert tracemalloc.get_traced_memory()[1] < PEAK
    finally:
        tracemalloc.stop()
    assert compact(tmp_path).rows == 1
    assert os.listdir(tmp_path / "wal") == [f"{WRITER}-00000000.wal.damaged"]


@pytest.mark.parametrize("length", [MAX_PAYLOAD + 1, 2**32 - 1])
def test_a_record_of_gigabytes_is_damage_even_where_the_file_could_hold_it(tmp_path, length):
    start = struct.pack("<IIQ", length, 0, 1)
    path = written(tmp_path, HEADER + encode_frame(0, ROW) + start)
    os.truncate(path, 5 * 2**30)  # a hole: takes no room on the disk
    tracemalloc.start()
    try:
        assert rows_before_damage(path) == (1, True)
        assert tracemalloc.get_traced_memory()[1] < PEAK
    finally:
        tracemalloc.stop()


def test_a_header_of_gigabytes_is_damage(tmp_path):
    path = written(tmp_path, b"SIMTUNE1" + struct.pack("<II", 2**32 - 1, 0))
    os.truncate(path, 5 * 2**30)
    tracemalloc.start()
    try:
        with pytest.raises(CorruptError, match="header"):
            list(iter_segment(path))
        assert tracemalloc.get_traced_memory()[1] < PEAK
    finally:
        tracemalloc.stop()
