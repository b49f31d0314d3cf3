"""Killed with SIGKILL at any moment and resumed, a run ends as one that was never killed.

The processes are real ones, forked so that they need not import torch again. What is compared are
the bytes of the adapter's file.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from pathlib import Path

import pytest

from simtune.registry import Registry
from simtune.store import read
from simtune.train import checkpoints
from simtune.train.options import parse_options
from simtune.train.ppo import train_ppo
from simtune.train.tracking import Tracker

ROUNDS = 4
EPISODES = 4
FORK = multiprocessing.get_context("fork")


def values(root: Path, base: Path, **changes):
    return {
        "llm_path": str(base),
        "env": "tests.train.guessing:Guessing",
        "models_dir": str(root / "models"),
        "tracking_uri": str(root.parent / "mlruns"),
        "capture_root": str(root / "data"),
        "iterations": ROUNDS,
        "episodes_per_iteration": EPISODES,
        "num_envs": 2 * EPISODES,
        "max_new_tokens": 3,
        "epochs": 2,
        "minibatch_size": 4,
        "lora_r": 2,
        "learning_rate": 1e-2,
        "save_every": 1,
        "keep_checkpoints": 2,
        "eval_every": 2,
        "eval_episodes": 2 * EPISODES,
        "eval_decoding": "sampled",
    } | changes


def train(given, sabotage=None):
    """Train in a process of its own; gives its exit code, -9 where it was killed."""

    def body():
        if sabotage is not None:
            sabotage()
        train_ppo(parse_options("ppo", given))

    process = FORK.Process(target=body)
    process.start()
    return process


def finished(process):
    process.join(60)
    return process.exitcode


def adapter(root: Path) -> bytes:
    (record,) = Registry(root / "models").list()
    return (root / "models" / record.path / "adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A directory for the runs of this module, which share one MLflow database."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def root(runs, request):
    return runs / request.node.name


@pytest.fixture(scope="module")
def never_killed(runs, tiny_model_dir):
    import mlflow  # noqa: F401  so that the forked processes need not

    root = runs / "whole"
    assert finished(train(values(root, tiny_model_dir))) == 0
    return root


def resume(root: Path, **changes):
    return {"resume": "latest", "models_dir": str(root / "models")} | changes


def die_in(module, name, call):
    """Replaces a function: its `call`-th call, counted from 1, is the process's last."""

    def sabotage():
        real, calls = getattr(module, name), iter(range(1, 1000))

        def deadly(*arguments, **named):
            if next(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **named)

        setattr(module, name, deadly)

    return sabotage


def check_same(root: Path, whole: Path):
    """The same adapter, the same curves without a doubled step, and no episode used twice."""
    assert adapter(root) == adapter(whole)
    (record,) = Registry(root / "models").list()
    (expected,) = Registry(whole / "models").list()
    assert record.metrics["round"] == expected.metrics["round"]
    assert record.data.episodes == ROUNDS * EPISODES
    learned = (root / "models" / record.path / "episodes.txt").read_text().split("\n")
    assert len(set(learned)) == ROUNDS * EPISODES
    captured = {one.episode_id for one in read(root / "data").episodes()}
    assert set(learned) <= captured
    with Tracker("t", str(root.parent / "mlruns")) as tracker:
        history = tracker.client.get_metric_history(record.mlflow_run_id, "return")
        evaluated = tracker.client.get_metric_history(record.mlflow_run_id, "eval_return")
        status = tracker.client.get_run(record.mlflow_run_id).info.status
    assert [point.step for point in history] == [1, 2, 3, 4]
    assert [point.step for point in evaluated] == [0, 2, 4]
    assert status == "FINISHED"


@pytest.mark.parametrize(
    ("name", "call"),
    [("_clear", 3), ("_contiguous", 3), ("_seal", 4), ("_sync", 20), ("prune", 2)],
    ids=["before staging", "staged in part", "before the manifest", "unsynced", "published"],
)
def test_killed_while_a_checkpoint_is_written(root, tiny_model_dir, never_killed, name, call):
    given = values(root, tiny_model_dir)
    assert finished(train(given, die_in(checkpoints, name, call))) == -signal.SIGKILL
    assert finished(train(resume(root))) == 0
    check_same(root, never_killed)


def test_killed_at_random_moments_again_and_again(root, tiny_model_dir, never_killed):
    """Every attempt is killed a little later, wherever it is, until one gets to the end."""
    random.seed(7)
    process, kills, delay = train(values(root, tiny_model_dir)), 0, 0.5
    while True:
        process.join(delay + random.uniform(0, delay / 2))
        if process.exitcode is not None:
            break
        process.kill()
        kills += finished(process) == -signal.SIGKILL
        delay *= 1.3
        began = list((root / "models").glob("checkpoints/*/round-*"))
        again = resume(root) if began else values(root, tiny_model_dir)
        process = train(again)
    assert process.exitcode == 0
    assert kills >= 2
    check_same(root, never_killed)
