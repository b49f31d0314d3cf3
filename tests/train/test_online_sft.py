"""SFT on a followed store: rounds, the buffer over restarts, and what it learns."""

import signal

import pytest

import simtune
from simtune.errors import DataError, OptionError, TrainingError
from simtune.registry import Registry
from simtune.train import checkpoints
from simtune.train.options import parse_options
from simtune.train.tuning import tune
from tests.train.simulating import play
from tests.train.test_follow_killed import FORK, check_chain, check_once, die_in, finished


@pytest.fixture(scope="module")
def mlruns(tmp_path_factory, mlflow_directory):
    return mlflow_directory(tmp_path_factory.mktemp("online-sft"))


def values(root, base, mlruns, **changes):
    return {
        "llm_path": str(base),
        "store": str(root / "store"),
        "follow": True,
        "follow_timeout": 0.2,
        "models_dir": str(root / "models"),
        "tracking_uri": mlruns,
        "episodes_per_iteration": 4,
        "buffer_episodes": 6,
        "epochs": 1,
        "lora_r": 2,
        "learning_rate": 1e-2,
    } | changes


def train(*given, **changes):
    return tune("sft", parse_options("sft", values(*given, **changes)))


def captured(root, episodes, **said):
    play(str(root / "store"), episodes, **said)
    simtune.flush()


def saved(root):
    (run,) = (root / "models" / "checkpoints").iterdir()
    return checkpoints.newest(run)


def test_rounds_replay_the_newest_and_the_best(tmp_path, tiny_model_dir, mlruns):
    captured(tmp_path, 10)
    record = train(tmp_path, tiny_model_dir, mlruns)
    first, second = Registry(tmp_path / "models").list()
    assert (second.id, second.parent, second.method) == (record.id, first.id, "sft")
    assert (first.data.episodes, second.data.episodes) == (4, 8)
    # Episodes score 0 and 2 in turn. Of eight, six stay: the newer three, and the best of five.
    assert record.metrics["buffer_episodes"] == 6
    assert record.metrics["buffer_score"] == pytest.approx(8 / 6)
    assert record.metrics["drawn_samples"] == 8
    assert record.metrics["loss"] > 0


def test_the_same_command_goes_on_with_optimizer_and_buffer(tmp_path, tiny_model_dir, mlruns):
    """In two goes as in one: the draws, the optimizer and the adapter are the same."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for root in (whole, parts):
        play(str(root / "store"), 4)
        play(str(root / "store"), 4)
        simtune.flush()
    train(parts, tiny_model_dir, mlruns, iterations=1)
    half = saved(parts).update()["optimizer"]["state"][0]["step"]
    record = train(parts, tiny_model_dir, mlruns, iterations=2)
    assert saved(parts).update()["optimizer"]["state"][0]["step"] == 2 * half
    assert record.data.episodes == 8
    assert record.weights_sha256 == train(whole, tiny_model_dir, mlruns).weights_sha256


def test_what_scores_too_little_or_is_too_long_is_not_kept(tmp_path, tiny_model_dir, mlruns):
    captured(tmp_path, 8)
    record = train(tmp_path, tiny_model_dir, mlruns, min_score=1)
    assert record.data.episodes == 4
    assert record.data.skipped == {"scored below 1": 4}
    with pytest.raises(DataError, match="0 of 4 episodes"):
        train(tmp_path, tiny_model_dir, mlruns, max_length=8)


def test_too_few_episodes_are_an_error_and_wait_for_the_rest(tmp_path, tiny_model_dir, mlruns):
    captured(tmp_path, 2)
    with pytest.raises(DataError, match="2 of 4 episodes"):
        train(tmp_path, tiny_model_dir, mlruns)
    captured(tmp_path, 2)
    assert train(tmp_path, tiny_model_dir, mlruns).data.episodes == 4


def test_a_loss_that_is_not_finite_stops_it(tmp_path, tiny_model_dir, mlruns):
    captured(tmp_path, 8)
    with pytest.raises(TrainingError, match=r"the loss is|not finite"):
        train(tmp_path, tiny_model_dir, mlruns, learning_rate=1e30)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"follow": False, "follow_timeout": None}, "is about following a store"),
        ({"top_fraction": 0.5}, "--top-fraction"),
        ({"buffer_episodes": 3}, "larger than the buffer that"),
    ],
)
def test_options_that_would_not_be_read_are_refused(tmp_path, tiny_model_dir, mlruns, given, said):
    captured(tmp_path, 1)
    with pytest.raises(OptionError, match=said):
        train(tmp_path, tiny_model_dir, mlruns, **given)


def test_killed_around_the_commit_every_episode_is_taken_once(tmp_path, tiny_model_dir, mlruns):
    captured(tmp_path, 14)
    given = values(tmp_path, tiny_model_dir, mlruns)

    def start(sabotage=None):
        def body():
            if sabotage is not None:
                sabotage()
            tune("sft", parse_options("sft", given))

        process = FORK.Process(target=body)
        process.start()
        return process

    for call in (2, 3):
        assert finished(start(die_in(checkpoints, "_seal", call))) == -signal.SIGKILL
    assert finished(start()) == 0
    assert check_once(tmp_path).round == 3
    assert len(check_chain(tmp_path)) == 3
