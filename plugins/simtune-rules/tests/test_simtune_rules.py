"""Rules as rewards: each form, wrong files, and the installed plugin through its entry point."""

import importlib.metadata
import subprocess
import sys

import pytest

import simtune_rules
from simtune import Decision, Episode, testing
from simtune.errors import OptionError
from simtune_rules import Rule, read_rules, reward_of


def episode(*answers, parsed=None, valid=True):
    decisions = [
        Decision(decision_id=f"w-{i}", response=answer, parsed=parsed, valid=valid)
        for i, answer in enumerate(answers)
    ]
    return Episode(episode_id="e", decisions=decisions)


def scores(rule, *answers, **fields):
    return reward_of(rule)(episode(*answers, **fields))


def test_a_regular_expression_may_match_anywhere():
    rule = Rule(name="polite", regex="(?i)please", score=2.0, otherwise=-1.0)
    assert scores(rule, "Left, PLEASE.", "left") == [2.0, -1.0]


def test_a_schema_on_the_answer_needs_the_whole_answer_to_be_json():
    rule = Rule(name="move", json_schema={"type": "object", "required": ["to"]})
    assert scores(rule, '{"to": 1}', '{"from": 1}', 'I say {"to": 1}', "") == [1, 0, 0, 0]


def test_a_schema_on_what_was_parsed():
    rule = Rule(name="action", field="parsed", json_schema={"type": "integer", "maximum": 3})
    assert scores(rule, "up", parsed=3) == [1.0]
    assert scores(rule, "up", parsed=4) == [0.0]


def test_what_could_not_be_parsed_satisfies_no_schema():
    rule = Rule(name="anything", field="parsed", json_schema={})
    assert scores(rule, "hm", parsed=None, valid=False) == [0.0]


def test_an_expression_on_what_was_parsed_reads_its_json():
    rule = Rule(name="left", field="parsed", regex=r'"left"|\Aleft\Z')
    assert scores(rule, "?", parsed={"go": "left"}) == [1.0]
    assert scores(rule, "?", parsed="left") == [1.0]
    assert scores(rule, "left", parsed="right") == [0.0]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (Rule(name="none"), "either regex or json_schema"),
        (Rule(name="both", regex="a", json_schema={}), "either regex or json_schema"),
        (Rule(name="open", regex="("), "not a regular expression"),
        (Rule(name="odd", json_schema={"type": "number-ish"}), "not a JSON schema"),
    ],
)
def test_a_wrong_rule_is_named(rule, said):
    with pytest.raises(OptionError, match=f"(?s){rule.name}.*{said}"):
        reward_of(rule)


def test_yaml_and_json_files_read_alike(tmp_path):
    yaml_file, json_file = tmp_path / "rules.yaml", tmp_path / "rules.json"
    yaml_file.write_text("rules:\n  - {name: a, regex: x, score: 2, version: '3'}\n")
    json_file.write_text('{"rules": [{"name": "a", "regex": "x", "score": 2, "version": "3"}]}')
    expected = [Rule(name="a", regex="x", score=2.0, version="3")]
    assert read_rules(yaml_file) == read_rules(json_file) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rules: [{name: a, regexp: x}]", "unknown field `regexp`"),
        ("rules: [", "not a file of rules"),
        ("- 1", "not a file of rules"),
    ],
)
def test_a_wrong_file_is_an_error(tmp_path, text, said):
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with pytest.raises(OptionError, match=said):
        read_rules(path)
    with pytest.raises(OptionError, match="cannot be read"):
        read_rules(tmp_path / "missing.yaml")


def test_it_keeps_the_contract_of_a_plugin(tmp_path, monkeypatch):
    path = tmp_path / "rules.yaml"
    path.write_text("rules: [{name: short, regex: '^.{1,5}$'}]")
    monkeypatch.setenv("SIMTUNE_RULES", str(path))
    rewards = testing.check_plugin(simtune_rules)
    assert rewards == ["rules.json_object", "rules.short", "rules.single_word"]


def test_the_installed_command_finds_it_by_its_entry_point(tmp_path):
    if "rules" not in {point.name for point in importlib.metadata.entry_points(group="simtune")}:
        pytest.skip("simtune-rules is not installed: pip install -e plugins/simtune-rules")
    done = subprocess.run(
        [sys.executable, "-m", "simtune.cli.main", "plugins", "ls"],
        capture_output=True,
        text=True,
        check=True,
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("rules "))
    assert line.split()[1:3] == ["simtune-rules", "0.1.0"]
    assert "rules.single_word (1)" in line
