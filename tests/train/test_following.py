"""A followed store: which episodes a round is, which are dropped, and where a run goes on."""

import threading
import time

import pytest

import simtune
from simtune.errors import DataError, OptionError
from simtune.registry import Registry
from simtune.store import Cursor, read
from simtune.train.intake import Intake
from simtune.train.journal import Journal
from simtune.train.options import parse_options
from simtune.train.ppo import train_ppo
from tests.train.simulating import play


@pytest.fixture(scope="module")
def mlruns(tmp_path_factory, mlflow_directory):
    """One MLflow database for the runs of this module."""
    return mlflow_directory(tmp_path_factory.mktemp("following"))


def values(root, base, mlruns, **changes):
    return {
        "llm_path": str(base),
        "store": str(root / "store"),
        "follow": True,
        "follow_timeout": 0.2,
        "models_dir": str(root / "models"),
        "tracking_uri": mlruns,
        "episodes_per_iteration": 4,
        "epochs": 1,
        "critic_warmup": 0,
        "lora_r": 2,
        "learning_rate": 1e-2,
    } | changes


def train(*given, **changes):
    return train_ppo(parse_options("ppo", values(*given, **changes)))


def captured(root, episodes, **said):
    play(str(root / "store"), episodes, **said)
    simtune.flush()


def models(root):
    return Registry(root / "models").list()


def taken(root):
    (journal,) = (root / "models" / "checkpoints").glob("*/taken.jsonl")
    found = Journal(journal.parent)
    found.length = journal.stat().st_size
    return list(found.learned())


def test_rounds_are_learned_from_and_published_until_nothing_new_comes(
    tmp_path, tiny_model_dir, mlruns
):
    captured(tmp_path, 10)
    record = train(tmp_path, tiny_model_dir, mlruns)
    first, second = models(tmp_path)
    assert second.id == record.id
    assert (first.parent, second.parent) == (None, first.id)
    assert first.weights_sha256 != second.weights_sha256
    assert [one.status for one in (first, second)] == ["candidate", "candidate"]
    assert (first.data.episodes, second.data.episodes) == (4, 8)
    assert second.data.root == str(tmp_path / "store")
    assert second.data.decisions == 16
    # What the base decided is one version old by then, and weighted.
    assert second.metrics["staleness"] == 1
    assert 0 < second.metrics["importance_weight_mean"] <= 2
    listed = (tmp_path / "models" / second.path / "episodes.txt").read_text().split("\n")
    assert sorted(taken(tmp_path)) == listed
    # The cursor beside the adapter says where the rest begins.
    cursor = Cursor.load(tmp_path / "models" / second.path / "cursor.json")
    rest = [one.episode_id for one in read(tmp_path / "store").tail(cursor).episodes()]
    assert len(rest) == 2
    assert {*rest, *listed} == {one.episode_id for one in read(tmp_path / "store").episodes()}


def test_the_same_command_goes_on_and_takes_nothing_twice(tmp_path, tiny_model_dir, mlruns):
    captured(tmp_path, 6)
    train(tmp_path, tiny_model_dir, mlruns)
    captured(tmp_path, 7)
    record = train(tmp_path, tiny_model_dir, mlruns)
    assert record.metrics["episodes_seen"] == 12
    assert len(taken(tmp_path)) == len(set(taken(tmp_path))) == 12
    assert [one.tags["online_version"] for one in models(tmp_path)] == ["1", "2", "3"]
    # Once more, and there is nothing new: the last one is what there is.
    assert train(tmp_path, tiny_model_dir, mlruns).id == record.id


def test_another_command_is_another_run_and_begins_at_the_start(tmp_path, tiny_model_dir, mlruns):
    captured(tmp_path, 4)
    first = train(tmp_path, tiny_model_dir, mlruns)
    second = train(tmp_path, tiny_model_dir, mlruns, seed=1)
    third = train(tmp_path, tiny_model_dir, mlruns, seed=1, resume="never")
    assert len({one.mlflow_run_id for one in (first, second, third)}) == 3
    assert first.data.digest == second.data.digest == third.data.digest


def test_iterations_end_it_with_the_rest_left_in_the_store(tmp_path, tiny_model_dir, mlruns):
    captured(tmp_path, 12)
    record = train(tmp_path, tiny_model_dir, mlruns, iterations=2, publish_every=2)
    assert [one.id for one in models(tmp_path)] == [record.id]
    assert record.tags["round"] == "2"
    longer = train(tmp_path, tiny_model_dir, mlruns, iterations=3, publish_every=2)
    assert longer.data.episodes == 12
    assert longer.parent == record.id


def test_old_and_foreign_decisions_are_dropped_and_counted(tmp_path, tiny_model_dir, mlruns):
    """Until version 2 the base is one version old at most; after it, two."""
    captured(tmp_path, 8)
    captured(tmp_path, 3, adapter="0" * 64)
    captured(tmp_path, 2)
    train(tmp_path, tiny_model_dir, mlruns, max_staleness=1)
    newest = models(tmp_path)[-1].weights_sha256
    captured(tmp_path, 4, adapter=newest)
    record = train(tmp_path, tiny_model_dir, mlruns, max_staleness=1)
    metrics = record.metrics
    assert (metrics["dropped_foreign"], metrics["dropped_stale"]) == (3, 2)
    assert (metrics["staleness"], metrics["episodes_seen"]) == (0, 12)
    assert set(record.data.skipped.values()) == {3, 2}


def test_what_cannot_be_learned_from_is_passed_over(tmp_path, tiny_model_dir, mlruns):
    captured(tmp_path, 3, wanted={"logprobs": []})
    captured(tmp_path, 2, wanted={"prompt_token_ids": [3, 100_000]})
    captured(tmp_path, 1, wanted={"prompt_token_ids": []})
    captured(tmp_path, 4)
    record = train(tmp_path, tiny_model_dir, mlruns)
    assert record.data.skipped == {
        "no log-probabilities of the policy that sampled": 3,
        "token ids that this model does not have": 2,
        "no token ids": 1,
    }
    assert record.metrics["dropped_other"] == 6


def test_files_of_superseded_candidates_go_and_their_records_stay(tmp_path, tiny_model_dir, mlruns):
    captured(tmp_path, 16)
    train(tmp_path, tiny_model_dir, mlruns, keep_published=2)
    found = models(tmp_path)
    assert [one.status for one in found] == ["retired", "retired", "candidate", "candidate"]
    there = [(tmp_path / "models" / one.path).exists() for one in found]
    assert there == [False, False, True, True]


def test_nothing_to_learn_from_is_said(tmp_path, tiny_model_dir, mlruns):
    captured(tmp_path, 3)
    with pytest.raises(DataError, match=r"3 of 4 episodes"):
        train(tmp_path, tiny_model_dir, mlruns)
    captured(tmp_path, 1)
    assert train(tmp_path, tiny_model_dir, mlruns).data.episodes == 4


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"follow": False, "max_staleness": 2, "follow_timeout": None}, "--max-staleness"),
        ({"store": None, "env": "tests.train.guessing:Guessing"}, "--follow learns from a store"),
        ({"save_every": 2}, "--save-every"),
        ({"keep": "last"}, "--keep"),
        ({"lr_schedule": "linear"}, "--iterations N"),
    ],
)
def test_options_that_would_not_be_read_are_refused(tmp_path, tiny_model_dir, mlruns, given, said):
    captured(tmp_path, 1)
    with pytest.raises(OptionError, match=said):
        train(tmp_path, tiny_model_dir, mlruns, **given)


def intake(root, **changes):
    return Intake(str(root), **{"timeout": 5, "stop": threading.Event(), "on_wait": None} | changes)


def test_waiting_is_said(tmp_path):
    said = []
    play(str(tmp_path), 2)
    simtune.flush()
    assert intake(tmp_path, timeout=0.1, on_wait=said.append).take(5, lambda _: None) is None
    assert said == ["waiting: 2 of 5 episodes, last row 0 s ago"]


def test_a_stop_ends_the_waiting_at_once(tmp_path):
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    began = time.monotonic()
    assert intake(tmp_path, stop=stop, timeout=60).take(1, lambda _: None) is None
    assert time.monotonic() - began < 5


def test_the_cursor_stands_right_behind_what_was_taken(tmp_path):
    play(str(tmp_path), 5)
    simtune.flush()
    first = intake(tmp_path)
    two = first.take(2, lambda _: None)
    second = intake(tmp_path)
    second.go_on_from(first.cursor)
    rest = second.take(3, lambda _: None)
    ids = [one.episode.episode_id for one in (*two, *rest)]
    assert len(set(ids)) == 5
    assert first.take(3, lambda _: None)[0].episode.episode_id == ids[2]


def test_lines_of_a_round_that_was_not_committed_are_cut_off(tmp_path):
    journal = Journal(tmp_path / "run")
    journal.add(0, [("a", "learned"), ("b", "too old")])
    committed = journal.length
    journal.add(1, [("c", "learned")])
    again = Journal(tmp_path / "run")
    again.rewind(committed)
    again.add(1, [("d\n", "learned")])
    assert list(again.learned()) == ["a", "d\n"]
