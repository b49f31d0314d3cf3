"""A real store and a real registry: a champion that falls is rolled back, others stay."""

import random

import pytest

import simtune
from simtune.errors import RegistryError
from simtune.eval import watch as watching
from simtune.eval.metrics import Metric
from simtune.eval.watch import Watch
from simtune.eval.watch_state import load_state, only_watch, save_state, state_path
from simtune.registry import Registry
from simtune.registry.promotion import champion_of, history_of, promote, roll_back
from tests.registry.registering import register


@pytest.fixture
def place(tmp_path):
    """A registry with two champions, one after the other, and a store."""
    registry = Registry(tmp_path / "models")
    first, second = register(registry, 1.0), register(registry, 2.0)
    promote(registry, first.id)
    promote(registry, second.id)
    return registry, first, second, str(tmp_path / "store")


def play(store, adapter, rate, episodes, *, seed=0):
    """A simulation whose policy succeeds at a rate, each decision with the adapter's hash."""
    luck = random.Random(seed)
    for _ in range(episodes):
        with simtune.episode(env="lever", root=store) as log:
            log.decision("pull", simtune.Reply("right", adapter=adapter), reward=1.0)
            log.finish(terminated=True, outcome={"success": luck.random() < rate})
    simtune.flush()


def look(registry, store, **options):
    watch = Watch(registry, store, Metric("success"), alpha=0.01, **options)
    return watch.run(once=True), watch


def test_a_fall_below_the_champion_before_rolls_back_to_it(place, caplog):
    registry, first, second, store = place
    play(store, first.weights_sha256, 0.8, 100)
    play(store, second.weights_sha256, 0.3, 120, seed=1)
    (change,), watch = look(registry, store)
    assert champion_of(registry).id == first.id == change.after
    assert (change.event, change.by, change.model) == ("rolled_back", "watch", second.id)
    assert change == history_of(registry)[-1]
    assert change.evidence["baseline"] == "previous"
    assert change.evidence["wealth"] >= 1 / 0.01
    assert change.evidence["episodes"] <= 100
    assert "chance of a false alarm at most 0.01" in change.reason
    assert any(message.startswith("rolled_back by watch") for message in caplog.messages)
    # What is left of the old champion's episodes is not held against the new one.
    assert watch.summary()["champion"] == first.id
    assert look(registry, store)[0] == []


def test_a_champion_that_holds_stays(place):
    registry, first, second, store = place
    play(store, first.weights_sha256, 0.8, 100)
    play(store, second.weights_sha256, 0.85, 200, seed=1)
    made, watch = look(registry, store)
    assert made == []
    assert champion_of(registry).id == second.id
    found = watch.summary()
    assert (found["baseline"], found["episodes"]) == ("previous", 200)
    assert found["mean"] == pytest.approx(0.85, abs=0.06)


def test_without_a_champion_before_its_own_first_scores_are_the_baseline(place):
    registry, _, second, store = place
    play(store, second.weights_sha256, 0.9, 50, seed=1)
    play(store, second.weights_sha256, 0.3, 100, seed=2)
    (change,), _ = look(registry, store)
    assert change.evidence["baseline"] == "own"
    assert change.evidence["baseline_mean"] >= 0.8


def test_with_a_range_the_mean_is_watched(place):
    registry, first, second, store = place
    play(store, first.weights_sha256, 0.9, 150)
    play(store, second.weights_sha256, 0.2, 150, seed=1)
    (change,), _ = look(registry, store, ranks=False)
    assert change.evidence["test"] == "MeanFall"


def test_looks_in_pieces_count_each_episode_once(place):
    registry, first, second, store = place
    play(store, first.weights_sha256, 0.8, 60)
    for part in range(4):
        play(store, second.weights_sha256, 0.8, 15, seed=part)
        _, watch = look(registry, store)
        assert watch.summary()["episodes"] == 15 * (part + 1)
    again = Watch(registry, store, Metric("success"), alpha=0.01)
    again.run(once=True)
    assert again.summary() == watch.summary()
    whole = Watch(registry, store, Metric("success"), alpha=0.01)
    state_path(registry.models_dir, store, "success").unlink()
    whole.run(once=True)
    assert whole.summary() == watch.summary()


def test_a_watch_that_dies_before_it_saved_counts_again_from_where_it_was(place, monkeypatch):
    registry, first, second, store = place
    play(store, first.weights_sha256, 0.8, 60)
    look(registry, store)
    play(store, second.weights_sha256, 0.8, 30)

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(watching, "save_state", die)
        with pytest.raises(KeyboardInterrupt):
            look(registry, store)
    assert look(registry, store)[1].summary()["episodes"] == 30


def test_what_cannot_be_counted_is_left_out_and_said(place):
    registry, first, second, store = place
    mine = second.weights_sha256
    with simtune.episode(root=store) as log:
        log.decision("pull", simtune.Reply("right", adapter=mine))
        log.decision("pull", simtune.Reply("right", adapter=first.weights_sha256))
        log.finish(outcome={"success": True})
    with simtune.episode(root=store) as log:
        log.decision("pull", simtune.Reply("right", adapter=mine))
        log.finish(outcome={})
    with simtune.episode(root=store) as log:
        log.decision("pull", simtune.Reply("right", adapter="of-somebody-else"))
        log.finish(outcome={"success": True})
    with pytest.raises(ZeroDivisionError), simtune.episode(root=store) as log:
        log.decision("pull", simtune.Reply("right", adapter=mine))
        raise ZeroDivisionError
    simtune.flush()
    assert look(registry, store)[1].summary()["skipped"] == {
        "decided by several adapters": 1,
        "no success": 1,
        "decided by an adapter that is not registered": 1,
        "unfinished, aborted or empty": 1,
    }


def test_a_new_champion_begins_a_new_test(place):
    registry, first, second, store = place
    play(store, first.weights_sha256, 0.8, 60)
    play(store, second.weights_sha256, 0.8, 40)
    assert look(registry, store)[1].summary()["episodes"] == 40
    roll_back(registry, by="hand")
    play(store, first.weights_sha256, 0.8, 20)
    found = look(registry, store)[1].summary()
    # Before `first` there was the base model, of which nothing was captured.
    assert (found["champion"], found["test"]) == (first.id, None)


def test_no_champion_is_nothing_to_watch(tmp_path):
    registry = Registry(tmp_path / "models")
    with pytest.raises(RegistryError, match="is empty"):
        look(registry, str(tmp_path / "store"))
    model = register(registry, 1.0)
    play(str(tmp_path / "store"), model.weights_sha256, 0.1, 60)
    made, watch = look(registry, str(tmp_path / "store"))
    assert (made, watch.summary()["champion"]) == ([], "base")


def test_one_watch_at_a_time_and_a_broken_state_is_named(place):
    registry, _, _, store = place
    path = state_path(registry.models_dir, store, "success")
    with only_watch(path), pytest.raises(RegistryError, match="another process watches"):
        look(registry, store)
    path.write_bytes(b"{")
    with pytest.raises(RegistryError, match="remove it to begin the watch anew"):
        look(registry, store)


def test_the_state_is_what_was_saved(tmp_path):
    path = tmp_path / "state.json"
    state = load_state(path)
    state.recent = {"base": [1.0, 0.5]}
    save_state(path, state)
    assert load_state(path) == state
