"""The classic file of decisions: both rating columns, skips with row numbers, clear errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simtune.data.decisions import read_decisions
from simtune.errors import DataError


@pytest.fixture
def write(tmp_path):
    def make(rows, name: str = "data.json") -> Path:
        path = tmp_path / name
        if isinstance(rows, bytes):
            path.write_bytes(rows)
        elif name.endswith(".jsonl"):
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            path.write_text(json.dumps(rows))
        return path

    return make


@pytest.mark.parametrize("name", ["data.json", "data.jsonl"])
@pytest.mark.parametrize("column", ["rating", "reward"])
def test_lists_and_lines_with_rating_or_reward(write, name, column):
    file = read_decisions(write([{"prompt": "way?", "output": "left", column: 4}], name))
    (row,) = file.rows
    assert row.prompt == [{"role": "user", "content": "way?"}]
    assert (row.row, row.output, row.rating, row.feedback) == (1, "left", 4.0, None)


def test_a_prompt_of_messages_stays_as_it_is(write):
    prompt = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    assert read_decisions(write([{"prompt": prompt, "output": "x"}])).rows[0].prompt == prompt


def test_a_byte_order_mark_and_blank_lines_are_fine(write):
    content = b'\xef\xbb\xbf{"prompt": "a", "output": "b"}\n\n{"prompt": "c", "output": "d"}\n'
    assert [row.row for row in read_decisions(write(content, "d.jsonl")).rows] == [1, 3]


def test_one_bad_row_is_skipped_with_its_number_and_does_not_end_the_load(write):
    good = {"prompt": "p", "output": "o", "rating": 1}
    bad = {
        "not an object": 3,
        "empty output": {"prompt": "p", "output": " "},
        "empty prompt": {"prompt": "", "output": "o"},
        "output is not text": {"prompt": "p", "output": 3},
        "rating is not a number": {"prompt": "p", "output": "o", "rating": "good"},
        "rating and reward differ": {"prompt": "p", "output": "o", "rating": 1, "reward": 2},
        "the prompt ends with the assistant's turn": {
            "prompt": [{"role": "assistant", "content": "hi"}],
            "output": "o",
        },
        "a message of the prompt has an unknown role": {
            "prompt": [{"role": "boss", "content": "hi"}],
            "output": "o",
        },
    }
    file = read_decisions(write([good, *bad.values(), good]))
    assert [row.row for row in file.rows] == [1, len(bad) + 2]
    assert file.skipped == list(enumerate(bad, start=2))
    assert file.skip_counts() == dict.fromkeys(bad, 1)


def test_nan_is_not_a_rating(write):
    rows = [{"prompt": "p", "output": "o", "rating": text} for text in ("nan", "inf", "3.5")]
    file = read_decisions(write(rows))
    assert [row.rating for row in file.rows] == [3.5]


@pytest.mark.parametrize(
    ("row", "columns", "nearest"),
    [
        ({"prompt": "p", "chosen": "a", "rejected": "b"}, "prompt, chosen, rejected", "preference"),
        ({"conversations": []}, "conversations", "conversations"),
        ({"input": "i", "contexts": [], "response": "r"}, "input, contexts, resp", "contextual"),
    ],
)
def test_another_format_is_named_with_the_columns_found(write, row, columns, nearest):
    with pytest.raises(DataError, match=f"columns {columns}.*nearest format: {nearest}"):
        read_decisions(write([row]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"[]", "is empty"),
        (b"[{]", "is not a JSON list"),
        (b"prompt,output\n", "neither a JSON list nor JSON lines"),
        (b'{"prompt": "a"}\n{"prompt": "caf\xe9"}', "0xe9 at offset 31, line 2"),
        (b'[{"prompt": "", "output": "x"}]', "1 empty prompt; first: row 1"),
    ],
)
def test_unusable_files_are_data_errors(write, content, message):
    with pytest.raises(DataError, match=message):
        read_decisions(write(content))


def test_missing_files_and_directories_are_data_errors(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_decisions(tmp_path / "none.json")
    with pytest.raises(DataError, match="--store"):
        read_decisions(tmp_path)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"prompt": st.text(), "output": st.text()},
            optional={"rating": st.none() | st.floats() | st.text(), "feedback": st.text()},
        ),
        min_size=1,
    )
)
def test_every_row_is_used_or_accounted_for(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("any") / "data.json"
    path.write_text(json.dumps(rows).replace("NaN", "null").replace("Infinity", "1e300"))
    try:
        file = read_decisions(path)
    except DataError:
        return
    numbers = [row.row for row in file.rows] + [number for number, _ in file.skipped]
    assert sorted(numbers) == list(range(1, len(rows) + 1))
