"""`simtune eval --gate` with real models: what is better goes live, what is worse does not."""

import json
import shutil

import pytest

from simtune import gym
from simtune.cli.main import main
from simtune.policy.adapter_hash import WEIGHTS_FILE
from simtune.policy.local import LocalPolicy
from simtune.registry import Registry
from simtune.registry.promotion import champion_of, history_of, promote
from tests.eval.lever import SPEC, make, make_adapter, make_base


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A base, an adapter that pulls right, one that pulls left, and a log of the base's play."""
    place = tmp_path_factory.mktemp("gate")
    base = make_base(place / "base")
    registry = Registry(place / "models")
    good = make_adapter(registry, base, "right")
    bad = make_adapter(registry, base, "left")
    gym.rollout(
        make,
        LocalPolicy.load(base, decision="choose", seed=5),
        episodes=300,
        root=str(place / "store"),
    )
    return place, good, bad


@pytest.fixture
def models(trained, tmp_path):
    """A copy of the registry, to change."""
    shutil.copytree(trained[0] / "models", tmp_path / "models")
    return Registry(tmp_path / "models")


def gate(models, *arguments):
    return main(
        ["eval", "--gate", "--json", "--models-dir", str(models.models_dir), *map(str, arguments)]
    )


def test_a_better_candidate_is_promoted_and_a_worse_one_is_not(models, trained, capsys):
    _, good, bad = trained
    assert gate(models, "--env", SPEC, "--model", good.id, "--episodes", "80") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["promoted"] is True
    assert champion_of(models).id == good.id
    evidence = told["change"]["evidence"]
    assert (evidence["champion"], evidence["method"], evidence["episodes"]) == (
        "base",
        "sign-flip",
        80,
    )
    assert evidence["details"]["seeds"] == [0, 79]
    assert evidence["candidate_mean"] - evidence["champion_mean"] == pytest.approx(
        evidence["difference"]["estimate"]
    )
    assert evidence["difference"]["low"] > 0

    before = (models.models_dir / good.path / WEIGHTS_FILE).read_bytes()
    assert gate(models, "--env", SPEC, "--model", bad.id, "--episodes", "40") == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["promoted"], told["change"]["event"]) == (False, "refused")
    assert told["change"]["evidence"]["difference"]["high"] < 0
    assert champion_of(models).id == good.id
    assert [change.by for change in history_of(models)] == ["gate", "gate"]
    assert (models.models_dir / good.path / WEIGHTS_FILE).read_bytes() == before


def test_a_match_ends_as_soon_as_it_is_decided(models, trained, capsys):
    _, good, bad = trained
    promote(models, bad.id)
    arguments = ["--env", SPEC, "--model", good.id, "--max-episodes", "400", "--num-envs", "16"]
    assert gate(models, *arguments) == 0
    evidence = json.loads(capsys.readouterr().out)["change"]["evidence"]
    assert evidence["method"] == "betting"
    assert 16 <= evidence["episodes"] <= 96
    assert evidence["details"]["episodes_at_most"] == 400
    # The other way round it ends as early.
    assert gate(models, *arguments[:2], "--model", bad.id, *arguments[4:]) == 1
    evidence = json.loads(capsys.readouterr().out)["change"]["evidence"]
    assert evidence["episodes"] <= 96
    assert evidence["difference"]["high"] < 0


def test_a_margin_is_asked_for_in_units_of_the_metric(models, trained, capsys):
    _, good, _ = trained
    arguments = ["--env", SPEC, "--model", good.id, "--episodes", "40", "--metric", "return"]
    assert gate(models, *arguments, "--margin", "0.9") == 1
    assert "not above the margin 0.9" in json.loads(capsys.readouterr().out)["change"]["reason"]


def test_logged_decisions_promote_what_is_better_without_a_simulator(models, trained, capsys):
    place, good, bad = trained
    arguments = ["--store", place / "store", "--min-ess", "20"]
    assert gate(models, *arguments, "--model", bad.id) == 1
    capsys.readouterr()
    assert gate(models, *arguments, "--model", good.id) == 0
    evidence = json.loads(capsys.readouterr().out)["change"]["evidence"]
    assert (evidence["method"], evidence["champion"], evidence["episodes"]) == (
        "off-policy",
        "base",
        300,
    )
    candidate, champion = evidence["details"]["effective_sample_size"]
    # The base made the data: its weights are 1 but for rounding.
    assert champion == pytest.approx(300, abs=0.01)
    assert 20 <= candidate < 300
    # The right lever pays 0.9, and the candidate nearly always pulls it.
    assert evidence["candidate_mean"] == pytest.approx(0.9, abs=0.08)


def test_too_small_an_effective_sample_promotes_nothing(models, trained, capsys):
    place, good, _ = trained
    arguments = ["--store", place / "store", "--min-ess", "299", "--model", good.id]
    assert gate(models, *arguments) == 1
    reason = json.loads(capsys.readouterr().out)["change"]["reason"]
    assert reason.startswith(f"the logged decisions say too little about {good.id}")
    assert champion_of(models) is None


def test_without_json_the_numbers_and_the_decision_are_lines(models, trained, capsys):
    _, _, bad = trained
    code = main(
        [
            "eval",
            "--gate",
            "--env",
            SPEC,
            "--model",
            bad.id,
            "--episodes",
            "20",
            "--models-dir",
            str(models.models_dir),
        ]
    )
    lines = capsys.readouterr().out.splitlines()
    assert code == 1
    assert lines[0].startswith(f"candidate {bad.id}: success 0.")
    assert lines[1].startswith("champion base: success 0.")
    assert lines[2].endswith("20 episodes, sign-flip, each bound at 0.95")
    assert lines[3].startswith("refused: success differs by -0.")
    assert lines[4] == "champion: base"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "either --env or --store"),
        (["--env", SPEC, "--store", "s"], "either --env or --store"),
        (["--env", SPEC, "--min-ess", "5"], "--min-ess goes with --store"),
        (["--store", "s", "--decoding", "greedy"], "--decoding goes with --env"),
        (["--env", SPEC, "--episodes", "5", "--max-episodes", "9"], "give one of them"),
        (["--env", SPEC, "--model", "a", "--model", "b"], "one --model"),
        (["--env", SPEC, "--model", "none"], "no model"),
        (["--env", SPEC, "--metric", "sucess"], "did you mean 'success'"),
        (["--env", SPEC, "--confidence", "1.5"], "confidence"),
        (["--env", SPEC, "--metric", "return", "--max-episodes", "9"], "--range LOW HIGH"),
        (["--env", SPEC, "--metric", "return", "--range", "1", "0"], "LOW < HIGH"),
    ],
)
def test_bad_input_is_code_2_and_leaves_no_trace(models, capsys, arguments, said):
    assert gate(models, *arguments) == 2
    assert said in capsys.readouterr().err
    assert history_of(models) == []


def test_a_damaged_candidate_is_found_before_anything_is_played(models, trained, capsys):
    _, good, _ = trained
    (models.path(good) / WEIGHTS_FILE).write_bytes(b"")
    assert gate(models, "--env", SPEC, "--model", good.id) == 2
    assert "are damaged" in capsys.readouterr().err


def test_options_of_the_gate_need_it(capsys):
    assert main(["eval", "--env", SPEC, "--margin", "0.1"]) == 2
    assert "--margin goes with --gate" in capsys.readouterr().err
