"""Rows and log segments for the store's tests, written as another process would leave them."""

import os

from simtune.recording.encoding import encode_row
from simtune.recording.frames import SegmentHeader, encode_frame, encode_header, encode_seal
from simtune.records import Row

WRITER = "0123456789abcdef"
OTHER = "fedcba9876543210"


def decision(episode_id="ep", step=0, **fields):
    """A decision row with every column filled, unless told otherwise."""
    filled = {
        "run_id": "run",
        "env": "FrozenLake-v1",
        "agent_id": "walker",
        "action": "move",
        "model": "tiny",
        "adapter": "ab12",
        "ts": 1_700_000_000_000_000 + step,
        "mono_ns": 1_000 + step,
        "latency_us": 250,
        "prompt": [{"role": "system", "content": "Walk."}, {"role": "user", "content": f"{step}"}],
        "response": "left",
        "parsed": '{"move":0}',
        "observation": str(step),
        "metadata": '{"row":1}',
        "valid": True,
        "prompt_token_ids": [1, 2, 3],
        "token_ids": [7, 8],
        "logprobs": [-0.5, -0.25],
        "choices": ["left", "right"],
        "choice_logprobs": [-0.125, -2.5],
        "sampling": '{"temperature":1.0}',
        "reward": 0.5,
        "terminated": False,
        "truncated": False,
    }
    return Row(kind="decision", episode_id=episode_id, step=step, **{**filled, **fields})


def start(episode_id="ep", **fields):
    return Row(kind="episode_start", episode_id=episode_id, ts=1_700_000_000_000_000, **fields)


def end(episode_id="ep", step=99, **fields):
    return Row(
        kind="episode_end", episode_id=episode_id, step=step, ts=1_700_000_000_000_099, **fields
    )


def reward(target, value, episode_id="ep"):
    return Row(kind="reward", episode_id=episode_id, target=target, reward=value)


def segment_bytes(rows, *, writer=WRITER, segno=0, first_seq=0, sealed=True):
    header = SegmentHeader(writer=writer, segno=segno, first_seq=first_seq, host="h", pid=1)
    frames = [encode_frame(first_seq + i, encode_row(row)) for i, row in enumerate(rows)]
    seal = encode_seal(first_seq + len(rows)) if sealed else b""
    return encode_header(header) + b"".join(frames) + seal


def write_segment(root, rows, *, writer=WRITER, segno=0, first_seq=0, sealed=True):
    """A finished segment of a writer that is gone; returns its path."""
    path = root / "wal" / f"{writer}-{segno:08d}.wal"
    os.makedirs(path.parent, exist_ok=True)
    path.write_bytes(
        segment_bytes(rows, writer=writer, segno=segno, first_seq=first_seq, sealed=sealed)
    )
    return path
