"""Log rows -> Arrow: exact for every value, and never a row that stops the compactor."""

import math
import string

import msgspec
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from store_rows import decision, segment_bytes, write_segment

from simtune.recording.encoding import decode_logged, encode_row
from simtune.recording.frames import encode_frame
from simtune.records import Row
from simtune.store import read
from simtune.store.convert import Entry, record_batch
from simtune.store.schema import ROWS

WRITER = "0123456789abcdef"
text = st.none() | st.text(max_size=20)
message = st.builds(
    lambda role, content, rest: {"role": role, "content": content, **rest},
    st.sampled_from(["system", "user", "assistant", "tool"]),
    st.text(max_size=30),
    st.dictionaries(
        st.sampled_from(["name", "tool_calls", "tool_call_id"]), st.text(max_size=5), max_size=3
    ),
)
int32 = st.integers(-(2**31), 2**31 - 1)
int64 = st.integers(-(2**63), 2**63 - 1)
rows = st.builds(
    Row,
    kind=st.sampled_from(["decision", "reward", "episode_start", "episode_end"]),
    episode_id=st.text(string.ascii_letters, min_size=1, max_size=5),
    target=text,
    env=text,
    step=int64,
    ts=int64,
    mono_ns=int64,
    latency_us=st.none() | int64,
    prompt=st.none() | st.lists(message, max_size=3),
    response=text,
    parsed=text,
    valid=st.none() | st.booleans(),
    prompt_token_ids=st.lists(int32, max_size=4),
    token_ids=st.lists(int32, max_size=4),
    logprobs=st.lists(st.floats(width=32, allow_nan=False), max_size=4),
    choices=st.lists(st.text(max_size=5), max_size=3),
    choice_logprobs=st.lists(st.floats(width=32, allow_nan=False), max_size=4),
    reward=st.none() | st.floats(allow_nan=False),
    terminated=st.none() | st.booleans(),
)


def batch_of(numbered):
    logged = [(seq, decode_logged(encode_row(row))) for seq, row in numbered]
    return record_batch([Entry(row.episode_id, row.step, seq, WRITER, row) for seq, row in logged])


@settings(max_examples=60, deadline=None)
@given(st.lists(rows, min_size=1, max_size=6), st.integers(0, 2**62))
def test_every_value_arrives_as_it_was(logged, first):
    batch = batch_of([(first + i, row) for i, row in enumerate(logged)])
    batch.validate(full=True)
    assert batch.schema == ROWS
    plain = batch.set_column(ROWS.get_field_index("ts"), "ts", batch["ts"].cast(pa.int64()))
    for i, (row, found) in enumerate(zip(logged, plain.to_pylist(), strict=True)):
        own = f"{WRITER}-{first + i}"
        assert found.pop("decision_id") == (own if row.kind == "decision" else row.target)
        assert (found.pop("writer_id"), found.pop("seq")) == (WRITER, first + i)
        prompt = found.pop("prompt")
        if row.prompt is None:
            assert prompt is None
        else:
            assert [{k: v for k, v in turn.items() if v is not None} for turn in prompt] == list(
                row.prompt
            )
        for name, value in found.items():
            assert value == getattr(row, name), name


def test_nan_logprobs_stay_nan_and_are_no_nulls():
    batch = batch_of([(0, decision(logprobs=[math.nan, -1.0]))])
    (logprobs,) = batch["logprobs"].to_pylist()
    assert math.isnan(logprobs[0])
    assert batch["logprobs"].flatten().null_count == 0


def raw_segment(*rows):
    """A segment of a writer that does not check what it writes."""
    frames = [encode_frame(i, msgspec.msgpack.encode(row)) for i, row in enumerate(rows)]
    return segment_bytes([], sealed=False) + b"".join(frames)


def test_a_row_that_does_not_fit_is_kept_and_says_how(tmp_path):
    unfit = decision(
        step=0,
        token_ids=[1, 2**40],
        latency_us=2**63,
        prompt=[{"role": "user", "content": ["a", "b"], "mood": "calm"}],
        extra='{"mine":1}',
    )
    path = write_segment(tmp_path, [])
    path.write_bytes(raw_segment(unfit, decision(step=1)))
    (episode,) = read(tmp_path).episodes()
    kept, sound = episode.decisions
    assert sound.token_ids == [7, 8]
    assert (kept.token_ids, kept.latency_us, kept.response) == ([], None, "left")
    assert kept.prompt == [{"role": "user", "content": ["a", "b"], "mood": "calm"}]
    assert kept.extra["mine"] == 1
    assert {"token_ids", "latency_us", "prompt[0].content"} <= kept.extra["converted"].keys()
