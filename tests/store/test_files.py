"""Files that are damaged or hostile: an error of ours that names the file, whatever is in it."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from store_rows import WRITER, decision, end, start, write_segment

from simtune.errors import CorruptError
from simtune.store import compact, files, read
from simtune.store.files import open_part, part_files
from simtune.store.schema import ROWS, parquet_writer


@pytest.fixture
def part(tmp_path):
    """The only Parquet file of a store."""
    rows = [decision("ep", n, response=f"answer {n} " * 20) for n in range(60)]
    write_segment(tmp_path / "store", [start(), *rows, end()])
    compact(tmp_path / "store")
    (found,) = part_files(tmp_path / "store" / "data" / "v1")
    return found


def root_of(part):
    return part.parents[2]


TRIES = """
import json, resource, sys
from pathlib import Path
import pyarrow as pa
from simtune.errors import CorruptError
from simtune.store import read, verify

GIB = 1 << 30
resource.setrlimit(resource.RLIMIT_AS, (6 * GIB, 6 * GIB))
part = Path(sys.argv[1])
root = part.parents[2]
sound = part.read_bytes()
expected = [str(episode) for episode in read(root).episodes()]
ended = {"refused": 0, "equal": 0, "different": 0}
for change in json.loads(sys.argv[2]):
    data = bytearray(sound)
    for position, value in change:
        data[position] ^= value
    part.write_bytes(data)
    try:
        store = read(root)
        rows = store.decisions()
        found = [str(episode) for episode in store.episodes()]
        store.summary(), store.episode_ids()
        ended["equal" if found == expected else "different"] += 1
    except CorruptError as error:
        assert part.name in str(error), error
        ended["refused"] += 1
    part.write_bytes(sound)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(json.dumps({**ended, "peak": peak}))
"""


def tried(part, changes):
    """How reading ended under each change, in a process of its own: a crash would be its end."""
    done = subprocess.run(
        [sys.executable, "-c", TRIES, str(part), json.dumps(changes)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_a_flipped_bit_anywhere_in_the_pages_or_the_footer_never_crashes(part):
    size = part.stat().st_size
    footer = size - 8 - int.from_bytes(part.read_bytes()[-8:-4], "little")
    pages = [[(position, 1 << position % 8)] for position in range(4, footer, footer // 120)]
    # Footers have no checksum of their own.
    in_footer = [[(p, 1 << p % 8)] for p in range(footer, size, (size - footer) // 160)]
    ended = tried(part, [*pages, *in_footer])
    assert ended["refused"] > 100
    # Sizes that a footer declares within its bounds are read: 130 to 1140 MB were seen.
    assert ended["peak"] < 2000, "megabytes"
    assert tried(part, pages)["different"] == 0


def test_bytes_overwritten_in_the_footer_never_crash(part):
    size = part.stat().st_size
    footer = size - 8 - int.from_bytes(part.read_bytes()[-8:-4], "little")
    runs = [
        [(p + i, 0xFF ^ i) for i in range(5)]
        for p in range(footer, size - 5, (size - footer) // 90)
    ]
    assert tried(part, runs)["refused"] > 20


@pytest.mark.parametrize(
    "data", [b"", b"PAR1", b"PAR1PAR1", b"PAR1" + b"\xff" * 64 + b"PAR1", b"PK\x03\x04" * 99]
)
def test_what_is_no_parquet_is_named(part, data):
    part.write_bytes(data)
    with pytest.raises(CorruptError, match=rf"(?s){part.name} cannot be read.*move it away"):
        read(root_of(part)).count()


def test_every_truncation_is_refused(part):
    sound = part.read_bytes()
    for length in range(0, len(sound), len(sound) // 50):
        part.write_bytes(sound[:length])
        with pytest.raises(CorruptError, match=part.name):
            read(root_of(part)).decisions()


def test_other_columns_or_types_are_named(part):
    table = pq.read_table(part)
    pq.write_table(table.set_column(2, "seq", table["seq"].cast(pa.int32())), part)
    with pytest.raises(CorruptError, match=r"(?s)other columns.*got:.*seq: int32"):
        assert read(root_of(part)).files


@pytest.mark.parametrize(("limit", "got"), [("_GROUP_ROWS", "62 rows"), ("_GROUP_BYTES", "bytes")])
def test_sizes_that_no_store_has_are_refused_before_anything_is_allocated(
    part, monkeypatch, limit, got
):
    monkeypatch.setattr(files, limit, 61)
    with pytest.raises(CorruptError, match=rf"(?s){part.name} declares sizes.*{got}"):
        open_part(part, ROWS)


def test_a_bomb_is_refused_by_what_its_footer_declares(tmp_path):
    """5 GB of zeros in one row group are 0.5 MB of zstd; the footer has to say so."""
    path = tmp_path / f"part-{WRITER}-0000000000.parquet"
    text = "0" * (1 << 20)
    row = {name: None for name in ROWS.names} | {"episode_id": "a", "response": text}
    chunk = pa.Table.from_pylist([row] * 64, schema=ROWS)
    with open(path, "wb") as file, parquet_writer(file, ROWS) as writer:
        writer.write_table(pa.concat_tables([chunk] * 80), row_group_size=1 << 20)
    assert path.stat().st_size < 2_000_000
    with pytest.raises(CorruptError, match="declares sizes that no store has"):
        open_part(path, ROWS)


def test_links_that_leave_the_store_are_refused_and_others_are_fine(part, tmp_path):
    other = tmp_path / "elsewhere.parquet"
    part.rename(other)
    part.symlink_to(other)
    with pytest.raises(CorruptError, match=r"(?s)a link that leaves the store.*elsewhere"):
        read(root_of(part))
    part.unlink()
    other.rename(part)
    linked = tmp_path / "linked"
    linked.symlink_to(root_of(part))  # the whole store by another name
    assert read(linked).count()["decisions"] == 60


def test_files_of_other_names_are_no_part_of_the_table(part):
    (part.parent / "notes.parquet").write_bytes(b"mine")
    (part.parent / "part-x.parquet").write_bytes(b"mine")
    assert [path.name for path in part_files(part.parent)] == [part.name]
    assert part_files(Path("no such directory")) == []
