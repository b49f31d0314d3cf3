"""Experiments with a compactor that is killed at each step of its protocol."""

import functools
import importlib
import io
import itertools
import os
import random
import shutil
import sys

import pyarrow.parquet as pq

import simtune
from simtune.errors import CorruptError
from simtune.recording.segments import iter_segment
from simtune.store import compact
from simtune.store import compaction as compaction_module
from tests.faults.fault_children import Child, use

EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.link", "os.truncate", "fcntl.flock")
WRITES_A_STEP = 40  # a file is some hundred small ones
KILLED = 77 << 8


class NoPandas:
    """Keeps pandas out, which pyarrow would import in every child."""

    def find_spec(self, name, path=None, target=None):
        if name == "pandas":
            raise ImportError(name)


class Steps:
    """Counts what a process does to the disk, and ends it before its nth step.

    A step is an event of `EVENTS` below the root, a sync, or each 40th write to a file of the
    store, of which the one that ends the process leaves the first half behind.
    """

    def __init__(self, root, last):
        self.root, self.left = str(root), last

    def step(self, half=None):
        self.left -= 1
        if self.left < 0:
            if half is not None:
                half()
            os._exit(77)

    def watch(self):
        sys.addaudithook(self._event)
        os.fsync = functools.partial(self._before, os.fsync)
        os.fdatasync = functools.partial(self._before, os.fdatasync)
        os.fdopen = self._open

    def _event(self, event, arguments):
        if event in EVENTS and (event == "fcntl.flock" or str(arguments[0]).startswith(self.root)):
            self.step()

    def _before(self, call, *arguments):
        self.step()
        return call(*arguments)

    def _open(self, fd, mode="r"):
        steps, writes = self, itertools.count()

        class Stepping(io.FileIO):
            def write(self, data):
                if next(writes) % WRITES_A_STEP == 0:
                    steps.step(half=lambda: io.FileIO.write(self, bytes(data)[: len(data) // 2]))
                return super().write(data)

        return Stepping(fd, mode)


def killed_at_every_step(root, segments_a_file, rounds, seed):
    """Kill the compactor at its 1st, 2nd, ... step, until it comes to its end.

    Then, for each of them: kill the recovery at a random step, and compact for good.

    Must hold after each kill: a plain glob over `data/v1` holds each row of some whole segments
    once, and no other. In the end: every row once, nothing left in the log but the damaged
    segment, nothing in `_staging` but locks.
    """
    sys.meta_path.insert(0, NoPandas())
    importlib.import_module("pyarrow.dataset")
    rng = random.Random(seed)
    template = root / "template"
    rows = _made(Child(lambda tell: tell(_make_log(template))))
    last = 0
    while True:
        here = root / str(last)
        shutil.copytree(template, here)
        again = rng.randrange(last + 1)
        case = f"of {rows} rows, killed at step {last}, then at {again}"
        _, whole = _compacted(here, rows, last, segments_a_file)
        before, recovered = _compacted(here, rows, again, segments_a_file)
        after, _ = _compacted(here, rows, 10**9, segments_a_file)
        assert after >= before, f"{after} after {before} {case}"
        assert not whole or before == rows, f"{before} {case}"
        assert not recovered or after == rows, f"{after} {case}"
        assert _made(Child(lambda tell, root=here: tell(_complete(root, rows)))) == rows, case
        shutil.rmtree(here)
        last += 1
        if whole:
            return {"steps": last - 1, "rows": rows}


def _compacted(root, rows, last, segments_a_file):
    """Compact up to a step; returns the rows visible before, and whether it came to its end."""

    def program(tell):
        tell(_visible(root, rows))
        if segments_a_file == "one":
            compaction_module._GROUP_BYTES = 1
        Steps(root, last).watch()
        compact(root)

    child = Child(program)
    (visible,) = child.finish() or [None]
    assert child.status in (0, KILLED), child.status
    return visible, child.status == 0


def _made(child):
    """The number that a child told at its end."""
    (number,) = child.finish() or [None]
    assert child.status == 0, child.status
    return number


def _make_log(root):
    """Three writers: one sealed in several segments, one killed, one with a damaged segment."""
    written = 0
    for writer in range(3):
        use(root, durability="os", segment_bytes=3000, segment_seconds=60.0)
        log = simtune.episode(env=f"writer {writer}")
        for number in range(25 if writer == 0 else 8):
            log.decision("p" * 200, str(number))
        simtune.flush()
        written += 1 + (25 if writer == 0 else 8)
    path = max(root.joinpath("wal").glob("*.wal"), key=os.path.getmtime)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    return written - 1


def _visible(root, rows):
    """How many rows a plain glob gives; none of them twice, and no segment's in part."""
    found = []
    for path in root.joinpath("data/v1").glob("*.parquet"):
        table = pq.read_table(path, columns=["writer_id", "seq"])
        found += zip(*table.to_pydict().values(), strict=True)
    assert len(set(found)) == len(found) <= rows, f"{len(found)} rows, {len(set(found))} distinct"
    left = root.joinpath("wal").glob("*.wal")
    logged = {(path.name[:16], seq) for path in left for seq in _numbers(path)}
    assert len(logged | set(found)) == rows, "a row is neither in the log nor in a file"
    return len(found)


def _numbers(path):
    try:
        for seq, _ in iter_segment(path):
            yield seq
    except CorruptError:
        return


def _complete(root, rows):
    wal = [path.name for path in root.joinpath("wal").iterdir()]
    assert all(name.endswith(".damaged") for name in wal) and len(wal) == 1, wal
    staging = [path.name for path in root.joinpath("_staging").iterdir()]
    assert all(name.endswith(".lock") for name in staging), staging
    return _visible(root, rows)


EXPERIMENTS = {
    "compactor-one-file": (killed_at_every_step, "all"),
    "compactor-many-files": (killed_at_every_step, "one"),
}
