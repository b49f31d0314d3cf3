"""Reading a store's log back, for assertions."""

import json
import time

from simtune.recording import recorders
from simtune.recording.segments import iter_segment, sealed_segments


class Store:
    """A store's log, read back."""

    def __init__(self, root):
        self.root = root

    def items(self):
        """Every (decision_id, row) of the sealed segments, after sealing this process's."""
        for recorder in recorders.recorders():
            recorder.seal()
        found = []
        for path in sealed_segments(self.root):
            writer = path.name[:16]
            found += [(f"{writer}-{seq}", row) for seq, row in iter_segment(path)]
        return found

    def rows(self, kind=None):
        return [row for _, row in self.items() if kind in (None, row.kind)]

    def only(self, kind="decision"):
        (row,) = self.rows(kind)
        return row


def said(column):
    """A JSON column's content."""
    return json.loads(column)


def wait_until(condition, seconds=5.0):
    """Poll, since the flusher has its own thread."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "never became true"
        time.sleep(0.005)
