"""`simtune score` over a real store."""

import json

import pytest

import simtune
from simtune import plugins
from simtune.cli import main as frame


@pytest.fixture(autouse=True)
def fresh_plugins():
    plugins.reset()
    yield
    plugins.reset()


@pytest.fixture
def root(tmp_path):
    """Two episodes: one of two decisions that ends well, one of one decision."""
    root = str(tmp_path / "store")
    for rewards in ([0.0, 1.0], [0.0]):
        log = simtune.recording.open_episode(env="maze", root=root)
        for reward in rewards:
            log.decision([{"role": "user", "content": "?"}], "left", reward=reward)
        log.finish(terminated=True, outcome={"success": sum(rewards) > 0})
    simtune.recording.seal(root)
    return root


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from simtune import hookimpl\n\n"
        "def picky(episode):\n"
        "    if len(episode) < 2:\n"
        "        raise ValueError('too short to judge')\n"
        "    return 0.25\n\n"
        "@hookimpl\n"
        "def simtune_register_rewards(register):\n"
        "    register('picky', picky, version='4')\n"
    )
    return str(path)


def test_it_prints_scored_failed_mean_and_reasons(root, plugin, capsys):
    assert frame.main(["score", "--store", root, "--reward", "picky", "--plugin", plugin]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        *("reward", "version", "episodes", "scored", "failed", "decisions", "mean")
    ]
    assert lines[2].split() == ["picky", "4", "2", "1", "1", "0", "0.25"]
    assert lines[3] == "picky: 1 failed: ValueError: too short to judge"


def test_a_failure_is_null_in_the_store_and_the_others_are_scored(root, plugin, capsys):
    arguments = ["--reward", "picky", "--reward", "success", "--plugin", plugin, "--json"]
    assert frame.main(["score", "--store", root, *arguments]) == 0
    picky, success = json.loads(capsys.readouterr().out)
    assert (picky["scored"], picky["failed"], picky["mean"]) == (1, 1, 0.25)
    assert (success["scored"], success["failed"], success["mean"]) == (2, 0, 0.5)
    rows = simtune.read(root).scores().to_pylist()
    scores = {(row["scorer"], row["scorer_version"], row["score"]) for row in rows}
    assert scores == {
        ("picky", "4", 0.25),
        ("picky", "4", None),
        ("success", "1", 1.0),
        ("success", "1", 0.0),
    }


def test_the_default_reward_is_the_environments(root, capsys):
    assert frame.main(["score", "--store", root, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["name"], found["decisions"], found["mean"]) == ("environment", 3, 0.5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--reward", "sucess"], "did you mean 'success'?"),
        (["--reward", "valid=2"], "a score has no weight"),
        (["--plugin", "missing.py"], "does not exist"),
    ],
)
def test_wrong_options_are_named_and_nothing_is_written(root, capsys, arguments, said):
    assert frame.main(["score", "--store", root, *arguments]) == 2
    assert said in capsys.readouterr().err
    assert simtune.read(root).scores().num_rows == 0


def test_a_store_that_is_not_there(tmp_path, capsys):
    assert frame.main(["score", "--store", str(tmp_path / "no")]) == 2
    assert "no captured decisions" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
