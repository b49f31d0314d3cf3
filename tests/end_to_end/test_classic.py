"""The surface of the classic tuning script: its flags, its file, and the one call in Python."""

import json

import pytest
from safetensors.torch import load_file

import simtune as package

QUESTION = "which way?"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("classic")


def write(place, name, rows):
    (place / name).write_text(json.dumps(rows))
    return name


def row(output, **columns):
    return {"prompt": QUESTION, "output": output, **columns}


@pytest.fixture(scope="module")
def rated(place):
    """Ten good answers, ten bad ones, ten bad ones with a rewrite, three without rating."""
    good = [row("left", rating=5) for _ in range(10)]
    bad = [row("right", rating=1, reason="a wall") for _ in range(10)]
    rewritten = [row("right", rating=1, feedback="up") for _ in range(10)]
    unrated = [row("down") for _ in range(3)]
    return write(place, "rated.json", [*good, *bad, *rewritten, *unrated])


def test_sft_imitates_good_answers_and_rewrites(place, bare_base, rated, simtune):
    flags = ("--llm_path", bare_base, "--dataset_path", rated, "--experiment_name", "classic")
    ended = simtune("train", "--tuning_mode", "sft", *flags, "--epochs", "1", cwd=place)
    assert "decisions" in ended.out and "3 unrated" in ended.out
    (record,) = json.loads((place / "models" / "registry.json").read_bytes())["models"]
    assert (record["method"], record["data"]["source"]) == ("sft", "file")
    assert record["data"]["decisions"] == 20
    assert record["data"]["skipped"] == {"unrated": 3, "rated below 3": 10}
    assert record["parameters"]["experiment_name"] == "classic"
    assert (place / "mlruns" / "mlflow.db").is_file()


def test_ppo_takes_the_reward_column_of_json_lines(place, bare_base, simtune):
    rows = [row("left", reward=1.5), row("right", reward=-0.5), row("down"), row("", reward=9)] * 8
    (place / "rewarded.jsonl").write_text("\n".join(map(json.dumps, rows)))
    flags = ("--llm_path", bare_base, "--dataset_path", "rewarded.jsonl", "--models-dir", "ppo")
    small = ("--iterations", "2", "--learning-rate", "0.01", "--json")
    ended = simtune("train", "--tuning_mode", "ppo", *flags, *small, cwd=place)
    record = json.loads(ended.out)
    assert (record["method"], record["data"]["decisions"]) == ("ppo", 16)
    assert record["data"]["skipped"] == {"unrated, or without an output": 8, "empty output": 8}
    assert record["metrics"]["rating_mean"] == 0.5
    weights = load_file(place / "ppo" / record["path"] / "adapter_model.safetensors")
    assert any(bool(each.any()) for name, each in weights.items() if "lora_B" in name)


# Raised inside peft, which still asks transformers for the property by its old name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_run_tuning_returns_the_record_that_is_registered(place, bare_base, rated):
    record = package.run_tuning(
        tuning_mode="sft",
        llm_path=str(bare_base),
        dataset_path=str(place / rated),
        experiment_name="from python",
        tracking_uri=str(place / "mlruns"),
        devices="0",
        models_dir=str(place / "called"),
        epochs=1,
    )
    (kept,) = json.loads((place / "called" / "registry.json").read_bytes())["models"]
    assert (record.id, record.weights_sha256) == (kept["id"], kept["weights_sha256"])
    assert record.data.skipped == {"unrated": 3, "rated below 3": 10}
    assert record.parameters["experiment_name"] == "from python"
