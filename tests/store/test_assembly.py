"""Rows -> episodes, for orders and contents that a single tidy writer does not produce."""

import pytest
from store_rows import OTHER, WRITER, decision, end, reward, start, write_segment

from simtune.store import read
from simtune.store.assembly import json_value, mapping, messages, outcome_of


def test_order_is_seq_within_a_writer_and_writers_by_when_they_began(tmp_path):
    # The second process resumed the episode; its clock then went back.
    late = 1_800_000_000_000_000
    write_segment(tmp_path, [decision(step=2, ts=late), decision(step=3, ts=5 + late // 2)])
    write_segment(
        tmp_path, [start(), decision(step=0, ts=100), decision(step=1, ts=90)], writer=OTHER
    )
    (episode,) = read(tmp_path).episodes()
    assert [each.decision_id for each in episode.decisions] == [
        f"{OTHER}-1",
        f"{OTHER}-2",
        f"{WRITER}-0",
        f"{WRITER}-1",
    ]


def test_agents_take_turns_and_each_ones_last_decision_is_closed(tmp_path):
    turns = [
        decision(step=step, agent_id=agent, terminated=None)
        for step in range(2)
        for agent in ("cross", "nought")
    ]
    write_segment(tmp_path, [start(), *turns, end(terminated=True)])
    (episode,) = read(tmp_path).episodes()
    assert [(d.agent_id, d.step, d.terminated) for d in episode.decisions] == [
        ("cross", 0, False),
        ("nought", 0, False),
        ("cross", 1, True),
        ("nought", 1, True),
    ]


def test_terminated_and_truncated_stay_apart(tmp_path):
    write_segment(
        tmp_path,
        [
            *(start("cut"), decision("cut"), end("cut", truncated=True)),
            *(start("said"), decision("said", terminated=True), end("said")),
            *(start("open"), decision("open")),
        ],
    )
    store = read(tmp_path)
    flags = {
        each.episode_id: (each.terminated, each.truncated, each.decisions[-1].truncated)
        for each in store.episodes()
    }
    assert flags == {
        "cut": (False, True, True),
        "said": (True, False, False),
        "open": (False, False, False),
    }
    table = store.summary().to_pydict()
    assert dict(zip(table["episode_id"], table["terminated"], strict=True)) == {
        "cut": False,
        "said": True,
        "open": False,
    }


def test_a_decision_without_any_reward_has_none(tmp_path):
    rows = [decision(reward=None), decision(step=1, reward=None), reward(f"{WRITER}-1", -1.0)]
    write_segment(tmp_path, rows)
    (episode,) = read(tmp_path).episodes()
    assert [each.reward for each in episode.decisions] == [None, -1.0]
    assert episode.total_reward == -1.0


def test_the_final_prompt_and_its_tokens(tmp_path):
    final = [{"role": "user", "content": "and now?"}]
    write_segment(tmp_path, [decision(), end(prompt=final, prompt_token_ids=[4, 5])])
    (episode,) = read(tmp_path).episodes()
    assert (episode.final_prompt, episode.final_prompt_token_ids) == (final, [4, 5])


def test_an_episode_of_a_start_alone(tmp_path):
    write_segment(tmp_path, [start(env="lake")])
    (episode,) = read(tmp_path).episodes()
    assert (episode.env, len(episode), episode.ended, episode.final_prompt) == (
        "lake",
        0,
        False,
        [],
    )


@pytest.mark.parametrize(
    ("stored", "value"),
    [
        (None, {}),
        ("null", {}),
        ('{"a":1}', {"a": 1}),
        ("[1]", {"value": [1]}),
        ("{not json", {"value": "{not json"}),
        ("[" * 100_000, {"value": "[" * 100_000}),
    ],
)
def test_json_columns_that_should_hold_an_object(stored, value):
    assert mapping(stored) == value


def test_json_values_and_outcomes():
    assert json_value('"left"') == "left"
    assert json_value("left") == "left"
    assert outcome_of('{"outcome":{"success":true},"aborted":false}') == {"success": True}
    assert outcome_of('{"outcome":"won"}') == {"value": "won"}
    assert outcome_of(None) == {}


@pytest.mark.parametrize(
    "extra",
    [
        {"converted": "all of it", "prompt_fields": 3},
        {"converted": {"prompt[9].content": "was list, as JSON", "prompt[0].x": None}},
        {"prompt_fields": {"9": {"a": 1}, "x": {}, "0": "text", "-1": {"a": 1}}},
    ],
)
def test_notes_of_someone_elses_making_change_nothing(extra):
    prompt = [{"role": "user", "content": "hi", "name": None}]
    assert messages(prompt, extra) == [{"role": "user", "content": "hi"}]
