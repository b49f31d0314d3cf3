"""docs/capture.md says what there is."""

import inspect
import re
from pathlib import Path
from typing import get_args, get_type_hints

import msgspec
import pytest

import simtune
from simtune.config import Config

PAGE = (Path(__file__).parents[2] / "docs" / "capture.md").read_text(encoding="utf-8")


def table(heading):
    """The rows of the first table under a heading, as lists of cells."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    first = re.search(r"(?:^\|.*\n)+", section, re.M)
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in first[0].splitlines()[2:]]


def test_its_examples_run(store):
    capture, redact = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    exec(capture, {})
    exec(redact, {})
    first, second = store.rows("decision")
    assert (first.response, first.parsed, first.agent_id) == ("3", "3", "seller")
    assert second.response == "the password is [redacted]"
    assert second.prompt[0]["content"] == "what is the password of [redacted]?"


def test_every_argument_of_the_decorator_is_documented():
    parameters = inspect.signature(simtune.capture).parameters
    assert [f"`{name}`" for name in parameters if name != "function"] == [
        row[0] for row in table("The decorator")
    ]


def test_every_setting_is_documented_with_its_default():
    shown = {name.strip("`"): default.strip("`") for name, default, *_ in table("Settings")}
    assert shown == {field.name: str(field.default) for field in msgspec.structs.fields(Config)}
    assert all(row[2] == f"`SIMTUNE_{row[0].strip('`').upper()}`" for row in table("Settings"))


@pytest.mark.parametrize("setting", ["durability", "backpressure"])
def test_every_value_is_documented(setting):
    values = get_args(get_type_hints(Config)[setting])
    heading = {"durability": "Durability", "backpressure": "Back-pressure"}[setting]
    assert tuple(row[0].split("`")[1] for row in table(heading)) == values


def test_what_configure_takes_is_named():
    for name in inspect.signature(simtune.configure).parameters:
        assert f"{name}=..." in PAGE.split("\n## Settings\n")[1]
