"""A simulation of the user's own: captured, looked at, scored, trained on, played, registered."""

import json
import math
import sqlite3
from pathlib import Path

import duckdb
import pytest

SIMULATION = '''
"""A corridor with two doors; the sign says which one is open."""
import json
import random

import simtune

WAYS = ("left", "right")
chance = random.Random(0)


def parse(answer):
    return WAYS.index(answer)


@simtune.capture(agent="walker", parse=parse)
def ask(messages):
    return chance.choice([*WAYS, "I would rather stay"])


simtune.configure(root="store")
rewards = 0
for seed in range(12):
    with simtune.episode(env="corridor", seed=seed) as episode:
        good = 0
        for _ in range(3):
            way = chance.choice(WAYS)
            answer = ask([{"role": "user", "content": f"The sign says {way}. left or right?"}])
            simtune.reward(float(answer == way))
            good += answer == way
        episode.finish(terminated=True, outcome={"success": good >= 2})
        rewards += good
simtune.flush()
print(json.dumps({"episodes": 12, "decisions": 36, "rewards": rewards}))
'''

BREVITY = """
import simtune


def brevity(episode):
    return [1.0 / len(decision.response) for decision in episode.decisions]


@simtune.hookimpl
def simtune_register_rewards(register):
    register("brevity", brevity, version="7")
"""

LAKE = ("--env", "simtune.demo.lake:lake")
SMALL = ("--iterations", "2", "--episodes-per-iteration", "8", "--max-new-tokens", "4")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Where the user works: stores, models and runs of this module."""
    place = tmp_path_factory.mktemp("loop")
    (place / "simulation.py").write_text(SIMULATION)
    (place / "brevity.py").write_text(BREVITY)
    return place


@pytest.fixture(scope="module")
def captured(place, python):
    """What the simulation says it did."""
    return json.loads(python("simulation.py", cwd=place).out)


@pytest.fixture(scope="module")
def sft(place, captured, base, simtune):
    """The record of an adapter trained on the captured episodes, scored by the user's plugin."""
    rewards = ("--reward", "environment", "--reward", "brevity=0.5", "--plugin", "brevity.py")
    data = ("--store", "store", *rewards, "--top-fraction", "0.5")
    flags = ("--epochs", "2", "--batch-size", "4", "--description", "first try", "--json")
    return json.loads(simtune("train", "sft", "--llm-path", base, *data, *flags, cwd=place).out)


@pytest.fixture(scope="module")
def ppo(place, base, simtune):
    """The record of an adapter that learned from its own roll-outs."""
    flags = (*LAKE, *SMALL, "--capture-root", "lake", "--json")
    return json.loads(simtune("train", "ppo", "--llm-path", base, *flags, cwd=place).out)


@pytest.fixture(scope="module")
def replayed(place, base, ppo, simtune):
    """The record of an adapter that learned from those roll-outs again, now as a log."""
    flags = ("--store", "lake", "--iterations", "2", "--adapter", ppo["id"], "--json")
    return json.loads(simtune("train", "ppo", "--llm-path", base, *flags, cwd=place).out)


def stats(simtune, place, store):
    return json.loads(simtune("episodes", "stats", "--store", store, "--json", cwd=place).out)


def in_files(store):
    """Episodes, decisions and rewards as any reader of Parquet finds them."""
    rows = duckdb.sql(
        "SELECT count(DISTINCT episode_id) FILTER (kind <> 'reward'), "
        "count(*) FILTER (kind = 'decision'), coalesce(sum(reward), 0) "
        f"FROM read_parquet('{store}/data/v1/*.parquet')"
    ).fetchall()
    return rows[0]


def test_what_was_captured_is_what_the_simulation_did(place, captured, simtune):
    found = stats(simtune, place, "store")
    assert found["counts"]["episodes"] == found["counts"]["ended"] == captured["episodes"]
    assert found["counts"]["decisions"] == captured["decisions"]
    (group,) = found["groups"]
    assert (group["env"], group["adapter"]) == ("corridor", None)
    assert group["mean_return"] == pytest.approx(captured["rewards"] / captured["episodes"])
    assert in_files(place / "store") == (12, 36, captured["rewards"])


def test_answers_that_cannot_be_parsed_are_kept(place, captured, simtune):
    found = stats(simtune, place, "store")
    said = duckdb.sql(
        "SELECT response = 'I would rather stay', valid, count(*) "
        f"FROM read_parquet('{place}/store/data/v1/*.parquet') WHERE kind = 'decision' "
        "GROUP BY ALL ORDER BY valid"
    ).fetchall()
    (stays, invalid, odd), (moves, valid, usual) = said
    assert (stays, invalid) == (True, False) and (moves, valid) == (False, True)
    assert odd > 0 and found["groups"][0]["valid"] == pytest.approx(usual / 36)


def test_ls_has_a_line_for_every_episode(place, captured, simtune):
    listed = json.loads(simtune("episodes", "ls", "--store", "store", "--json", cwd=place).out)
    assert len(listed) == 12
    assert {episode["env"] for episode in listed} == {"corridor"}
    assert sum(episode["reward"] for episode in listed) == captured["rewards"]
    table = simtune("episodes", "ls", "--store", "store", cwd=place).out
    assert all(episode["episode_id"] in table for episode in listed)


def test_scores_lie_beside_the_episodes_and_change_none(place, captured, simtune, files):
    simtune("episodes", "stats", "--store", "store", cwd=place)
    before = files(place / "store" / "data")
    rewards = ("--reward", "success", "--reward", "brevity", "--plugin", "brevity.py")
    said = json.loads(simtune("score", "--store", "store", *rewards, "--json", cwd=place).out)
    assert files(place / "store" / "data") == before
    assert [(one["name"], one["version"], one["scored"]) for one in said] == [
        ("success", "1", 12),
        ("brevity", "7", 12),
    ]
    found = duckdb.sql(
        "SELECT scorer, scorer_version, count(decision_id), "
        "avg(score) FILTER (decision_id IS NULL), sum(score) FILTER (decision_id IS NOT NULL) "
        f"FROM read_parquet('{place}/store/scores/v1/*/*.parquet') GROUP BY ALL ORDER BY 1"
    ).fetchall()
    expected = duckdb.sql(
        "SELECT sum(1.0 / length(response)) "
        f"FROM read_parquet('{place}/store/data/v1/*.parquet') WHERE kind = 'decision'"
    ).fetchall()[0][0]
    brevity, success = found
    assert brevity[:3] == ("brevity", "7", 36)
    assert brevity[4] == pytest.approx(expected)
    assert said[1]["mean"] == pytest.approx(brevity[3]) == pytest.approx(expected / 12)
    assert success == ("success", "1", 0, said[0]["mean"], None)


def test_the_record_says_what_was_learned_from_what(base, sft, captured):
    assert (sft["method"], sft["type"], sft["status"]) == ("sft", "fine_tuned", "candidate")
    assert (sft["base_model"], sft["version"], sft["parent"]) == (str(base), 1, None)
    assert sft["description"] == "first try"
    data = sft["data"]
    assert (data["source"], data["root"], data["episodes"]) == ("store", "store", 6)
    assert [(each["name"], each["version"], each["weight"]) for each in data["rewards"]] == [
        ("environment", "1", 1.0),
        ("brevity", "7", 0.5),
    ]
    # Of six episodes with three decisions each, all that were valid answers.
    assert data["skipped"] == {
        "episodes outside the top fraction": 6,
        "invalid decisions": 18 - data["decisions"],
    }
    assert sft["parameters"]["batch_size"] == 4 and sft["parameters"]["top_fraction"] == 0.5
    assert len(data["digest"]) == len(sft["weights_sha256"]) == 64


def test_the_registry_file_holds_the_records_that_were_printed(place, sft, ppo, replayed, simtune):
    registry = json.loads((place / "models" / "registry.json").read_bytes())
    assert registry == {"format": 1, "models": registry["models"], "history": []}
    by_id = {record["id"]: record for record in registry["models"]}
    assert by_id == {record["id"]: record for record in (sft, ppo, replayed)}
    assert json.loads(simtune("models", "ls", "--json", cwd=place).out) == registry["models"]
    shown = simtune("models", "show", "latest", "--json", cwd=place).out
    assert json.loads(shown) == registry["models"][-1]
    for record in by_id.values():
        files = [path for path in (place / "models" / record["path"]).iterdir()]
        assert sum(path.stat().st_size for path in files) == record["size_bytes"]
        assert {"adapter_config.json", "adapter_model.safetensors", "chat_template.jinja"} <= {
            path.name for path in files
        }


def test_ppo_learns_from_what_it_captured(place, ppo, simtune):
    data, counts = ppo["data"], stats(simtune, place, "lake")["counts"]
    assert (data["source"], data["root"], data["episodes"]) == ("env", "lake", 16)
    assert (counts["episodes"], counts["decisions"]) == (16, data["decisions"])
    assert in_files(place / "lake")[:2] == (16, data["decisions"])
    assert ppo["parameters"]["env"] == "simtune.demo.lake:lake"
    assert {"return", "success", "policy_loss", "value_loss", "entropy"} <= ppo["metrics"].keys()


def test_the_captured_tokens_are_those_of_the_policy(place, ppo):
    rows = duckdb.sql(
        "SELECT len(prompt_token_ids), len(token_ids), len(logprobs), list_max(logprobs), adapter "
        f"FROM read_parquet('{place}/lake/data/v1/*.parquet') WHERE kind = 'decision'"
    ).fetchall()
    assert all(
        prompt > 0 and 1 <= answer == known <= 4 and p <= 0 for prompt, answer, known, p, _ in rows
    )
    # The first round only fits the critic, so both rounds played with one set of weights.
    assert len({adapter for *_, adapter in rows}) == 1


def test_ppo_learns_from_a_log_as_well(place, ppo, replayed):
    assert replayed["parent"] == ppo["id"]
    assert (replayed["data"]["source"], replayed["data"]["root"]) == ("store", "lake")
    assert replayed["data"]["digest"] == ppo["data"]["digest"]
    assert replayed["data"]["decisions"] == ppo["data"]["decisions"]
    assert (replayed["name"], replayed["version"]) == (ppo["name"], 2)
    assert replayed["weights_sha256"] != ppo["weights_sha256"]


def test_mlflow_has_parameters_curves_and_artifacts(place, sft, ppo):
    with sqlite3.connect(place / "mlruns" / "mlflow.db") as database:

        def found(table, columns, record):
            return database.execute(
                f"SELECT {columns} FROM {table} WHERE run_uuid = ?", [record["mlflow_run_id"]]
            ).fetchall()

        for record in (sft, ppo):
            ((status, artifacts),) = found("runs", "status, artifact_uri", record)
            assert status == "FINISHED"
            logged = {path.name for path in (Path(artifacts) / "adapter").iterdir()}
            kept = {path.name for path in (place / "models" / record["path"]).iterdir()}
            assert logged == kept
            params = dict(found("params", "key, value", record))
            assert params.keys() >= record["parameters"].keys()
            assert params["learning_rate"] == str(record["parameters"]["learning_rate"])
        loss = [value for key, value in found("metrics", "key, value", sft) if key == "loss"]
        steps = 2 * math.ceil(sft["data"]["decisions"] / 4)
        assert len(loss) == steps
        assert sum(loss[-2:]) < sum(loss[:2])
        lengths = [step for key, step in found("metrics", "key, step", ppo) if key == "length"]
        assert sorted(lengths) == [1, 2]


def test_eval_plays_the_base_and_the_adapter_on_the_same_seeds(place, ppo, simtune):
    models = ("--model", "base", "--model", ppo["id"], "--episodes", "8")
    said = json.loads(
        simtune("eval", *LAKE, *models, "--max-new-tokens", "4", "--json", cwd=place).out
    )
    assert [policy["label"] for policy in said["policies"]] == [
        "base greedy",
        "base sampled",
        f"{ppo['id']} greedy",
        f"{ppo['id']} sampled",
    ]
    for policy in said["policies"]:
        assert (policy["episodes"], policy["seed"], len(policy["returns"])) == (8, 0, 8)
        rate = policy["success"]
        assert rate["estimate"] == sum(policy["successes"]) / 8
        assert 0 <= rate["low"] <= rate["estimate"] <= rate["high"] <= 1
    assert [difference["of"] for difference in said["differences"]] == [
        f"{ppo['id']} greedy",
        f"{ppo['id']} sampled",
    ]
