"""Rewards over a whole store."""

import pytest

import simtune
from simtune.errors import DataError, OptionError
from simtune.rewards.scoring import score_store


@pytest.fixture
def root(tmp_path):
    """Three episodes: rewards 1+2, rewards -1+0, and one without any reward."""
    root = tmp_path / "store"
    for rewards in ([1.0, 2.0], [-1.0, 0.0], [None]):
        log = simtune.recording.open_episode(env="maze", root=str(root))
        for reward in rewards:
            prompt = [{"role": "user", "content": "?"}]
            log.decision(prompt, "left", reward=reward, valid=reward != 0.0)
        log.finish(terminated=True, outcome={"success": sum(filter(None, rewards)) > 0})
    simtune.recording.seal(str(root))
    return root


def test_scores_land_in_sidecars_with_counts_and_reasons(root):
    (found,) = score_store(root, ["environment"])
    assert (found.episodes, found.scored, found.failed, found.decisions) == (3, 2, 1, 4)
    assert found.mean == pytest.approx((3.0 - 1.0) / 2)
    assert found.reasons == {"DataError: the simulation gave no reward in this episode": 1}
    rows = simtune.read(root).scores().to_pylist()
    whole = [row for row in rows if row["decision_id"] is None]
    single = [row for row in rows if row["decision_id"] is not None]
    assert sorted(row["score"] for row in single) == [-1.0, 0.0, 1.0, 2.0]
    assert {row["score"] for row in whole} == {3.0, -1.0, None}
    (failed,) = [row for row in whole if row["score"] is None]
    assert "no reward in this episode" in failed["detail"]
    assert {row["scorer"] for row in rows} == {"environment"}


def test_scoring_again_replaces_what_counts(root, add_plugin):
    add_plugin("mine", version="2", length=lambda episode: len(episode))
    seen = []
    first, second = score_store(root, ["length", "success"], on_episode=seen.append)
    assert (first.mean, second.mean, len(seen)) == (pytest.approx(5 / 3), pytest.approx(1 / 3), 3)
    score_store(root, ["length"])
    assert sorted(simtune.read(root).scores()["score"].to_pylist()) == [0, 0, 1, 1, 2, 2]


def test_a_reward_that_raises_costs_only_its_own_score(root, add_plugin):
    add_plugin("mine", broken=lambda episode: episode.no_such_field)
    broken, valid = score_store(root, ["broken", "valid"])
    assert (broken.scored, broken.failed, broken.mean) == (0, 3, None)
    assert (valid.scored, valid.failed, valid.mean) == (3, 0, pytest.approx(4 / 3))


def test_scores_have_no_weight(root):
    with pytest.raises(OptionError, match="no weight"):
        score_store(root, ["valid=2"])


def test_an_empty_store_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        score_store(tmp_path / "empty", ["valid"])
    assert not (tmp_path / "empty" / "scores").exists()
