"""A reader of the log, written from docs/format.md alone: struct, zlib and any msgpack decoder."""

import struct
import zlib
from pathlib import Path

import msgspec

FIELDS = [
    "kind",
    "episode_id",
    "target",
    "run_id",
    "env",
    "agent_id",
    "action",
    "model",
    "adapter",
    "step",
    "ts",
    "mono_ns",
    "latency_us",
    "prompt",
    "response",
    "parsed",
    "observation",
    "metadata",
    "extra",
    "valid",
    "error",
    "prompt_token_ids",
    "token_ids",
    "logprobs",
    "choices",
    "choice_logprobs",
    "sampling",
    "reward",
    "terminated",
    "truncated",
]
MESSAGE = ("role", "content", "name", "tool_calls", "tool_call_id")
PACKED = {"prompt_token_ids": "i", "token_ids": "i", "logprobs": "f", "choice_logprobs": "f"}


def frames(data, offset, seq):
    while len(data) - offset >= 16:
        length, crc, found = struct.unpack_from("<IIQ", data, offset)
        payload = data[offset + 16 : offset + 16 + length]
        if len(payload) < length:
            return
        assert zlib.crc32(data[offset + 8 : offset + 16] + payload) == crc
        assert found == seq
        if length == 0:
            return
        yield seq, payload
        offset, seq = offset + 16 + length, seq + 1


def row(writer, seq, payload):
    """A payload as a row of the table."""
    values = msgspec.msgpack.decode(payload)
    fields = dict(zip(FIELDS, values, strict=False))
    for name, kind in PACKED.items():
        if isinstance(fields[name], bytes):
            fields[name] = struct.unpack(f"<{len(fields[name]) // 4}{kind}", fields[name])
    if fields["prompt"] is not None:
        fields["prompt"] = [{key: turn.get(key) for key in MESSAGE} for turn in fields["prompt"]]
    target = fields.pop("target")
    own = f"{writer}-{seq}" if fields["kind"] == "decision" else target
    return {"decision_id": own, "writer_id": writer, "seq": seq, **fields}


def segment(path):
    """Every row of one segment, as the table has it."""
    data = Path(path).read_bytes()
    magic, length, crc = struct.unpack_from("<8sII", data)
    body = data[16 : 16 + length]
    assert (magic, zlib.crc32(body)) == (b"SIMTUNE1", crc)
    header = msgspec.msgpack.decode(body)
    assert header["schema_version"] == 1
    found = frames(data, 16 + length, header["first_seq"])
    return [row(header["writer"], seq, payload) for seq, payload in found]
