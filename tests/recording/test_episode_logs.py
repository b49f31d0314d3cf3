"""`simtune.episode`: what groups decisions, and how it ends."""

import asyncio
import threading
from collections.abc import Mapping

import numpy as np
import pytest
from read_back import said

import simtune
from simtune.recording import open_episode
from simtune.recording.guard import failures


def test_an_episode_is_a_start_its_decisions_and_an_end(store):
    with simtune.episode(env="maze", agent="a", seed=7, level="hard") as log:
        first = log.decision("left or right?", "left", observation={"x": 1}, metadata={"k": 2})
        second = log.decision([{"role": "user", "content": "and now?"}], "right", reward=0.5)
        log.finish(terminated=True, outcome={"success": True}, final_prompt="what next?")
    items = store.items()
    start, one, two, end = [row for _, row in items]
    assert [row.kind for row in (start, one, two, end)] == [
        "episode_start",
        "decision",
        "decision",
        "episode_end",
    ]
    assert {row.episode_id for row in (start, one, two, end)} == {log.id}
    assert {(row.env, row.agent_id) for row in (start, one, two, end)} == {("maze", "a")}
    assert said(start.metadata) == {"seed": 7, "level": "hard"}
    assert [items[1][0], items[2][0]] == [first, second]
    assert (one.step, two.step) == (0, 1)
    assert one.prompt == [{"role": "user", "content": "left or right?"}]
    assert (one.response, one.valid, one.reward) == ("left", True, None)
    assert said(one.observation) == {"x": 1}
    assert said(one.metadata) == {"k": 2}
    assert two.reward == 0.5
    assert (end.terminated, end.truncated, end.step) == (True, False, 2)
    assert said(end.metadata) == {"outcome": {"success": True}, "aborted": False}
    assert end.prompt == [{"role": "user", "content": "what next?"}]
    assert one.ts > 1_700_000_000_000_000
    assert one.mono_ns <= two.mono_ns


def test_an_exception_aborts_the_episode_and_goes_on(store):
    with pytest.raises(KeyError, match="lost"), simtune.episode() as log:
        log.decision("p", "r")
        raise KeyError("lost")
    end = store.only("episode_end")
    assert said(end.metadata)["aborted"] is True
    assert end.error == "KeyError: 'lost'"
    assert (end.terminated, end.truncated) == (None, None)
    assert len(store.rows("decision")) == 1


def test_an_end_nobody_declared_is_the_last_decisions(store):
    with simtune.episode() as log:
        log.decision("p", "r", terminated=False, truncated=True)
    end = store.only("episode_end")
    assert (end.terminated, end.truncated) == (False, True)


def test_finish_counts_once(store):
    with simtune.episode() as log:
        log.finish(truncated=True)
        log.finish(terminated=True)
    end = store.only("episode_end")
    assert (end.terminated, end.truncated) == (False, True)


def test_rewards_refer_to_their_decision(store):
    with simtune.episode() as log:
        first = log.decision("p", "a")
        second = log.decision("p", "b")
        simtune.reward(1)
        log.reward(np.float32(0.25), decision=first)
    rewards = [(row.target, row.reward) for row in store.rows("reward")]
    assert rewards == [(second, 1.0), (first, 0.25)]


def test_a_named_decision_is_rewarded_after_its_episode(store):
    with simtune.episode() as log:
        decided = log.decision("p", "a")
    simtune.reward(2.0, decision=decided)
    log.reward(3.0)
    assert [(row.target, row.reward) for row in store.rows("reward")] == [
        (decided, 2.0),
        (decided, 3.0),
    ]


def test_a_reward_without_a_decision_is_a_warning_and_not_an_error(store):
    with simtune.episode() as log, pytest.warns(RuntimeWarning, match="no decision to reward"):
        simtune.reward(1.0)
        log.reward(1.0)
    assert failures() == {"CaptureError": 2}
    assert store.rows("reward") == []


class Unreadable(Mapping):
    """A mapping that breaks where it is looked at, as a view of a closed database does."""

    def __getitem__(self, key):
        raise ConnectionError(key)

    def __iter__(self):
        raise ConnectionError("closed")

    def __len__(self):
        return 1


def test_a_reward_never_goes_to_the_decision_before_one_that_could_not_be_kept(store):
    ask = simtune.capture(lambda prompt, result: result, parse=lambda result: Unreadable())
    with simtune.episode() as log, pytest.warns(RuntimeWarning):
        log.decision("p", "a")
        log.decision("p", "b", parsed=Unreadable())
        log.reward(1.0)
        log.decision("p", "c")
        ask("p", "d")
        log.reward(1.0)
    assert failures() == {"ConnectionError": 2, "CaptureError": 2}
    assert [row.response for row in store.rows("decision")] == ["a", "c"]
    assert store.rows("reward") == []


def test_episodes_nest_per_agent(store):
    @simtune.capture(agent="a")
    def ask_a(prompt):
        return "A"

    @simtune.capture(agent="b")
    def ask_b(prompt):
        return "B"

    @simtune.capture
    def ask(prompt):
        return "?"

    with simtune.episode(env="both") as both, simtune.episode(agent="a") as only_a:
        ask_a("1")
        ask_b("2")
        ask("3")
    assert [(row.episode_id, row.agent_id) for row in store.rows("decision")] == [
        (only_a.id, "a"),
        (both.id, "b"),
        (only_a.id, "a"),
    ]


def test_steps_count_per_agent(store):
    with simtune.episode() as log:
        for agent in ("a", "b", "a", None):
            log.decision("p", "r", agent=agent)
    assert [row.step for row in store.rows("decision")] == [0, 0, 1, 0]
    assert store.only("episode_end").step == 4


def test_many_episodes_can_be_open_at_a_time(store):
    logs = [open_episode(env="vector", seed=seed, run_id="run") for seed in range(3)]
    for log in reversed(logs):
        log.decision("p", "r", reward=1.0)
        log.finish(terminated=True)
    assert [row.episode_id for row in store.rows("episode_start")] == [log.id for log in logs]
    assert {row.run_id for row in store.rows()} == {"run"}


def test_an_episode_may_go_to_another_store(store, tmp_path):
    with simtune.episode(root=tmp_path / "other") as log:
        log.decision("p", "r")
    assert store.rows() == []
    assert (tmp_path / "other" / "wal").is_dir()


def test_two_hundred_tasks_each_see_their_own_episode(store):
    @simtune.capture
    async def ask(prompt):
        await asyncio.sleep(0.001)
        return prompt

    async def play(number):
        async with simtune.episode(seed=number):
            for step in range(3):
                await ask(f"{number}/{step}")
                simtune.reward(number)

    async def play_all():
        await asyncio.gather(*(play(number) for number in range(200)))

    asyncio.run(play_all())
    items = store.items()
    seeds = {
        row.episode_id: said(row.metadata)["seed"]
        for _, row in items
        if row.kind == "episode_start"
    }
    decisions = {id_: row for id_, row in items if row.kind == "decision"}
    assert len(seeds) == 200
    assert len(decisions) == 600
    for row in decisions.values():
        assert row.response == f"{seeds[row.episode_id]}/{row.step}"
    for row in (row for _, row in items if row.kind == "reward"):
        assert row.reward == seeds[decisions[row.target].episode_id]


def test_threads_may_share_an_episode(store):
    with simtune.episode() as log:
        threads = [
            threading.Thread(target=lambda: [log.decision("p", "r") for _ in range(50)])
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(row.step for row in store.rows("decision")) == list(range(400))
    assert store.only("episode_end").step == 400


def test_plugins_hear_of_it_and_may_redact_the_row(store, plugin):
    heard = []

    class Listener:
        @simtune.hookimpl
        def simtune_episode_start(self, episode_id, env, metadata):
            heard.append(("start", episode_id, env, metadata))

        @simtune.hookimpl
        def simtune_decision(self, row):
            row.prompt[0]["content"] = row.prompt[0]["content"].replace("secret", "***")
            heard.append(("decision", row.response))

        @simtune.hookimpl
        def simtune_episode_end(self, episode_id, terminated, truncated, outcome):
            heard.append(("end", episode_id, terminated, truncated, outcome))

    plugin(Listener())
    asked = [{"role": "user", "content": "the secret word"}]
    with simtune.episode(env="e", seed=1) as log:
        log.decision(asked, "yes")
        log.finish(terminated=True, outcome={"success": False})
    assert heard == [
        ("start", log.id, "e", {"seed": 1}),
        ("decision", "yes"),
        ("end", log.id, True, False, {"success": False}),
    ]
    assert store.only().prompt == [{"role": "user", "content": "the *** word"}]
    assert asked[0]["content"] == "the secret word"


def test_a_plugin_that_raises_costs_no_row(store, plugin):
    class Broken:
        @simtune.hookimpl
        def simtune_decision(self, row):
            raise ValueError("plugin bug")

    plugin(Broken())
    with pytest.warns(RuntimeWarning, match="plugin bug"), simtune.episode() as log:
        log.decision("p", "r")
    assert store.only().response == "r"
