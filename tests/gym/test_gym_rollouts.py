"""Roll-outs: order, seeds, batching, what is captured, and what happens when things break."""

import msgspec
import pytest
from gymnasium.envs.toy_text.frozen_lake import generate_random_map

import simtune
from simtune.errors import EnvironmentSpecError, OptionError
from simtune.gym import TextEnv, make, rollout
from simtune.gym.frozenlake import random_map

LAKE = "simtune.gym.frozenlake:random_map"


class Scripted:
    """Answers with the next word of its script, with tokens; remembers how it was asked."""

    def __init__(self, *words):
        self.words = words
        self.asked = []

    def act(self, prompts):
        self.asked.append(len(prompts))
        return [self.reply(index) for index in range(len(prompts))]

    def reply(self, index):
        word = self.words[len(self.asked) % len(self.words)]
        return simtune.Reply(
            word,
            prompt_token_ids=[1, 2, 3],
            token_ids=[10 + index, 2],
            logprobs=[-0.1, -1 / 3],
            sampling={"temperature": 1.0},
            model="scripted",
            adapter="abc",
        )


def without_times(episode):
    decisions = [
        msgspec.structs.replace(decision, ts=0, latency_us=0) for decision in episode.decisions
    ]
    return msgspec.structs.replace(episode, decisions=decisions)


def test_episodes_come_in_the_order_of_their_seeds():
    played = rollout(LAKE, lambda messages: "right", episodes=7, seed=40, num_envs=3, capture=False)
    assert [episode.metadata["seed"] for episode in played] == list(range(40, 47))
    for seed, episode in enumerate(played, start=40):
        shown = episode.decisions[0].prompt[-1]["content"].split("\n")[:4]
        cells = generate_random_map(size=4, p=0.8, seed=seed)
        assert [row.replace(" ", "") for row in shown] == [cells[0].replace("S", "P"), *cells[1:]]


def test_free_slots_start_the_next_episode_at_once():
    policy = Scripted("up")  # against the wall until the step limit
    played = rollout(lambda: random_map(max_steps=4), policy, episodes=5, num_envs=2, capture=False)
    assert policy.asked == [2] * 8 + [1] * 4
    assert [len(episode) for episode in played] == [4] * 5


def test_the_number_of_environments_changes_nothing_but_the_batches():
    def walk(messages):
        return "down" if "down ice" in messages[-1]["content"] else "right"

    alone = rollout(LAKE, walk, episodes=12, num_envs=1, capture=False)
    together = rollout(LAKE, walk, episodes=12, num_envs=5, capture=False)
    for one, other in zip(alone, together, strict=True):
        assert [d.prompt for d in one.decisions] == [d.prompt for d in other.decisions]
        assert one.outcome == other.outcome


def test_a_walk_decision_by_decision():
    moves = iter(["down", "sideways", "Down.", "down", "right", "right", "right"])
    (episode,) = rollout(LAKE, lambda messages: next(moves), episodes=1, seed=1, capture=False)
    assert [decision.parsed for decision in episode.decisions] == [
        *("down", None, "down", "down", "right", "right", "right")
    ]
    assert [decision.reward for decision in episode.decisions] == [0, 0, 0, 0, 0, 0, 1]
    assert [decision.observation for decision in episode.decisions] == [0, 4, 4, 8, 12, 13, 14]
    wrong = episode.decisions[1]
    assert (wrong.valid, wrong.error, wrong.response) == (
        False,
        "the answer names no action",
        "sideways",
    )
    assert "The answer names no action." in episode.decisions[2].prompt[-1]["content"]
    assert (episode.terminated, episode.truncated) == (True, False)
    assert episode.outcome == {"success": True, "return": 1.0}
    assert episode.final_prompt[-1]["content"].startswith("S H F H\nF F H F\nF F F F\nF F F P")


def test_a_truncated_episode_is_not_terminated_and_no_success():
    (episode,) = rollout(LAKE, lambda messages: "up", episodes=1, capture=False)
    assert (episode.terminated, episode.truncated, len(episode)) == (False, True, 20)
    assert episode.decisions[-1].truncated and not episode.decisions[-2].truncated
    assert episode.outcome == {"success": False, "return": 0.0}
    assert episode.final_prompt == episode.decisions[-1].prompt  # the wall held


def test_a_model_that_never_answers_is_cut_off_and_recorded_as_invalid():
    (episode,) = rollout(LAKE, lambda messages: "I am a model.", episodes=1, capture=False)
    assert [decision.valid for decision in episode.decisions] == [False] * 3
    assert episode.terminated and not episode.truncated
    assert episode.success is False


def test_what_is_returned_is_what_the_store_holds(tmp_path):
    policy = Scripted("down", "right", "hop")
    played = rollout(LAKE, policy, episodes=6, num_envs=4, root=str(tmp_path), run_id="run")
    stored = {episode.episode_id: episode for episode in simtune.read(str(tmp_path)).episodes()}
    assert len(stored) == 6
    for episode in played:
        read = stored[episode.episode_id]
        assert without_times(read) == without_times(episode)
        assert (read.run_id, read.env) == ("run", "simtune/RandomFrozenLake-v0")
        assert read.decisions[0].prompt_token_ids == [1, 2, 3]
        assert read.decisions[0].logprobs[0] == pytest.approx(-0.1, abs=1e-8)


def test_the_stored_name_can_be_made_again(tmp_path):
    (episode,) = rollout(lambda: random_map(), lambda m: "up", episodes=1, capture=False)
    assert make(episode.env).reset(seed=0)[0] == episode.decisions[0].prompt[-1]["content"]


def test_without_capture_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    played = rollout(LAKE, lambda messages: "up", episodes=2, root=str(tmp_path), capture=False)
    assert list(tmp_path.iterdir()) == []
    ids = [decision.decision_id for episode in played for decision in episode.decisions]
    assert len(set(ids)) == 40


def test_a_policy_that_raises_leaves_aborted_episodes(tmp_path):
    def fail(messages):
        raise ValueError("out of tokens")

    with pytest.raises(ValueError, match="out of tokens"):
        rollout(LAKE, fail, episodes=3, num_envs=2, root=str(tmp_path))
    stored = list(simtune.read(str(tmp_path)).episodes())
    assert [(e.aborted, len(e), e.error) for e in stored] == [
        (True, 0, "ValueError: out of tokens")
    ] * 2


def test_an_environment_is_used_as_it_is_and_stays_open():
    env = TextEnv(random_map(), actions=["w", "s", "e", "n"], instructions="Go.")
    closed = []
    env.close = lambda: closed.append(True)
    played = rollout(env, lambda messages: "n", episodes=2, capture=False)
    assert played[1].decisions[0].prompt[0] == {
        "role": "system",
        "content": "Go.\nAnswer with one of: w, s, e, n",
    }
    assert closed == []


def test_a_bare_environment_is_put_into_text():
    (episode,) = rollout(random_map(), lambda messages: "up", episodes=1, capture=False)
    assert episode.decisions[0].parsed == "up"


def test_episodes_are_reported_as_they_end():
    lengths = {0: "right", 1: "up"}  # map 0 has no hole in its first row: both go to the limit
    seen = []
    rollout(
        LAKE,
        lambda messages: lengths[0],
        episodes=4,
        num_envs=2,
        capture=False,
        on_episode=lambda episode: seen.append(episode.metadata["seed"]),
    )
    assert sorted(seen) == [0, 1, 2, 3]
    assert seen != [0, 1, 2, 3]  # seed 1 ends in the hole beside its start before seed 0 ends


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"episodes": 0}, "episodes is too small"),
        ({"num_envs": 0}, "num_envs is too small"),
        ({"policy": 3}, "the policy cannot be asked"),
        ({"policy": lambda messages: 3}, "got: 1 of \\['int'\\]"),
    ],
)
def test_arguments_that_cannot_work_are_named(arguments, message):
    with pytest.raises(OptionError, match=message):
        rollout(
            **{"env": LAKE, "policy": lambda m: "up", "episodes": 1, "capture": False, **arguments}
        )


def test_too_few_answers_are_named():
    class Short:
        def act(self, prompts):
            return ["up"]

    with pytest.raises(OptionError, match="2 answers, each a str"):
        rollout(LAKE, Short(), episodes=2, capture=False)


@pytest.mark.parametrize("env", ["no-such-env", lambda: 3])
def test_what_is_no_environment_is_named(env):
    with pytest.raises(EnvironmentSpecError):
        rollout(env, lambda m: "up", episodes=1, capture=False)
