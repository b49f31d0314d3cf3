"""The page says every option, with its default, and every route."""

import argparse
import re
from pathlib import Path

from simtune.cli import serve
from simtune.serving.options import ServeOptions

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")


def test_every_option_is_documented_with_its_default():
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    declared = {
        action.option_strings[0]: "none" if action.default in (None, []) else str(action.default)
        for action in parser._actions
        if action.dest != "help"
    }
    declared["--llm-path"] = ""
    documented = dict(re.findall(r"^\| `(--[a-z-]+)` \| (.*?) ?\| .+ \|$", PAGE, re.M))
    assert documented == declared


def test_the_command_line_has_the_defaults_of_the_options():
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    parsed = vars(parser.parse_args(["--llm-path", "x"]))
    options = ServeOptions(llm_path="x")
    for name in ServeOptions.__struct_fields__:
        expected = getattr(options, name)
        assert parsed[name] == (list(expected) if isinstance(expected, tuple) else expected)
