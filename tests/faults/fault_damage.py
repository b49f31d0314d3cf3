"""Experiments with a log that is torn, flipped or mixed up after its writers are gone."""

import random
import shutil

import pyarrow.parquet as pq

import simtune
from simtune.errors import CorruptError
from simtune.recording.segments import iter_segment
from simtune.store import compact
from tests.faults.fault_children import Child, content, read_back, use


def _log(root, seed):
    """Two writers of several segments each; returns {(writer, seq): response}."""
    for writer in range(2):

        def program(_, writer=writer):
            use(root, durability="os", segment_bytes=2500)
            log = simtune.episode()
            for number in range(20):
                log.decision(content(seed + number), f"{writer}.{number}")

        Child(program).finish()
    found = read_back(root)
    return {(writer, seq): row.response for writer, rows in found.items() for seq, row in rows}


def torn(root, what, rounds, seed):
    """A segment is cut off at every byte.

    Must hold: the records that end before the cut are read, no other is, and no error is raised
    once the header is whole; other writers' rows are not touched.
    """
    written = _log(root, seed)
    path = max(root.joinpath("wal").glob("*.wal"), key=lambda path: path.stat().st_size)
    data = path.read_bytes()
    rows = list(iter_segment(path))
    counts = []
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        try:
            found = [(seq, row.response) for seq, row in iter_segment(path)]
        except CorruptError:
            assert not counts, f"an error at {size} bytes, after {counts[-1]} records were read"
            continue
        assert found == [(seq, row.response) for seq, row in rows[: len(found)]], size
        counts.append(len(found))
    assert counts == sorted(counts)
    assert set(counts) == set(range(len(rows) + 1))
    assert len(read_back(root)) == 2
    return {"cuts": len(data) + 1, "rows": len(written)}


def flipped(root, what, rounds, seed):
    """A random bit, byte or block of the log is damaged, then it is compacted; many times.

    Must hold: no row in the Parquet files differs from what was captured, none is doubled, and
    all that precedes the damage in its segment and all other segments is there.
    """
    rng = random.Random(seed)
    template = root / "template"
    written = _log(template, seed)
    names = sorted(path.name for path in template.joinpath("wal").iterdir())
    where = {name: [seq for seq, _ in iter_segment(template / "wal" / name)] for name in names}
    lost = 0
    for index in range(rounds):
        here = root / str(index)
        shutil.copytree(template, here)
        name = rng.choice(names)
        path = here / "wal" / name
        data = bytearray(path.read_bytes())
        start = rng.randrange(len(data))
        _damage(data, start, rng)
        path.write_bytes(data)
        compact(here)
        found = _stored(here)
        for key, response in found.items():
            assert written[key] == response, f"round {index}: {key} is {response!r}"
        missing = written.keys() - found.keys()
        expected = {(name[:16], seq) for seq in where[name]}
        assert missing <= expected, f"round {index}: {missing - expected}"
        kept = [seq for seq in where[name] if (name[:16], seq) in found]
        assert kept == where[name][: len(kept)], f"round {index}: {kept}"
        whole = _records_before(template / "wal" / name, start)
        assert len(kept) >= whole, f"round {index}: {len(kept)} of {whole} before the damage"
        lost += len(missing)
        shutil.rmtree(here)
    return {"rounds": rounds, "rows": len(written), "rows behind damage": lost}


def _damage(data, start, rng):
    kind = rng.randrange(4)
    if kind == 0:
        data[start] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data[start : start + 64] = bytes(len(data[start : start + 64]))
    elif kind == 2:
        data[start : start + 64] = rng.randbytes(len(data[start : start + 64]))
    else:
        del data[start : start + rng.randrange(1, 64)]


def _records_before(path, offset):
    cut = path.parents[1] / "cut" / path.name
    cut.parent.mkdir(exist_ok=True)
    cut.write_bytes(path.read_bytes()[:offset])
    try:
        return len(list(iter_segment(cut)))
    except CorruptError:
        return 0


def _stored(root):
    found = {}
    for path in root.joinpath("data/v1").glob("*.parquet"):
        table = pq.read_table(path, columns=["writer_id", "seq", "response"])
        for writer, seq, response in zip(*table.to_pydict().values(), strict=True):
            assert (writer, seq) not in found, f"{writer}-{seq} is there twice"
            found[writer, seq] = response
    return found


EXPERIMENTS = {"torn": (torn, None), "flipped": (flipped, None)}
