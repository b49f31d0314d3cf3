"""Checkpoints: whole or not there, checked when read, a damaged one passed over by name."""

import math

import pytest
import torch

from simtune.errors import CorruptError, TrainingError
from simtune.train import checkpoints
from simtune.train.checkpoints import RunState


def state(done=1, **changes):
    given = {"method": "ppo", "run_id": "run", "round": done, "options": {"seed": 0}}
    return RunState(**(given | {"history": [(done, {"loss": 0.5})], "source": {}} | changes))


def save(run_dir, done=1, keep=2, best=None, **changes):
    return checkpoints.save(
        run_dir,
        state(done, **changes),
        weights={"a": torch.tensor([1.0, 2.0]) * done},
        best=best,
        update={"generators": [torch.Generator().manual_seed(3).get_state()], "steps": done},
        keep=keep,
    )


def test_what_is_saved_comes_back(tmp_path):
    best = {"a": torch.tensor([9.0, 9.0])}
    save(tmp_path, 3, best=best, best_round=2, best_score=(0.5, 1.25), first_returns=[0.0, 1.0])
    found = checkpoints.newest(tmp_path)
    assert (found.state.round, found.state.best_round) == (3, 2)
    assert found.state.best_score == (0.5, 1.25)
    assert found.weights()["a"].tolist() == [3.0, 6.0]
    assert found.best()["a"].tolist() == [9.0, 9.0]
    assert found.update()["steps"] == 3
    again = torch.Generator()
    again.set_state(found.update()["generators"][0])
    expected = torch.rand(2, generator=torch.Generator().manual_seed(3))
    assert torch.equal(torch.rand(2, generator=again), expected)


def test_a_number_that_is_not_finite_is_kept_as_missing(tmp_path):
    save(tmp_path, history=[(1, {"explained_variance": math.nan})])
    assert checkpoints.newest(tmp_path).state.history == [(1, {"explained_variance": None})]


def test_only_the_newest_are_kept(tmp_path):
    for done in range(5):
        save(tmp_path, done, keep=2)
    assert [path.name for path in checkpoints.rounds(tmp_path)] == ["round-000003", "round-000004"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["round-000003", "round-000004"]


@pytest.mark.parametrize("name", ["weights.safetensors", "update.pt", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path, name, damage):
    save(tmp_path, 1)
    file = save(tmp_path, 2) / name
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:-1] if damage == "cut" else b"x" + content[1:])
    with pytest.warns(RuntimeWarning, match=rf"round-000002 is damaged.*{name}.*from round-000001"):
        found = checkpoints.newest(tmp_path)
    assert found.state.round == 1


def test_without_a_whole_one_the_error_lists_them(tmp_path):
    (save(tmp_path, 1) / "manifest.json").unlink()
    with pytest.raises(CorruptError, match=r"(?s)no checkpoint.*round-000001.*manifest.json"):
        checkpoints.newest(tmp_path)


def test_a_checkpoint_of_another_release_is_not_guessed_at(tmp_path):
    save(tmp_path, format=99)
    with pytest.raises(CorruptError, match="has format 99, this release reads 1"):
        checkpoints.newest(tmp_path)


def test_what_a_killed_process_staged_is_removed(tmp_path):
    (tmp_path / ".partial-round-000001").mkdir(parents=True)
    (tmp_path / ".partial-round-000001" / "weights.safetensors").write_bytes(b"half")
    assert checkpoints.rounds(tmp_path) == []
    save(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["round-000001"]


def test_a_disk_that_refuses_is_a_training_error(tmp_path):
    (tmp_path / "run").write_text("a file in the way")
    with pytest.raises(TrainingError, match=r"(?s)cannot be written.*--checkpoint-dir"):
        save(tmp_path / "run")


def test_two_processes_never_train_one_run(tmp_path):
    with (
        checkpoints.locked(tmp_path / "run"),
        pytest.raises(TrainingError, match="is being trained by another process"),
        checkpoints.locked(tmp_path / "run"),
    ):
        pass
    with checkpoints.locked(tmp_path / "run"):
        pass
