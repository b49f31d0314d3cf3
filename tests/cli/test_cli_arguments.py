"""Flags made from Structs, files of options, values typed by how they are written."""

import argparse
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta

from simtune.cli.arguments import add_flags, given, merged, read_config
from simtune.cli.values import pairs, typed
from simtune.errors import OptionError


class Small(msgspec.Struct, kw_only=True):
    depth: Annotated[int, Meta(description="how deep", ge=1)] = 3
    mode: Literal["fast", "slow"] = "fast"
    names: Annotated[list[str], Meta(description="repeatable")] = []
    bound: Annotated[float | None, Meta(description="a bound")] = 3.0
    limit: Annotated[Annotated[float, Meta(gt=0)] | None, Meta(description="an upper limit")] = None


class Large(Small, kw_only=True):
    depth: Annotated[int, Meta(description="how deep")] = 5
    env_arg: Annotated[dict[str, Any], Meta(description="for the environment")] = {}


@pytest.fixture
def parser():
    made = argparse.ArgumentParser(prog="x")
    add_flags(made, {"small": Small, "large": Large})
    return made


def parse(parser, *arguments):
    return given(parser.parse_args(arguments), Large.__struct_fields__)


def test_only_what_was_given_is_there(parser):
    assert parse(parser) == {}
    assert parse(parser, "--depth", "7") == {"depth": "7"}


def test_lists_repeat_and_dicts_take_pairs(parser):
    found = parse(
        parser, "--names", "a", "--names", "b", "--env-arg", "size=4", "--env-arg", "name=x=y"
    )
    assert found == {"names": ["a", "b"], "env_arg": {"size": 4, "name": "x=y"}}


def test_given_twice_does_not_leak_between_parses(parser):
    parse(parser, "--names", "a", "--env-arg", "size=4")
    assert parse(parser, "--names", "b") == {"names": ["b"]}


def test_help_says_what_for_whom_and_which_default(parser):
    text = " ".join(parser.format_help().split())
    assert "options of every method: --depth N how deep (default: small 3, large 5)" in text
    assert "--mode fast|slow (default: fast)" in text
    assert "--limit X an upper limit" in text
    assert "--bound X|null a bound (default: 3.0)" in text
    assert "options of large only: --env-arg NAME=VALUE for the environment" in text


def test_a_pair_needs_its_equals_sign(parser):
    with pytest.raises(OptionError, match="--env-arg takes NAME=VALUE"):
        parse(parser, "--env-arg", "size")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("none", None),
        ("null", None),
        ("3", 3),
        ("-0.5", -0.5),
        ("1e-4", 1e-4),
        ("[1, 2]", [1, 2]),
        ('{"a": "b"}', {"a": "b"}),
        ('"3"', "3"),
        ("4x4", "4x4"),
        ("", ""),
        ("a b", "a b"),
    ],
)
def test_values_are_typed_as_they_are_written(text, value):
    found = typed(text)
    assert found == value
    assert type(found) is type(value)


def test_a_pair_is_given_once():
    with pytest.raises(OptionError, match="'a' twice"):
        pairs(["a=1", "a=2"], option="--set")


def test_flags_win_over_the_file_and_dicts_merge():
    file = {"lora-r": 4, "seed": 1, "env_arg": {"size": 4, "slippery": True}}
    flags = {"seed": "2", "env_arg": {"slippery": False}}
    assert merged(file, flags) == {
        "lora_r": 4,
        "seed": "2",
        "env_arg": {"size": 4, "slippery": False},
    }


@pytest.mark.parametrize("text", ["- a\n- b\n", "just text", "", "1: 2\n", "a: [", "a: b: c"])
def test_a_file_of_anything_else_is_an_error(tmp_path, text):
    path = tmp_path / "options.yaml"
    path.write_text(text)
    with pytest.raises(OptionError, match=r"options\.yaml"):
        read_config(str(path))


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(OptionError, match="cannot be read"):
        read_config(str(tmp_path / "missing.yaml"))
