"""`CaptureEnv`: the environment unchanged, every step in the store."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import simtune
from simtune.gym import CaptureEnv, TextEnv


def episodes(root):
    return list(simtune.read(str(root)).episodes())


# check_env warns about every wrapper, since it was written for base environments:
# https://github.com/Farama-Foundation/Gymnasium/blob/v1.1.1/gymnasium/utils/env_checker.py#L342
@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")
@pytest.mark.parametrize("wrap", [lambda env: env, TextEnv], ids=["raw", "text"])
def test_gymnasiums_own_checker_passes(tmp_path, wrap):
    env = CaptureEnv(wrap(gymnasium.make("FrozenLake-v1")), root=str(tmp_path))
    check_env(env, skip_render_check=True)  # drawing needs pygame
    env.close()
    assert sum(len(episode) for episode in episodes(tmp_path)) > 0


def test_each_step_is_a_decision(tmp_path):
    env = CaptureEnv(
        gymnasium.make("FrozenLake-v1", is_slippery=False),
        root=str(tmp_path),
        run_id="r",
        agent="a",
    )
    env.reset(seed=3)
    for action in (1, 1, 2):
        env.step(action)
    assert env.step(np.int64(1))[1:4] == (0, False, False)
    assert env.step(2)[:4] == (14, 0, False, False)
    assert env.step(2)[:4] == (15, 1, True, False)
    (episode,) = episodes(tmp_path)
    assert [decision.parsed for decision in episode.decisions] == [1, 1, 2, 1, 2, 2]
    assert [decision.response for decision in episode.decisions] == list("112122")
    assert [decision.observation for decision in episode.decisions] == [0, 4, 8, 9, 13, 14]
    assert [decision.reward for decision in episode.decisions] == [0, 0, 0, 0, 0, 1]
    assert [decision.terminated for decision in episode.decisions] == [False] * 5 + [True]
    assert (episode.terminated, episode.truncated) == (True, False)
    assert episode.outcome == {"success": True, "return": 1.0}
    assert (episode.env, episode.run_id, episode.agent_id) == ("FrozenLake-v1", "r", "a")
    assert episode.metadata == {"seed": 3}


def test_around_text_it_holds_what_training_needs(tmp_path):
    env = CaptureEnv(
        TextEnv(gymnasium.make("FrozenLake-v1", is_slippery=False)), root=str(tmp_path)
    )
    shown, _ = env.reset(seed=0)
    env.step(simtune.Reply("Right!", token_ids=[4, 2], logprobs=[-0.5, 0.0]))
    env.step("hm")
    env.step("down")
    (episode,) = episodes(tmp_path)
    first, second, third = episode.decisions
    assert first.prompt == env.env.messages(shown)
    assert (first.response, first.parsed, first.token_ids) == ("Right!", "right", [4, 2])
    assert (second.valid, second.error) == (False, "the answer names no action")
    assert (second.observation, third.observation) == (1, 1)
    assert "Answer with one of" in third.prompt[-1]["content"].split("\n")[-1]
    assert third.terminated and episode.terminated
    assert episode.final_prompt[-1]["content"].split("\n")[1] == "F P F H"


def test_arrays_are_kept_as_they_were(tmp_path):
    env = CaptureEnv(gymnasium.make("Pendulum-v1", max_episode_steps=2), root=str(tmp_path))
    before, _ = env.reset(seed=1)
    first = before.tolist()
    action = np.array([0.5], dtype=np.float32)
    env.step(action)
    before[:] = action[:] = 9.0  # the caller's arrays go on to change
    assert env.step(np.array([0.0], dtype=np.float32))[3] is True
    (episode,) = episodes(tmp_path)
    assert episode.decisions[0].observation == first
    assert episode.decisions[0].response == "[0.5]"
    assert (episode.terminated, episode.truncated) == (False, True)


@pytest.mark.parametrize("leave", [lambda env: env.reset(), lambda env: env.close()])
def test_an_abandoned_episode_is_truncated(tmp_path, leave):
    env = CaptureEnv(gymnasium.make("CliffWalking-v1"), root=str(tmp_path))
    env.reset(seed=0)
    env.step(0)
    leave(env)
    env.close()
    episode = next(episode for episode in episodes(tmp_path) if len(episode))
    assert (episode.ended, episode.terminated, episode.truncated) == (True, False, True)
    assert episode.outcome == {"abandoned": True, "return": -1.0}
