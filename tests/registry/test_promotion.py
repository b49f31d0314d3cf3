"""Promotion and rollback: one champion at a time, only sound weights, and nothing forgotten."""

from __future__ import annotations

import logging
import multiprocessing
import shutil

import pytest

from simtune.errors import RegistryError
from simtune.policy.adapter_hash import WEIGHTS_FILE
from simtune.registry import Registry
from simtune.registry.history import Change, lineage
from simtune.registry.promotion import (
    ChampionChangedError,
    champion_of,
    history_of,
    promote,
    refuse,
    roll_back,
)
from tests.registry.registering import register


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "models")


def statuses(registry):
    return [record.status for record in registry.list()]


def test_the_champion_before_is_retired(registry):
    first, second = register(registry, 1.0), register(registry, 2.0)
    assert champion_of(registry) is None
    promote(registry, first.id, reason="the first")
    assert statuses(registry) == ["champion", "candidate"]
    made = promote(registry, "latest", by="gate", evidence={"low": 0.02})
    assert statuses(registry) == ["retired", "champion"]
    assert champion_of(registry).id == second.id == registry.get("champion").id
    assert (made.event, made.by, made.before, made.after) == (
        "promoted",
        "gate",
        first.id,
        second.id,
    )
    assert made.evidence == {"low": 0.02}
    assert [change.reason for change in history_of(registry)] == ["the first", ""]


def test_a_refusal_is_kept_and_changes_nothing(registry):
    first, second = register(registry, 1.0), register(registry, 2.0)
    promote(registry, first.id)
    made = refuse(registry, second.id, reason="not better", evidence={"low": -0.1})
    assert statuses(registry) == ["champion", "candidate"]
    assert (made.event, made.before, made.after) == ("refused", first.id, first.id)
    assert history_of(registry)[-1] == made


def test_rolling_back_goes_back_one_champion_at_a_time_and_ends_at_the_base(registry):
    models = [register(registry, float(n)) for n in range(3)]
    for model in models:
        promote(registry, model.id)
    assert roll_back(registry, reason="worse").after == models[1].id
    assert statuses(registry) == ["retired", "champion", "retired"]
    # Model 2 was rolled back: it is not what model 1 goes back to, nor is it come back to.
    assert roll_back(registry).after == models[0].id
    assert roll_back(registry).after is None
    assert champion_of(registry) is None
    with pytest.raises(RegistryError, match="no champion to roll back"):
        roll_back(registry)


def test_after_a_rollback_a_promotion_goes_back_to_what_is_before_it(registry):
    a, b, c = (register(registry, float(n)) for n in range(3))
    promote(registry, a.id)
    promote(registry, b.id)
    roll_back(registry)
    promote(registry, c.id)
    assert roll_back(registry).after == a.id


def test_a_rollback_can_name_any_sound_model_or_the_base(registry):
    a, b = (register(registry, float(n)) for n in range(2))
    promote(registry, a.id)
    assert roll_back(registry, b.id).after == b.id
    assert statuses(registry) == ["retired", "champion"]
    assert roll_back(registry, "base").after is None
    assert statuses(registry) == ["retired", "retired"]


def test_a_rollback_passes_over_what_is_broken(registry):
    models = [register(registry, float(n)) for n in range(3)]
    for model in models:
        promote(registry, model.id)
    shutil.rmtree(registry.path(models[1]))
    made = roll_back(registry, reason="worse")
    assert made.after == models[0].id
    assert made.reason.startswith(f"worse; passed over {models[1].id}: ")
    assert "are gone" in made.reason


def test_lineage_of_a_history_by_hand():
    def change(event, after):
        return Change(at="", event=event, by="hand", model="", before=None, after=after)

    steps = [
        (change("promoted", "a"), [None, "a"]),
        (change("refused", "a"), [None, "a"]),
        (change("promoted", "b"), [None, "a", "b"]),
        (change("promoted", "c"), [None, "a", "b", "c"]),
        (change("rolled_back", "a"), [None, "a"]),
        (change("rolled_back", "z"), [None, "z"]),
        (change("rolled_back", None), [None]),
    ]
    history = []
    for step, expected in steps:
        history.append(step)
        assert lineage(history) == expected


def test_what_cannot_be_promoted_is_said_and_changes_nothing(registry, tmp_path):
    with pytest.raises(RegistryError, match="is empty"):
        promote(registry, "sft-1")
    fine, other, gone, damaged, changed = (
        register(registry, float(n), base=base)
        for n, base in enumerate(("/base/a", "/base/b", "/base/a", "/base/a", "/base/a"))
    )
    reward = register(registry, 9.0, type="reward")
    promote(registry, fine.id)
    shutil.rmtree(registry.path(gone))
    weights = registry.path(damaged) / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:20])
    shutil.copy(registry.path(fine) / WEIGHTS_FILE, registry.path(changed))
    before = (registry.models_dir / "registry.json").read_bytes()
    for model, said in [
        ("nothing-like-it", "no model"),
        (fine.id, "is champion already"),
        (other.id, "another base model"),
        (gone.id, "are gone"),
        (damaged.id, "are damaged"),
        (changed.id, "not those that were registered"),
        (reward.id, "type reward"),
    ]:
        with pytest.raises(RegistryError, match=said):
            promote(registry, model)
    assert (registry.models_dir / "registry.json").read_bytes() == before
    assert promote(registry, other.id, other_base=True).after == other.id


def test_a_measurement_against_another_champion_promotes_nothing(registry):
    a, b, c = (register(registry, float(n)) for n in range(3))
    promote(registry, a.id, beaten=None)
    promote(registry, b.id, beaten=a)
    with pytest.raises(ChampionChangedError, match=b.id):
        promote(registry, c.id, beaten=a)
    with pytest.raises(ChampionChangedError, match=b.id):
        roll_back(registry, fallen=a)
    assert champion_of(registry).id == b.id


def _promote_first_beater(models_dir, model_id, barrier, told):
    registry = Registry(models_dir)
    barrier.wait()
    try:
        promote(registry, model_id, beaten=None)
        told.put((model_id, "promoted"))
    except ChampionChangedError:
        told.put((model_id, champion_of(registry).id))


def test_of_two_promotions_at_once_one_wins_and_the_other_sees_it(registry):
    made = [register(registry, float(n)) for n in range(2)]
    context = multiprocessing.get_context("fork")
    barrier, told = context.Barrier(2), context.Queue()
    workers = [
        context.Process(
            target=_promote_first_beater, args=(registry.models_dir, one.id, barrier, told)
        )
        for one in made
    ]
    for worker in workers:
        worker.start()
    said = dict(told.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join()
    winner = champion_of(registry).id
    loser = next(one.id for one in made if one.id != winner)
    assert said == {winner: "promoted", loser: winner}
    assert sorted(statuses(registry)) == ["candidate", "champion"]
    assert [change.model for change in history_of(registry)] == [winner]


def test_a_rollback_is_in_the_log(registry, caplog):
    model = register(registry, 1.0)
    promote(registry, model.id)
    with caplog.at_level(logging.WARNING, "simtune"):
        roll_back(registry, by="watch", reason="scores fell")
    assert caplog.messages == [
        f"rolled_back by watch: {model.id}; champion {model.id} -> base; scores fell"
    ]
