"""The options of roll-outs reach them, and environments last from round to round."""

import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from simtune.errors import EnvironmentSpecError
from simtune.policy.local import LocalPolicy
from simtune.policy.tiny import build_model, build_tokenizer
from simtune.train.env_source import EnvSource
from simtune.train.options import PPOOptions
from simtune.train.parallel import Processes
from tests.benchmarks.ladder.rungs import grid_walk

WALK = "tests.benchmarks.ladder.rungs:grid_walk"
asked = []


def nearer(index, stats):
    asked.append((index, stats["episodes"]))
    return {"distance": 1 + index // 4}


@pytest.fixture
def make_source(tmp_path):
    tokenizer = build_tokenizer(["left right up down . P G"] * 20, vocab_size=300)
    model = build_model(tokenizer).eval()

    def make(**changes):
        asked.clear()
        options = PPOOptions(
            llm_path="base",
            **{"env": WALK, "num_envs": 2} | changes,
            episodes_per_iteration=4,
            capture_root=str(tmp_path / "store"),
            max_new_tokens=2,
        )
        policy = LocalPolicy(
            model, tokenizer, max_new_tokens=2, decision=options.decision, stop=options.stop
        )
        return EnvSource(options, policy, "run", Processes())

    return make


def test_choosing_a_growing_chat_and_a_curriculum(make_source):
    source = make_source(decision="choose", history="full", curriculum=f"{__name__}:nearer")
    first, second = source.gather(0), source.gather(1)
    assert first.metrics["valid"] == second.metrics["valid"] == 1
    assert [index for index, _ in asked] == list(range(8))
    for episode in first.episodes:
        for before, after in zip(episode.turns, episode.turns[1:], strict=False):
            known = [*before.prompt_ids, *before.action_ids]
            assert list(after.prompt_ids[: len(known)]) == known
    assert all(turn.temperature == 1.0 for one in second.episodes for turn in one.turns)
    resumed = make_source(curriculum=f"{__name__}:nearer")
    resumed.load_state_dict(source.state_dict())
    assert resumed.progress.stats() == source.progress.stats()
    source.close()


def test_workers_change_nothing(make_source):
    def prompts(source):
        gathered = [source.gather(index) for index in range(2)]
        source.close()
        return [turn.prompt_ids for one in gathered for e in one.episodes for turn in e.turns]

    alone = prompts(make_source(decision="choose"))
    assert prompts(make_source(decision="choose", env_workers=2)) == alone


def test_a_curriculum_that_does_not_exist_is_named_before_anything_is_played(make_source):
    with pytest.raises(EnvironmentSpecError, match="has no callable 'farther'"):
        make_source(curriculum=f"{__name__}:farther")


def three_walks():
    return SyncVectorEnv([grid_walk] * 3, autoreset_mode=AutoresetMode.DISABLED)


def test_a_vector_environment_plays_what_as_many_environments_play(make_source):
    alone, vector = make_source(num_envs=3), make_source(env=f"{__name__}:three_walks")
    played = [
        [[turn.action_ids for turn in one.turns] for one in source.gather(0).episodes]
        for source in (alone, vector)
    ]
    assert len(played[0]) == 4
    assert played[0] == played[1]
    alone.close()
    vector.close()
