"""`simtune eval` with a small model of random weights in a real environment."""

import argparse
import json

import pytest

from simtune.cli import main as frame
from simtune.cli.contenders import fill_in_as_trained
from simtune.cli.eval import add_arguments
from simtune.registry import ModelRecord

LAKE = "simtune.gym.frozenlake:random_map"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    from simtune.policy import tiny

    tokenizer = tiny.build_tokenizer(["left", "down", "right", "up"])
    path = tmp_path_factory.mktemp("model") / "base"
    tiny.save_base(tiny.build_model(tokenizer, seed=1), tokenizer, path)
    return str(path)


def run(*arguments):
    return frame.main(["eval", "--episodes", "3", "--max-new-tokens", "2", *arguments])


def test_greedy_and_sampled_with_intervals(base, capsys):
    assert run("--env", LAKE, "--llm-path", base, "--seed", "7", "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert [each["label"] for each in first["policies"]] == ["base greedy", "base sampled"]
    for each in first["policies"]:
        assert (each["episodes"], each["seed"], len(each["returns"])) == (3, 7, 3)
        assert 0 <= each["success"]["low"] <= each["success"]["estimate"] <= 1
        low, high = each["mean_return"]["low"], each["mean_return"]["high"]
        assert low <= each["mean_return"]["estimate"] <= high
    assert run("--env", LAKE, "--llm-path", base, "--seed", "7", "--json") == 0
    assert json.loads(capsys.readouterr().out) == first


def test_policies_side_by_side_are_paired(base, capsys):
    arguments = ["--llm-path", base, "--model", "base", "--model", "base", "--env-arg", "size=3"]
    assert run("--env", LAKE, *arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["policy", "episodes", "success", "return", "valid"]
    assert [line.split()[:2] for line in lines[2:6]] == 2 * [
        ["base", "greedy"],
        ["base", "sampled"],
    ]
    assert lines[6] == "base greedy - base greedy: return 0.000 [0.000, 0.000]"


def test_policies_that_choose_are_always_valid(base, capsys):
    assert run("--env", LAKE, "--llm-path", base, "--decision", "choose", "--json") == 0
    for each in json.loads(capsys.readouterr().out)["policies"]:
        assert each["valid_rate"] == 1


def test_policies_are_asked_as_the_first_adapter_was_trained():
    trained = ModelRecord(
        **dict.fromkeys(("id", "name", "base_model", "method", "path", "created_at"), "m"),
        type="fine_tuned",
        version=1,
        size_bytes=0,
        weights_sha256="",
        parameters={"decision": "choose", "length_normalised": True, "history": "full"},
    )
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    said = parser.parse_args(["--env", LAKE])
    fill_in_as_trained(said, [trained])
    assert (said.decision, said.length_normalised, said.history) == ("choose", True, "full")
    said = parser.parse_args(["--env", LAKE, "--decision", "generate", "--history", "0"])
    fill_in_as_trained(said, [trained])
    assert (said.decision, said.history) == ("generate", "0")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--env", "FrozenLak-v1"], "FrozenLak"),
        (["--env", "Pendulum-v1"], "a Discrete action space"),
        (["--env", LAKE, "--env-arg", "size"], "--env-arg takes NAME=VALUE"),
        (["--env", LAKE, "--model", "sft-unknown"], "sft-unknown"),
        (["--env", LAKE, "--num-envs", "0"], "at least 1"),
        (["--env", LAKE, "--history", "some"], "history cannot be used"),
        ([], "--env"),
    ],
)
def test_wrong_options_are_named(base, capsys, arguments, said):
    assert run("--llm-path", base, *arguments) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("simtune: error:") and said in shown


def test_a_base_model_is_named_or_known_from_the_adapters(tmp_path, capsys):
    assert run("--env", LAKE) == 2
    assert "no base model is named" in capsys.readouterr().err
    assert run("--env", LAKE, "--llm-path", str(tmp_path)) == 2
    assert "without config.json" in capsys.readouterr().err
