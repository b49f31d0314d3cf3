"""A cursor is plain JSON that is replaced whole."""

import os

import pytest

from simtune.errors import CorruptError
from simtune.store.cursor import Cursor, Position, as_cursor

CURSOR = Cursor(parts={"c": 3}, writers={"w": Position(1, 721, 10)}, episodes=["e"])


def test_json_is_as_documented():
    assert CURSOR.to_json() == '{"parts":{"c":3},"writers":{"w":[1,721,10]},"episodes":["e"]}'
    assert Cursor.from_json(CURSOR.to_json()) == CURSOR


def test_a_file_is_replaced_whole_and_private(tmp_path):
    path = tmp_path / "cursor.json"
    assert Cursor.load(path) == Cursor()
    Cursor().save(path)
    CURSOR.save(path)
    assert Cursor.load(path) == as_cursor(str(path)) == CURSOR
    assert os.listdir(tmp_path) == ["cursor.json"]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "{", '{"writers": {"w": [1]}}', '{"offsets": {}}', "\xff"])
def test_what_is_no_cursor_is_said(tmp_path, text):
    path = tmp_path / "cursor.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(CorruptError, match="no cursor"):
        Cursor.load(path)
