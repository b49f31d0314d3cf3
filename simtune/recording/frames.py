"""Bytes of the write-ahead log: the header of a segment, and the frames that follow it.

    segment = magic (8 bytes) | u32 length | u32 crc32(body) | body | frame*
    frame   = u32 length | u32 crc32(seq || payload) | u64 seq | payload

Integers are little-endian. The header's body is a msgpack map (`SegmentHeader`), a payload is a
msgpack array (`simtune.records.Row`). A frame with an empty payload is the seal: nothing follows.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import msgspec

from simtune.errors import CorruptError
from simtune.records import SCHEMA_VERSION

MAGIC = b"SIMTUNE1"
_HEADER = struct.Struct("<8sII")
_FRAME = struct.Struct("<IIQ")
_SEQ = struct.Struct("<Q")
_MAX_HEADER_BODY = 64 * 1024
MAX_PAYLOAD = 256 * 1024 * 1024
"""Bytes of the largest record; a reader takes a greater length for damage."""


class SegmentHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What a segment says about itself.

    Attributes:
        writer: the writer's id, 16 hex digits, fresh per process and per fork.
        segno: position of the segment among the writer's, from 0.
        first_seq: sequence number of the first record that may be in it.
        schema_version: version of `Row` that its payloads are encoded in.
        host: name of the writing machine.
        pid: process id of the writer.
    """

    writer: str
    segno: int
    first_seq: int
    schema_version: int = SCHEMA_VERSION
    host: str = ""
    pid: int = 0


_encode_header = msgspec.msgpack.Encoder().encode
_decode_header = msgspec.msgpack.Decoder(SegmentHeader).decode


def encode_frame(seq: int, payload: bytes) -> bytes:
    """One record as bytes; an empty payload makes the seal."""
    crc = zlib.crc32(payload, zlib.crc32(_SEQ.pack(seq)))
    return _FRAME.pack(len(payload), crc, seq) + payload


def encode_seal(next_seq: int) -> bytes:
    """The last frame of a finished segment; `next_seq` is what the next segment begins with."""
    return encode_frame(next_seq, b"")


SEAL_SIZE = len(encode_seal(0))


def encode_header(header: SegmentHeader) -> bytes:
    """A segment's first bytes."""
    body = _encode_header(header)
    return _HEADER.pack(MAGIC, len(body), zlib.crc32(body)) + body


def read_header(file: BinaryIO, name: str) -> SegmentHeader:
    """Read a segment's header and leave the file at its first frame.

    Raises:
        CorruptError: these are not the first bytes of a segment.
    """
    start = file.read(_HEADER.size)
    if len(start) < _HEADER.size:
        raise CorruptError(f"{name} has no whole segment header")
    magic, length, crc = _HEADER.unpack(start)
    if magic != MAGIC:
        raise CorruptError(f"{name} is no log segment", expected=MAGIC, got=magic)
    body = file.read(length) if length <= _MAX_HEADER_BODY else b""
    if len(body) != length or zlib.crc32(body) != crc:
        raise CorruptError(f"{name} has a header that fails its checksum")
    try:
        return _decode_header(body)
    except msgspec.DecodeError as error:
        raise CorruptError(f"{name} has a header of another format: {error}") from error


def read_frames(
    file: BinaryIO, size: int, first_seq: int, name: str
) -> Iterator[tuple[int, bytes]]:
    """Yield (seq, payload) from where the file stands, up to `size` bytes into it.

    Stops at the seal, and at a frame that is not whole: a write that a crash cut short. Bytes
    that were never written (a tail of zeros after a power cut) count as not whole. Nothing is
    allocated on the word of a length that the file cannot hold.

    Raises:
        CorruptError: a frame is too large, or a whole one fails its checksum or is out of
            sequence; everything yielded before it is sound.
    """
    seq = first_seq
    offset = file.tell()
    while size - offset >= _FRAME.size:
        start = file.read(_FRAME.size)
        if len(start) < _FRAME.size:
            return
        length, crc, found = _FRAME.unpack(start)
        if offset + _FRAME.size + length > size:
            return
        if length > MAX_PAYLOAD:
            raise CorruptError(f"{name} has a record of {length} bytes", got=f"byte {offset}")
        payload = file.read(length)
        if len(payload) < length:
            return
        if zlib.crc32(payload, zlib.crc32(start[8:])) != crc:
            if not any(start) and _only_zeros(file):
                return
            raise CorruptError(f"{name} has a record that fails its checksum", got=f"byte {offset}")
        if found != seq:
            raise CorruptError(f"{name} has a record out of sequence", expected=seq, got=found)
        if not length:
            return
        yield seq, payload
        seq += 1
        offset += _FRAME.size + length


def _only_zeros(file: BinaryIO) -> bool:
    while block := file.read(1 << 16):
        if block.count(0) != len(block):
            return False
    return True


def is_seal(data: bytes) -> bool:
    """Whether these bytes, the last of a segment, are a seal.

    The end of a record cannot pass for one: a record ends in a msgpack nil or bool, which would
    be the highest byte of a sequence number that no writer reaches.
    """
    if len(data) != SEAL_SIZE:
        return False
    length, _, seq = _FRAME.unpack(data)
    return length == 0 and seq < 1 << 63 and encode_seal(seq) == data
