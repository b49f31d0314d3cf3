"""What the doctor's tests break: rows as a simulation writes them, and the log they lie in."""

import itertools
import os
import time

from simtune.recording.encoding import encode_row
from simtune.recording.frames import SegmentHeader, encode_frame, encode_header, encode_seal
from simtune.records import Row

WRITER = "0123456789abcdef"
_writers = itertools.count(16)


def now():
    return time.time_ns() // 1000


def decision(episode, step=0, **fields):
    filled = {
        "env": "lake",
        "model": "tiny",
        "prompt": [{"role": "user", "content": f"step {step}"}],
        "response": "left",
        "valid": True,
        "prompt_token_ids": [1, 2, 3],
        "token_ids": [7, 8],
        "logprobs": [-0.5, -0.25],
        "sampling": '{"temperature":1.0}',
        "reward": float(len(episode)),
        "ts": now(),
        "mono_ns": time.monotonic_ns(),
    }
    return Row(kind="decision", episode_id=episode, step=step, **{**filled, **fields})


def episode_rows(name, *, end=None, start=None, decisions=2, **fields):
    """One episode; `fields` are those of its decisions, `end=False` leaves its end out."""
    times = {"env": "lake", "ts": now(), "mono_ns": time.monotonic_ns()}
    rows = [Row(kind="episode_start", episode_id=name, **{**times, **(start or {})})]
    rows += [decision(name, step, **fields) for step in range(decisions)]
    if end is not False:
        ended = {**times, "step": 99, "terminated": True, **(end or {})}
        rows.append(Row(kind="episode_end", episode_id=name, **ended))
    return rows


def segment(rows, *, writer=WRITER, segno=0, first_seq=0):
    header = SegmentHeader(writer=writer, segno=segno, first_seq=first_seq, host="h", pid=1)
    frames = [encode_frame(first_seq + i, encode_row(row)) for i, row in enumerate(rows)]
    return encode_header(header) + b"".join(frames) + encode_seal(first_seq + len(rows))


def write_rows(root, rows):
    """A finished segment of a writer of its own, private as capture makes it; returns its path."""
    writer = f"{next(_writers):016x}"
    path = root / "wal" / f"{writer}-00000000.wal"
    for directory in (root, root / "wal"):
        if not directory.exists():
            directory.mkdir(mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(segment(rows, writer=writer))
    return path


def write_episodes(root, count=12, *, prefix="ep", **fields):
    """Episodes whose returns differ, since the reward is the length of the name."""
    rows = []
    for number in range(count):
        rows += episode_rows(f"{prefix}{number}", **fields)
    return write_rows(root, rows)
