"""Files of format 1 that were written once: read and written the same for as long as it lives."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from mini_reader import segment
from store_rows import OTHER, WRITER, decision, end, reward, start, write_segment

from simtune.recording.encoding import encode_row
from simtune.recording.frames import read_frames, read_header
from simtune.recording.segments import iter_segment
from simtune.store import compact, read

GOLDEN = Path(__file__).parent / "golden"
SEGMENTS = sorted(GOLDEN.glob("*.wal"))
ROWS = json.loads((GOLDEN / "rows.json").read_text(encoding="utf-8"))


def plain(rows):
    """Rows of any reader as JSON has them."""
    found = json.loads(json.dumps(rows, default=list))
    for row in found:
        row["logprobs"] = ["NaN" if one != one else one for one in row["logprobs"]]
    return found


def in_order(rows):
    return sorted(rows, key=lambda row: (row["episode_id"], row["step"], row["seq"]))


def table_rows(path):
    table = pq.read_table(path)
    position = table.schema.get_field_index("ts")
    return plain(table.set_column(position, "ts", table["ts"].cast(pa.int64())).to_pylist())


def test_the_golden_files_are_these():
    names = [path.name for path in SEGMENTS]
    assert names == [f"{WRITER}-{n:08d}.wal" for n in (0, 1)] + [f"{OTHER}-00000000.wal"]
    # The last record of the torn segment is in none of them.
    assert [(row["episode_id"], row["kind"], row["seq"]) for row in ROWS] == [
        ("a", "episode_start", 0),
        ("a", "decision", 1),
        ("a", "reward", 3),
        ("a", "decision", 2),
        ("a", "episode_end", 4),
        ("b", "decision", 40),
    ]


def test_golden_segments_compact_to_the_golden_rows(tmp_path):
    (tmp_path / "wal").mkdir()
    for path in SEGMENTS:
        shutil.copy(path, tmp_path / "wal")
    (part,) = compact(tmp_path).files
    assert table_rows(part) == ROWS
    assert len(list(read(tmp_path).episodes())) == 2


def test_the_golden_parquet_file_holds_the_golden_rows():
    (part,) = GOLDEN.glob("part-*.parquet")
    assert table_rows(part) == ROWS


def test_a_reader_made_from_the_page_alone_reads_the_golden_segments():
    found = [row for path in SEGMENTS for row in segment(path)]
    assert in_order(plain(found)) == ROWS


def test_what_is_written_today_is_what_was_written_then():
    for path in SEGMENTS:
        with open(path, "rb") as file:
            header = read_header(file, path.name)
            payloads = dict(read_frames(file, path.stat().st_size, header.first_seq, path.name))
        assert {seq: encode_row(row) for seq, row in iter_segment(path)} == payloads


def test_a_reader_made_from_the_page_alone_reads_a_fresh_segment(tmp_path):
    rows = [start("e"), decision("e", 0), decision("e", 1), reward(f"{WRITER}-1", 2.0, "e"), end()]
    path = write_segment(tmp_path, rows)
    found = plain(segment(path))
    (part,) = compact(tmp_path).files
    assert in_order(found) == table_rows(part)
