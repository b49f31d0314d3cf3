"""`simtune train`: from flags and YAML to the options that the trainer gets."""

import json
from pathlib import Path

import pytest

from simtune.cli import main as frame
from simtune.cli import train
from simtune.registry import DataSeen, ModelRecord


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """Catch what would be trained; gives the list of (method, options)."""
    monkeypatch.chdir(tmp_path)
    calls = []

    def tune(method, options, *, on_step, on_wait):
        calls.append((method, options))
        on_step(1, 2, {"loss": 1.5})
        on_step(2, 2, {"loss": 0.5})
        Path(options.models_dir, "sft-1").mkdir(parents=True, exist_ok=True)
        return ModelRecord(
            id="sft-1",
            name="n",
            type="fine_tuned",
            base_model=options.llm_path,
            method=method,
            path="sft-1",
            created_at="2026-01-01T00:00:00Z",
            version=1,
            size_bytes=10,
            weights_sha256="0" * 64,
            metrics={"loss": 0.5},
            data=DataSeen(
                source="file", root="f", digest="d", decisions=7, skipped={"unrated": 2, "long": 0}
            ),
        )

    monkeypatch.setattr(train, "tune", tune)
    return calls


def run(*arguments):
    return frame.main(["train", *arguments])


def test_the_classic_surface_is_the_same_as_the_method(trained):
    classic = [
        "--tuning_mode",
        "ppo",
        "--llm_path",
        "base",
        "--dataset_path",
        "rows.json",
        "--experiment_name",
        "run 1",
        "--tracking_uri",
        "./runs",
        "--devices",
        "0,1",
    ]
    assert run(*classic) == 0
    modern = [token.replace("_", "-") if token.startswith("--") else token for token in classic[2:]]
    assert run("ppo", *modern) == 0
    assert trained[0] == trained[1]
    method, options = trained[0]
    assert method == "ppo"
    assert (options.llm_path, options.dataset_path, options.devices) == ("base", "rows.json", "0,1")
    assert (options.experiment_name, options.tracking_uri) == ("run 1", "./runs")


def test_sft_is_the_default_method_with_the_classic_defaults(trained):
    assert run("--llm_path", "base", "--dataset_path", "rows.json") == 0
    method, options = trained[0]
    assert method == "sft"
    assert (options.experiment_name, options.tracking_uri) == ("llm_tuning", "./mlruns")
    assert options.devices == "0"


def test_values_are_converted_and_checked(trained, capsys):
    flags = ["--llm-path", "b", "--env", "E", "--target-kl", "0.1", "--dual-clip", "null"]
    assert run("ppo", *flags, "--iterations", "3", "--env-arg", "is_slippery=False") == 0
    options = trained[0][1]
    assert (options.iterations, options.target_kl, options.dual_clip) == (3, 0.1, None)
    assert options.env_arg == {"is_slippery": False}
    assert run("ppo", *flags, "--iterations", "0") == 2
    assert "iterations" in capsys.readouterr().err
    assert len(trained) == 1


def test_rewards_and_plugins_repeat_and_set_reaches_the_trainer(trained):
    assert (
        run(
            "sft",
            *("--llm-path", "b", "--store", "s", "--reward", "valid", "--reward", "success=2"),
            *("--set", "weight_decay=0.1", "--set", "lr_scheduler_type=cosine"),
        )
        == 0
    )
    options = trained[0][1]
    assert options.reward == ["valid", "success=2"]
    assert options.training_arguments == {"weight_decay": 0.1, "lr_scheduler_type": "cosine"}


def test_yaml_lies_below_the_flags(trained, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(
        "tuning_mode: ppo\nllm_path: base\nenv: E\nlora-r: 4\nseed: 1\n"
        "env_arg: {size: 4, deep: 1}\n"
    )
    assert run("--config", str(config), "--seed", "9", "--env-arg", "size=8") == 0
    method, options = trained[0]
    assert (method, options.lora_r, options.seed) == ("ppo", 4, 9)
    assert options.env_arg == {"size": 8, "deep": 1}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sft", "--gamma", "0.9"], "--gamma is an option of ppo, not of sft"),
        (["sft", "--env", "E"], "--env is an option of ppo, not of sft"),
        (["ppo", "--top-fraction", "0.5"], "--top-fraction is an option of sft, not of ppo"),
        (["sft", "--tuning-mode", "ppo"], "two training methods are named"),
        (["--tuning-mode", "dqn"], "invalid choice: 'dqn'"),
        (["sft", "--leaning-rate", "1"], "did you mean '--learning-rate'?"),
        (["sft", "--store", "s"], "no base model is named"),
        (["sft", "--llm-path", "b", "--set", "weight_decay"], "--set takes NAME=VALUE"),
    ],
)
def test_wrong_options_are_named(trained, capsys, arguments, said):
    assert run(*arguments) == 2
    assert said in capsys.readouterr().err
    assert trained == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("leaning_rate: 1", "did you mean 'learning_rate'?"),
        ("gamma: 1", "--gamma is an option of ppo, not of sft"),
        ("tuning_mode: ppo", "two training methods are named"),
        ("batch_size: many", "batch_size"),
    ],
)
def test_wrong_keys_of_the_file_are_named(trained, capsys, tmp_path, text, said):
    config = tmp_path / "run.yaml"
    config.write_text(f"llm_path: base\nstore: s\n{text}\n")
    assert run("sft", "--config", str(config)) == 2
    assert said in capsys.readouterr().err


def test_it_prints_the_record_and_what_comes_next(trained, capsys):
    run("sft", "--llm-path", "base", "--store", "s", "--models-dir", "m")
    shown = capsys.readouterr()
    assert shown.out.splitlines()[:5] == [
        "registered sft-1",
        "  path       m/sft-1",
        "  decisions  7",
        "  skipped    2 unrated",
        "  loss       0.5",
    ]
    assert "simtune models show sft-1 --models-dir m" in shown.out
    assert "--llm-path base --model base --model sft-1" in shown.out
    assert "sft: 2/2" in shown.err and "loss 0.5" in shown.err


def test_json_is_the_record_alone(trained, capsys):
    run("sft", "--llm-path", "base", "--store", "s", "--json")
    found = json.loads(capsys.readouterr().out)
    assert (found["id"], found["method"], found["metrics"]) == ("sft-1", "sft", {"loss": 0.5})


def test_bad_input_ends_before_torch_and_leaves_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("ppo", "--llm-path", "no-model", "--env", "E") == 2
    assert "no base model in 'no-model'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
