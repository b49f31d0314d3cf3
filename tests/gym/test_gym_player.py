"""A player keeps its environments; seeds, curricula, workers and vectors change no episode."""

import os
import time
from functools import partial

import gymnasium
import msgspec
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

import simtune
from simtune.errors import EnvironmentSpecError, OptionError, WorkerError
from simtune.gym import Player, TextEnv, rollout
from simtune.gym.curriculum import load_curriculum
from simtune.gym.frozenlake import random_map
from simtune.gym.seating import check_source
from simtune.recording import recorder
from simtune.recording.segments import iter_segment

LAKE = "simtune.gym.frozenlake:random_map"
MOVES = ("left", "down", "right", "up")


class Counter(gymnasium.Env):
    """Count to the target; `options["target"]` sets it, and 13 is unlucky."""

    observation_space = spaces.Discrete(100)
    action_space = spaces.Discrete(2)
    made = 0

    def __init__(self, unlucky="raise"):
        Counter.made += 1
        self.unlucky = unlucky

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.start = 0 if seed is None else seed % 7
        self.target = (options or {}).get("target", 3)
        self.count = 0
        if seed == 13 and self.unlucky == "raise":
            raise ValueError("thirteen")
        if seed == 13:
            os._exit(3)
        return self.start, {"action_mask": np.array([1, self.start % 2], dtype=np.int8)}

    def step(self, action):
        self.count += 1
        return self.start, float(action), self.count >= self.target, False, {}


def dying():
    return Counter("die")


def hashed(messages):
    """A policy whose answer depends on what it is shown and on nothing else."""
    return MOVES[sum(map(ord, messages[-1]["content"])) % 4]


def core(episodes):
    """Episodes without ids and times."""
    return [
        (
            episode.metadata,
            episode.outcome,
            [
                msgspec.structs.replace(decision, decision_id="", ts=0, latency_us=0)
                for decision in episode.decisions
            ],
        )
        for episode in episodes
    ]


class Chooser:
    """Takes the last option it is offered."""

    decision = "choose"

    def __init__(self):
        self.offered = []

    def act(self, prompts, choices):
        self.offered += choices
        return [
            simtune.Reply(names[-1], choices=names, choice_logprobs=[-1.0] * len(names))
            for names in choices
        ]


def test_environments_are_made_once_for_all_rounds():
    Counter.made = 0
    with Player(Counter, lambda messages: "1", num_envs=3, capture=False) as player:
        first = player.play(episodes=5)
        second = player.play(episodes=5, seeds=5)
    assert Counter.made == 3
    assert [e.metadata["seed"] for e in [*first, *second]] == list(range(10))
    assert player.progress.episodes == 10


def test_seeds_are_counted_up_listed_or_computed():
    def seeds_of(seed):
        played = rollout(Counter, lambda m: "1", episodes=3, seed=seed, capture=False)
        return [episode.metadata["seed"] for episode in played]

    assert seeds_of(40) == [40, 41, 42]
    assert seeds_of([5, 5, 9, 1]) == [5, 5, 9]
    assert seeds_of(lambda index: 100 - index) == [100, 99, 98]
    with pytest.raises(OptionError, match="at least 3 seeds"):
        seeds_of([1, 2])


def test_a_curriculum_sets_options_by_what_was_reached_and_they_are_kept(tmp_path):
    seen = []

    def harder(index, stats):
        seen.append((index, stats))
        return {"target": 1 + int(stats["episodes"] // 2)}

    with Player(Counter, lambda m: "1", num_envs=1, root=str(tmp_path)) as player:
        played = [*player.play(episodes=3, curriculum=harder), *player.play(episodes=2)]
        played += player.play(episodes=1, curriculum=harder)
    assert [len(episode) for episode in played] == [1, 1, 2, 3, 3, 3]
    assert [index for index, _ in seen] == [0, 1, 2, 5]
    assert seen[0][1] == {"episodes": 0, "return": 0, "success": 0}
    assert seen[2][1] == {"episodes": 2, "return": 1, "success": 1}
    assert seen[3][1] == {"episodes": 5, "return": (1 + 1 + 2 + 3 + 3) / 5, "success": 1}
    kept = {e.episode_id: e.metadata for e in simtune.read(str(tmp_path)).episodes()}
    assert kept[played[2].episode_id] == {"seed": 2, "options": {"target": 2}}
    assert kept[played[3].episode_id] == {"seed": 0}


def test_a_curriculum_goes_on_from_a_checkpoint():
    with Player(Counter, lambda m: "1", num_envs=2, capture=False) as player:
        player.play(episodes=4)
        again = Player(Counter, lambda m: "1", num_envs=2, capture=False)
        again.progress.load_state_dict(
            msgspec.json.decode(msgspec.json.encode(player.progress.state_dict()))
        )
        assert again.progress.stats() == player.progress.stats()
    assert load_curriculum("simtune.gym.curriculum:load_curriculum") is load_curriculum
    with pytest.raises(OptionError, match="module:function"):
        load_curriculum("harder")
    with pytest.raises(EnvironmentSpecError, match="did you mean load_curriculum"):
        load_curriculum("simtune.gym.curriculum:load_curiculum")


def test_workers_play_the_same_episodes_in_the_same_order():
    settings = {"episodes": 9, "seed": 50, "num_envs": 4, "capture": False, "history": 2}
    alone = core(rollout(LAKE, hashed, **settings))
    assert core(rollout(LAKE, hashed, workers=2, **settings)) == alone
    assert core(rollout(LAKE, hashed, workers=3, worker_kind="thread", **settings)) == alone
    assert core(rollout(LAKE, hashed, **(settings | {"num_envs": 1}))) == alone


def test_threads_wait_together():
    class Slow(Counter):
        def step(self, action):
            time.sleep(0.05)
            return super().step(action)

    started = time.perf_counter()
    rollout(
        Slow, lambda m: "1", episodes=8, num_envs=8, capture=False, workers=8, worker_kind="thread"
    )
    assert time.perf_counter() - started < 8 * 3 * 0.05 / 2


def test_a_worker_that_dies_is_named_and_its_episodes_are_kept_as_aborted(tmp_path):
    with pytest.raises(WorkerError, match=r"worker 1, .* died\n  got: exit code 3"):
        rollout(
            dying,
            lambda m: "1",
            episodes=2,
            seed=[0, 12, 1, 13],
            num_envs=2,
            workers=2,
            root=str(tmp_path / "none"),
        )
        rollout(
            dying,
            lambda m: "1",
            episodes=4,
            seed=[0, 12, 1, 13],
            num_envs=2,
            workers=2,
            root=str(tmp_path / "some"),
        )
    played = {e.metadata["seed"]: e for e in simtune.read(str(tmp_path / "some")).episodes()}
    assert all(episode.ended for episode in played.values())
    assert played[0].terminated and not played[0].aborted


def test_an_environment_that_raises_in_a_worker_is_quoted():
    with pytest.raises(WorkerError, match="worker 0: ValueError: thirteen") as caught:
        rollout(Counter, lambda m: "1", episodes=1, seed=13, capture=False, workers=1)
    assert 'raise ValueError("thirteen")' in str(caught.value)


def test_an_environment_that_raises_here_goes_on_its_way_and_leaves_aborted_episodes(tmp_path):
    with pytest.raises(ValueError, match="thirteen"):
        rollout(Counter, lambda m: "1", episodes=3, seed=[1, 2, 13], num_envs=2, root=str(tmp_path))
    ended = {e.metadata["seed"]: e.aborted for e in simtune.read(str(tmp_path)).episodes()}
    assert ended[1] is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"env": lambda: Counter(), "workers": 2}, "cannot be made in another process"),
        ({"env": TextEnv(random_map()), "workers": 2}, "cannot step one that exists"),
        ({"env": LAKE, "workers": -1}, "there are no such workers"),
        ({"env": LAKE, "workers": 1, "worker_kind": "fork"}, "there are no such workers"),
        ({"env": LAKE, "history": -1}, "history cannot be used"),
    ],
)
def test_what_cannot_be_had_is_named(arguments, message):
    with pytest.raises(OptionError, match=message):
        rollout(policy=lambda m: "up", episodes=1, capture=False, **arguments)


def test_a_policy_that_chooses_is_offered_the_legal_actions(tmp_path):
    policy = Chooser()
    first, second = rollout(Counter, policy, episodes=2, num_envs=1, root=str(tmp_path))
    # Seed 0 masks action 1 at its start; afterwards this environment gives no mask.
    assert policy.offered[:3] == [("0",), ("0", "1"), ("0", "1")]
    assert first.total_reward == 2
    assert (second.decisions[0].choices, second.decisions[0].response) == (["0", "1"], "1")
    stored = {e.metadata["seed"]: e for e in simtune.read(str(tmp_path)).episodes()}
    assert stored[0].decisions[0].choices == ["0"]
    assert stored[0].decisions[0].choice_logprobs == [-1.0]


def test_taxi_offers_its_mask():
    env = TextEnv(gymnasium.make("Taxi-v4"))
    _, info = env.reset(seed=0)
    legal = [name for name, ok in zip(env.action_names, info["action_mask"], strict=True) if ok]
    assert env.choices == tuple(legal)
    assert 0 < len(legal) < 6


def test_options_are_needed_to_choose():
    class Bare(gymnasium.Env):
        observation_space = action_space = spaces.Text(9)

        def reset(self, *, seed=None, options=None):
            return "go", {}

    with pytest.raises(EnvironmentSpecError, match="the environment names none"):
        rollout(Bare(), Chooser(), episodes=1, capture=False)


def test_a_growing_chat_holds_what_was_shown_and_said():
    (episode,) = rollout(LAKE, hashed, episodes=1, seed=3, capture=False, history="full")
    assert len(episode) > 2
    for before, after in zip(episode.decisions, episode.decisions[1:], strict=False):
        assert after.prompt[: len(before.prompt)] == before.prompt
        assert after.prompt[len(before.prompt)] == {
            "role": "assistant",
            "content": before.response,
        }
    (short,) = rollout(LAKE, hashed, episodes=1, seed=3, capture=False, history=1)
    assert [len(d.prompt) for d in short.decisions[:4]] == [2, 4, 4, 4]
    env = TextEnv(random_map(), history="full")
    env.reset(seed=1)
    env.step("hop")
    observation, _ = env.reset(seed=1)
    assert len(env.messages(observation)) == 2


def vector(kind, **settings):
    return kind([random_map] * 3, **({"autoreset_mode": AutoresetMode.DISABLED} | settings))


def test_the_parts_of_a_vector_environment_play_like_environments_of_their_own():
    expected = core(rollout(LAKE, hashed, episodes=7, num_envs=3, capture=False))
    parts = vector(SyncVectorEnv)
    played = rollout(parts, hashed, episodes=7, capture=False)
    assert core(played) == expected
    parts.close()


def three_lakes(**settings):
    return vector(SyncVectorEnv, **settings)


def test_a_spec_can_name_a_vector_environment():
    expected = core(rollout(LAKE, hashed, episodes=7, num_envs=3, capture=False))
    assert core(rollout(f"{__name__}:three_lakes", hashed, episodes=7, capture=False)) == expected


def test_workers_do_not_step_a_vector_environment():
    check_source(three_lakes)
    with pytest.raises(OptionError, match="cannot step one that exists"):
        check_source(three_lakes, workers=2)
    with pytest.raises(WorkerError, match="cannot step one that exists"):
        rollout(three_lakes, hashed, episodes=2, capture=False, workers=1)


def test_a_vector_environment_is_looked_at_before_anything_else():
    asynchronous = partial(vector, AsyncVectorEnv, autoreset_mode=AutoresetMode.NEXT_STEP)
    with pytest.raises(EnvironmentSpecError, match=r"expected: AutoresetMode\.DISABLED"):
        check_source(asynchronous)


def test_a_vector_that_moves_at_once_gives_each_episode_its_seed():
    def walk(messages):
        return "12"[int(messages[-1]["content"]) % 2]

    def alone():
        return TextEnv(
            random_map(),
            render=lambda seen, env: str(seen),
            actions=["0", "1", "2", "3"],
            instructions="You act in the environment simtune/RandomFrozenLake-v0.",
        )

    expected = core(rollout(alone, walk, episodes=5, num_envs=2, seed=20, capture=False))
    played = rollout(
        lambda: vector(AsyncVectorEnv, shared_memory=False),
        walk,
        episodes=5,
        seed=20,
        capture=False,
    )
    assert core(played) == expected


def test_in_a_vector_an_unusable_answer_ends_its_episode():
    played = rollout(lambda: vector(AsyncVectorEnv), lambda m: "what?", episodes=4, capture=False)
    assert [(len(e), e.terminated, e.success) for e in played] == [(1, True, False)] * 4


def test_a_vector_that_resets_itself_is_refused():
    parts = gymnasium.make_vec("CartPole-v1", num_envs=2, vectorization_mode="vector_entry_point")
    with pytest.raises(EnvironmentSpecError, match=r"expected: AutoresetMode\.DISABLED"):
        rollout(parts, lambda m: "0", episodes=1, capture=False)
    parts.close()


def test_what_was_played_is_in_the_log_before_anyone_learns_from_it(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "FLUSH_SECONDS", 3600)  # the background thread does nothing
    with Player(random_map, hashed, num_envs=2, root=str(tmp_path)) as player:
        player.play(episodes=2)
    rows = [row for path in sealed_or_live(tmp_path) for _, row in iter_segment(path)]
    assert [row.kind for row in rows].count("episode_end") == 2


def sealed_or_live(root):
    return sorted((root / "wal").glob("*.wal"))
