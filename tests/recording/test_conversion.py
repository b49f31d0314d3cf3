"""Whatever a simulation hands over is kept in some form, and `extra` says in which."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from read_back import said

import simtune
from simtune.recording.conversion import plain, to_json
from simtune.recording.encoding import decode_row as decode
from simtune.recording.encoding import encode_row
from simtune.records import Row


def kept(**columns):
    row = decode(encode_row(Row(kind="decision", episode_id="e", **columns)))
    return row, said(row.extra)["converted"] if row.extra else {}


@dataclasses.dataclass
class Point:
    x: object


class Thing:
    def __repr__(self):
        return "a thing"


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "expected", "note"),
    [
        ("a\ud800b", "a\\ud800b", "lone surrogates escaped"),
        (2**64, "0x10000000000000000", "integer over 64 bits as hexadecimal text"),
        (np.arange(3), [0, 1, 2], "was numpy.ndarray"),
        (b"\x00\xff", "AP8=", "bytes as base64"),
        (Point(1), {"x": 1}, "was test_conversion.Point"),
        (Thing(), "a thing", "was test_conversion.Thing, as its repr"),
        (Unprintable(), "<test_conversion.Unprintable>", "was test_conversion.Unprintable"),
    ],
)
def test_what_is_converted_is_noted(value, expected, note):
    notes = {}
    assert plain({"v": [value]}, "observation", notes) == {"v": [expected]}
    assert notes["observation.v[0]"].startswith(note)


def test_what_json_knows_needs_no_note():
    notes = {}
    value = {"a": [1, 2.5, None, True], 2: {3}, "n": np.int64(4), "f": np.float32(0.5), "i": 2**70}
    text = to_json(value, "metadata", notes)
    assert said(text) == {"a": [1, 2.5, None, True], "2": [3], "n": 4, "f": 0.5, "i": 2**70}
    assert notes == {}


def test_a_value_within_itself_ends():
    endless = []
    endless.append(endless)
    notes = {}
    said(to_json(endless, "metadata", notes))
    assert list(notes.values()) == ["nested too deeply, or within itself: left out"]


def test_keys_become_text():
    notes = {}
    assert plain({Thing(): 1, (1, "\ud800"): 2}, "m", notes) == {"a thing": 1, "(1, '\\ud800')": 2}
    assert notes["m.a thing"] == "key was test_conversion.Thing"


def test_columns_keep_their_types():
    row, notes = kept(
        response="\udfff",
        reward=np.float32(0.5),
        terminated=np.bool_(True),
        token_ids=np.array([1, 2]),
        logprobs=[-0.5, None],
        latency_us=2**70,
        agent_id=3,
        error="plain",
    )
    assert row.response == "\\udfff"
    assert (row.reward, row.terminated) == (0.5, True)
    assert row.token_ids == [1, 2]
    assert row.logprobs[0] == -0.5
    assert math.isnan(row.logprobs[1])
    assert row.latency_us is None
    assert row.agent_id == "3"
    assert row.error == "plain"
    assert set(notes) == {"response", "token_ids", "latency_us", "agent_id"}


@pytest.mark.parametrize("ids", [[1.5], ["a"], [2**31], 7, [None]])
def test_what_are_no_token_ids_are_left_out_with_a_note(ids):
    row, notes = kept(token_ids=ids, reward="much")
    assert (row.token_ids, row.reward) == ([], None)
    assert notes["token_ids"].startswith("left out")
    assert notes["reward"] == "left out, not a number: 'much'"


def test_messages_are_text():
    row, notes = kept(prompt=[{"content": ["part"]}, "just text", {"role": "user", "n": Thing()}])
    assert row.prompt == [
        {"role": "user", "content": '["part"]'},
        {"role": "user", "content": "just text"},
        {"role": "user"},
    ]
    assert set(notes) == {"prompt[0].role", "prompt[0].content"}
    assert said(row.extra)["prompt_fields"] == {"2": {"n": "a thing"}}


def test_numpy_scalars_cost_no_note():
    assert kept(reward=np.float64(1.5), truncated=np.bool_(False), step=np.int64(2))[1] == {}


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary(max_size=4)
    | st.just(Thing())
    | st.builds(np.array, st.lists(st.integers(0, 9), max_size=3)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(Row.__struct_fields__[2:]), anything, max_size=6))
def test_any_row_at_all_can_be_written_and_read(columns):
    decode(encode_row(Row(kind="decision", episode_id="e", **columns)))


@given(anything)
def test_anything_at_all_becomes_json(value):
    text = to_json(value, "metadata", {})
    assert (text is None) == (value is None)
    if text is not None:
        said(text)


def test_the_episode_log_takes_it_all(store):
    with simtune.episode(seed=np.int64(3), where=Thing()) as log:
        log.decision("\ud800", Thing(), observation=np.zeros(2), parsed=2**65, choices=("a", 1))
    start, decision = store.rows("episode_start")[0], store.only()
    assert said(start.metadata) == {"seed": 3, "where": "a thing"}
    assert said(decision.observation) == [0.0, 0.0]
    assert decision.choices == ["a", "1"]
    assert set(said(decision.extra)["converted"]) == {
        "response",
        "observation",
        "prompt[0].content",
        "choices[1]",
    }
