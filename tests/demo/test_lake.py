from simtune.demo import lake
from simtune.demo.sizes import HELD_OUT_SEED
from simtune.gym import rollout


def asked(*lines):
    return [{"role": "system", "content": "..."}, {"role": "user", "content": "\n".join(lines)}]


DEAD_END = asked(
    "F F P H",
    "F H H F",
    "F F F F",
    "F F F G",
    "left ice, down hole, right hole, up wall",
)


def test_heuristic_turns_back_at_a_dead_end_and_oracle_knows_the_way_round():
    assert lake.heuristic(DEAD_END) == "left"
    assert lake.oracle(DEAD_END) == "left"


def test_heuristic_walks_into_a_dead_end_that_the_oracle_avoids():
    before = asked(
        "F P F H",
        "F F H F",
        "F F F F",
        "F F F G",
        "left ice, down ice, right ice, up wall",
    )
    assert lake.heuristic(before) == "right"
    assert lake.oracle(before) == "down"


def test_on_the_held_out_maps_the_oracle_always_arrives_and_the_heuristic_often_does_not():
    solved = {
        policy.__name__: sum(
            episode.success
            for episode in rollout(
                lake.lake, policy, episodes=200, seed=HELD_OUT_SEED, capture=False, num_envs=32
            )
        )
        for policy in (lake.oracle, lake.heuristic)
    }
    assert solved["oracle"] == 200
    assert 120 <= solved["heuristic"] <= 160


def test_the_prompt_is_short_and_shows_map_and_neighbours():
    environment = lake.lake()
    observation, _ = environment.reset(seed=5)
    system, user = environment.messages(observation)
    assert system["content"] == "Walk to G.\nAnswer with one of: left, down, right, up"
    rows = user["content"].splitlines()
    assert [len(row.split()) for row in rows[:4]] == [4, 4, 4, 4]
    assert rows[0].startswith("P ")
    assert rows[4].startswith("left wall, down ")
