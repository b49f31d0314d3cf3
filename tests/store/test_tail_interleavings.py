"""Whatever the order of writing, sealing, compacting, reading and restarting: each row once."""

import contextlib
import shutil
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from store_rows import decision, segment_bytes

from simtune.recording import segments
from simtune.store import commit, compact, layout
from simtune.store.cursor import Cursor
from simtune.store.tailing import tail

WRITERS = [f"{number:016x}" for number in range(3)]


class Writing:
    """A writer that another process would be: segments of frames, the last one not sealed."""

    def __init__(self, root, writer):
        self.root, self.writer = root, writer
        self.next_seq = self.begin = self.segno = 0
        self.open = False

    @property
    def path(self):
        return segments.segment_path(self.root / "wal", self.writer, self.segno)

    def write(self, count, *, sealed, torn=0):
        self.next_seq += count
        rows = [decision(self.writer, seq) for seq in range(self.begin, self.next_seq)]
        whole = segment_bytes(
            rows, writer=self.writer, segno=self.segno, first_seq=self.begin, sealed=sealed
        )
        self.path.parent.mkdir(exist_ok=True)
        made = self.path.with_suffix(".made")
        made.write_bytes(whole[: len(whole) - torn])
        made.rename(self.path)
        self.open = not sealed
        if sealed:
            self.segno, self.begin = self.segno + 1, self.next_seq


class Interleavings(RuleBasedStateMachine):
    """One store, three writers, a compactor, a tail that is restarted from cursors it once had."""

    def __init__(self):
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.writers = [Writing(self.root, writer) for writer in WRITERS]
        self.following = tail(self.root)
        self.seen = []
        self.kept = [(Cursor(), 0)]
        self.stopped = None

    def teardown(self):
        written = [(w.writer, seq) for w in self.writers for seq in range(w.next_seq)]
        for writer in self.writers:
            if writer.open:
                writer.write(0, sealed=True)
        self.take()
        assert sorted(self.seen) == written
        shutil.rmtree(self.root)

    def take(self, batches=None):
        for count, batch in enumerate(self.following, 1):
            columns = batch.rows.select(["writer_id", "seq"]).to_pydict()
            self.seen += zip(*columns.values(), strict=True)
            self.kept.append((Cursor.from_json(batch.cursor.to_json()), len(self.seen)))
            if count == batches:
                return

    @rule(which=st.sampled_from([0, 1, 2]), count=st.integers(0, 3), torn=st.integers(0, 30))
    def append(self, which, count, torn):
        self.writers[which].write(count, sealed=False, torn=torn if count else 0)

    @rule(which=st.sampled_from([0, 1, 2]), count=st.integers(0, 2))
    def seal(self, which, count):
        self.writers[which].write(count, sealed=True)

    def living(self, path):
        return any(writer.open and writer.path == path for writer in self.writers)

    @rule(stop=st.sampled_from([None, "before the commit", "after the commit"]))
    def compact(self, stop):
        """Some compactions are killed on either side of the commit."""
        ended = segments.is_finished

        def killed(*args):
            raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patched:
            # As another process would, under another id.
            patched.setattr(layout, "_identity", None)
            patched.setattr(
                segments, "is_finished", lambda path: not self.living(path) and ended(path)
            )
            if stop == "before the commit":
                patched.setattr(commit, "_write_intent", killed)
            elif stop == "after the commit":
                patched.setattr(commit, "_finish", killed)
            with contextlib.suppress(KeyboardInterrupt):
                compact(self.root)

    @rule(batches=st.sampled_from([None, 1]))
    def read(self, batches):
        self.take(batches)

    @rule(data=st.data())
    def restart(self, data):
        """The consumer was killed: it goes on from a cursor that it saved with its output."""
        cursor, count = data.draw(st.sampled_from(self.kept))
        del self.seen[count:]
        self.kept = [kept for kept in self.kept if kept[1] <= count]
        self.following = tail(self.root, cursor)

    @invariant()
    def each_row_at_most_once_and_in_order(self):
        assert len(set(self.seen)) == len(self.seen)
        for writer in WRITERS:
            seqs = [seq for name, seq in self.seen if name == writer]
            assert seqs == list(range(len(seqs)))

    @precondition(lambda self: (self.root / "data/v1").is_dir())
    @invariant()
    def parquet_has_no_row_twice(self):
        keys = []
        for path in (self.root / "data/v1").iterdir():
            keys += zip(
                *pq.read_table(path, columns=["writer_id", "seq"]).to_pydict().values(), strict=True
            )
        assert len(set(keys)) == len(keys)


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
