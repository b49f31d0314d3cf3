"""Bad input of every kind: exit code 2, what was expected, and nothing touched or left behind."""

import json
from pathlib import Path

import duckdb
import pytest

CAPTURE = """
import simtune
simtune.configure(root="store")
for seed in range(3):
    with simtune.episode(env="dice", seed=seed) as episode:
        episode.decision("roll?", "yes", reward=1.0)
        episode.finish(terminated=True)
simtune.flush()
"""

RAISING = """
import simtune

def thirst(episode):
    raise ValueError("no such field: water")

@simtune.hookimpl
def simtune_register_rewards(register):
    register("thirst", thirst, version="3")
"""

MISSPELLED = """
import simtune

@simtune.hookimpl
def simtune_register_reward(register):
    register("never", len)
"""

PREFERENCES = [{"prompt": "p", "chosen": "a", "rejected": "b"}]
EQUAL = [{"prompt": f"p{i}", "output": "yes", "rating": 3} for i in range(4)]
GOOD = [{"prompt": f"p{i}", "output": "yes", "rating": i} for i in range(4)]

SFT = ("train", "sft", "--llm-path", "BASE")
PPO = ("train", "ppo", "--llm-path", "BASE")
EVAL = ("eval", "--llm-path", "BASE")


@pytest.fixture(scope="module")
def place(tmp_path_factory, python) -> Path:
    """A directory with a store, data sets, plugins, and a registry that must not change."""
    place = tmp_path_factory.mktemp("bad")
    (place / "capture.py").write_text(CAPTURE)
    python("capture.py", cwd=place)
    (place / "raising.py").write_text(RAISING)
    (place / "misspelled.py").write_text(MISSPELLED)
    (place / "empty.json").write_text("[]")
    (place / "nothing.json").write_text("")
    (place / "half.json").write_text('[{"prompt": "p", "output"')
    (place / "preferences.json").write_text(json.dumps(PREFERENCES))
    (place / "equal.json").write_text(json.dumps(EQUAL))
    (place / "good.json").write_text(json.dumps(GOOD))
    (place / "run.yaml").write_text("llm_path: BASE\nlearning_rat: 0.1\n")
    (place / "models").mkdir()
    (place / "models" / "registry.json").write_text('{"format": 1, "models": []}')
    (place / "torn").mkdir()
    (place / "torn" / "registry.json").write_text('{"format": 1, "mod')
    return place


@pytest.fixture
def refused(place, bare_base, simtune, files):
    """Run a command that must be refused; gives its message."""

    def run(*arguments, cwd=place):
        watched = [place / "models", place / "torn"]
        before = [files(directory) for directory in watched]
        command = [str(bare_base) if word == "BASE" else word for word in arguments]
        ended = simtune(*command, cwd=cwd, code=2)
        assert [files(directory) for directory in watched] == before
        assert not list(place.glob("**/.staging-*")) and not list(place.glob("**/*.partial"))
        assert ended.out == ""
        message = ended.err[ended.err.index("simtune: error: ") :]
        return message.removeprefix("simtune: error: ")

    return run


CASES = {
    "a model directory that is missing": (
        ("train", "sft", "--llm-path", "no-model", "--store", "store"),
        ["no base model in 'no-model'", "expected: a Hugging Face model", "nothing there", "fix:"],
    ),
    "a model directory that is none": (
        ("train", "sft", "--llm-path", "store", "--store", "store"),
        ["no base model in 'store'", "got: a directory without config.json"],
    ),
    "an unknown flag": (
        (*SFT, "--store", "store", "--leaning-rate", "1"),
        ["unknown option '--leaning-rate'", "did you mean '--learning-rate'?", "train --help"],
    ),
    "an unknown key in YAML": (
        ("train", "sft", "--config", "run.yaml"),
        ["unknown option 'learning_rat' for sft", "did you mean 'learning_rate'?"],
    ),
    "a value that is out of range": (
        (*PPO, "--store", "store", "--gamma", "1.5"),
        ["bad option for ppo", "<= 1.0", "gamma"],
    ),
    "an empty list": (
        (*SFT, "--dataset-path", "empty.json"),
        ["'empty.json' is empty", "expected: rows of {prompt, output, rating or reward"],
    ),
    "an empty file": (
        (*SFT, "--dataset-path", "nothing.json"),
        ["'nothing.json' is empty", "expected: rows of {prompt, output, rating or reward"],
    ),
    "half a file": (
        (*SFT, "--dataset-path", "half.json"),
        ["'half.json' is not a JSON list", "truncated"],
    ),
    "a file that is missing": (
        (*PPO, "--dataset-path", "no.json"),
        ["'no.json' does not exist"],
    ),
    "a data set of another format": (
        (*PPO, "--dataset-path", "preferences.json"),
        ["is not one of decisions", "columns prompt, chosen, rejected", "format: preference"],
    ),
    "ratings that are all equal": (
        (*PPO, "--dataset-path", "equal.json"),
        ["'equal.json' holds no ratings to learn from", "got: 4 rated rows, all equal"],
    ),
    "a store that is missing": (
        (*SFT, "--store", "no-store"),
        ["the store does not exist", "no-store"],
    ),
    "continuous actions in training": (
        (*PPO, "--env", "Pendulum-v1"),
        ["the actions of Pendulum-v1", "expected: a Discrete action space", "got: Box(", "fix:"],
    ),
    "continuous actions in play": (
        (*EVAL, "--env", "Pendulum-v1"),
        ["the actions of Pendulum-v1", "expected: a Discrete action space", "got: Box("],
    ),
    "an unknown environment": (
        (*PPO, "--env", "FrozenLak-v1"),
        ["environment 'FrozenLak-v1'", "did you mean FrozenLake-v1"],
    ),
    "an unknown environment of a module": (
        (*EVAL, "--env", "simtune.demo.lake:lak"),
        ["has no callable 'lak'", "did you mean lake"],
    ),
    "a plugin with a misspelled hook": (
        ("score", "--store", "store", "--plugin", "misspelled.py"),
        ["'misspelled' implements a hook that does not exist", "simtune_register_rewards", "fix:"],
    ),
    "a plugin that is missing": (
        (*SFT, "--store", "store", "--plugin", "no.py"),
        ["plugin file 'no.py' does not exist"],
    ),
    "an unknown reward": (
        (*SFT, "--store", "store", "--reward", "sucess"),
        ["sucess", "success"],
    ),
    "a reward that always raises, for SFT": (
        (*SFT, "--store", "store", "--plugin", "raising.py", "--reward", "thirst"),
        ["no captured decision is left", "thirst: ValueError: no such field: water"],
    ),
    "a reward that always raises, for PPO": (
        (*PPO, "--store", "store", "--plugin", "raising.py", "--reward", "thirst"),
        ["no episode is left for PPO", "3 a reward failed"],
    ),
    "episodes without token ids, for PPO": (
        (*PPO, "--store", "store"),
        ["no episode is left for PPO", "token_ids"],
    ),
    "two sources": (
        (*PPO, "--store", "store", "--env", "FrozenLake-v1"),
        ["two sources of data are given", "exactly one of", "got: --env and --store"],
    ),
    "no source": (SFT, ["training needs data from one source", "--store, --dataset-path"]),
    "a registry that is torn, before training": (
        (*SFT, "--dataset-path", "good.json", "--models-dir", "torn"),
        ["the registry 'torn/registry.json' cannot be read", "truncated", "fix: mend the file"],
    ),
    "a registry that is torn, listed": (
        ("models", "ls", "--models-dir", "torn"),
        ["the registry 'torn/registry.json' cannot be read"],
    ),
    "an option that nothing would read": (
        (*PPO, "--dataset-path", "good.json", "--num-envs", "4"),
        ["--num-envs is about roll-outs", "fix: leave --num-envs out, or give --env"],
    ),
    "an adapter that is not there": (
        (*SFT, "--dataset-path", "good.json", "--adapter", "latest"),
        ["no model 'latest'", "is empty"],
    ),
    "a base model that exists already": (
        ("models", "pull-base", "tiny", "--output", "models"),
        ["'models' exists already", "expected: a new directory"],
    ),
}


@pytest.mark.parametrize(("arguments", "said"), CASES.values(), ids=CASES)
def test_it_is_refused_in_plain_words(refused, arguments, said):
    message = refused(*arguments)
    for words in said:
        assert words in message


def test_inputs_are_checked_before_anything_is_written(tmp_path, refused):
    refused(*PPO, "--env", "Pendulum-v1", cwd=tmp_path)
    refused(*SFT, "--dataset-path", "no.json", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_score_that_failed_is_null_with_its_reason(place, simtune):
    ended = simtune(
        *("score", "--store", "store", "--plugin", "raising.py"),
        *("--reward", "thirst", "--reward", "environment"),
        cwd=place,
    )
    assert "thirst: 3 failed: ValueError: no such field: water" in ended.out
    found = duckdb.sql(
        "SELECT scorer, score, detail, count(*) "
        f"FROM read_parquet('{place}/store/scores/v1/*/*.parquet') "
        "WHERE decision_id IS NULL GROUP BY ALL ORDER BY 1"
    ).fetchall()
    # The one that raises costs its own scores, never another's.
    assert found[0][:2] == ("environment", 1.0) and found[0][3] == 3
    assert (found[1][:2], found[1][3]) == (("thirst", None), 3)
    assert "no such field: water" in found[1][2]


def test_debug_shows_the_traceback_as_well(place, command):
    ended = command("--debug", "episodes", "ls", "--store", "no-store", cwd=place)
    assert ended.code == 2
    assert ended.err.startswith("Traceback") and "simtune: error: no captured" in ended.err
