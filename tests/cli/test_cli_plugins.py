"""`simtune plugins ls`."""

import json

import pytest

from simtune import plugins
from simtune.cli import main as frame


@pytest.fixture(autouse=True)
def fresh_plugins():
    plugins.reset()
    yield
    plugins.reset()


MINE = """
from simtune import hookimpl

@hookimpl
def simtune_register_rewards(register):
    register("brevity", lambda episode: -float(len(episode)), version="3")
    raise LookupError("the rest is missing")

@hookimpl
def simtune_decision(row):
    pass
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return str(path)


def test_it_lists_hooks_rewards_and_failures(mine, capsys):
    assert frame.main(["plugins", "ls", "--json", "--plugin", mine]) == 0
    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert found["builtin-rewards"]["distribution"].startswith("simtune ")
    assert found["mine"] == {
        "name": "mine",
        "distribution": None,
        "hooks": ["simtune_decision", "simtune_register_rewards"],
        "rewards": [{"name": "brevity", "version": "3"}],
        "failures": [
            {"hook": "simtune_register_rewards", "error": "LookupError: the rest is missing"}
        ],
    }


def test_the_table_ends_with_the_failures(mine, capsys):
    assert frame.main(["plugins", "ls", "--plugin", mine]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["plugin", "distribution", "hooks", "rewards"]
    assert any("brevity (3)" in line for line in lines)
    assert lines[-1] == (
        "mine failed in simtune_register_rewards: LookupError: the rest is missing"
    )


def test_a_misspelled_hook_is_exit_code_2(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(MINE.replace("simtune_decision", "simtune_decisions"))
    assert frame.main(["plugins", "ls", "--plugin", str(path)]) == 2
    assert "simtune_decisions" in capsys.readouterr().err
