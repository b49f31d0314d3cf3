"""Tables and JSON."""

import json

import msgspec

from simtune.cli import output


def test_a_table_is_aligned_numbers_right_text_left(capsys):
    output.table(["name", "n", "mean"], [["a", 10, 0.123456], ["longer", 2, None]])
    assert capsys.readouterr().out.splitlines() == [
        "name     n    mean",
        "------  --  ------",
        "a       10  0.1235",
        "longer   2       -",
    ]


def test_a_table_without_rows_is_its_head(capsys):
    output.table(["a", "b"], [])
    assert capsys.readouterr().out.splitlines() == ["a  b", "-  -"]


def test_json_of_structs(capsys):
    class Point(msgspec.Struct):
        x: float
        y: None = None

    output.json([Point(0.5)])
    assert json.loads(capsys.readouterr().out) == [{"x": 0.5, "y": None}]
