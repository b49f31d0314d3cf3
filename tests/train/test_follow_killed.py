"""Trainers that follow a store are killed with SIGKILL while simulations go on writing it.

The processes are real ones, the trainers forked so that they need not import torch again.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simtune.registry import Registry
from simtune.store import Cursor, read
from simtune.train import checkpoints, journal, publishing
from simtune.train.options import parse_options
from simtune.train.ppo import train_ppo

ROUND = 4
FORK = multiprocessing.get_context("fork")


def values(root: Path, base: Path, **changes):
    return {
        "llm_path": str(base),
        "store": str(root / "store"),
        "follow": True,
        "models_dir": str(root / "models"),
        "tracking_uri": str(root / "mlruns"),
        "episodes_per_iteration": ROUND,
        "epochs": 1,
        "critic_warmup": 0,
        "lora_r": 2,
        "learning_rate": 1e-2,
        "max_staleness": 10_000,
        "keep_published": 3,
    } | changes


def start(given, sabotage=None):
    def body():
        if sabotage is not None:
            sabotage()
        train_ppo(parse_options("ppo", given))

    process = FORK.Process(target=body)
    process.start()
    return process


def finished(process, seconds=120):
    process.join(seconds)
    return process.exitcode


def simulation(root: Path, episodes: int, pause: float):
    """Small segments, so that compaction is part of it."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.train.simulating", root / "store", str(episodes), str(pause)],
        env={**os.environ, "SIMTUNE_SEGMENT_BYTES": "20000"},
    )


def taken(root: Path):
    """(episode, round, what) of everything that the newest checkpoint stands for."""
    (run,) = (root / "models" / "checkpoints").iterdir()
    state = checkpoints.newest(run).state
    lines = (run / journal.FILE).read_bytes()[: state.source["journal"]].splitlines()
    return [json.loads(line) for line in lines], state


def check_once(root: Path):
    """Every episode that ended is taken or still before the cursor, once."""
    found, state = taken(root)
    ids = [episode for episode, _, _ in found]
    store = read(root / "store")
    rest = [
        one.episode_id for one in store.tail(Cursor.from_json(state.source["cursor"])).episodes()
    ]
    ended = [one.episode_id for one in store.episodes(ended=True)]
    assert sorted([*ids, *rest]) == sorted(ended)
    assert len(rest) < ROUND
    rounds = [number for _, number, what in found if what == "learned"]
    assert rounds == [number for number in range(state.round) for _ in range(ROUND)]
    return state


def check_chain(root: Path):
    """Every version registered once, each the parent of the next, the last few with files."""
    records = Registry(root / "models").list()
    assert [one.tags["online_version"] for one in records] == [
        str(number) for number in range(1, len(records) + 1)
    ]
    assert [one.parent for one in records] == [None, *(one.id for one in records[:-1])]
    assert all((root / "models" / one.path).exists() for one in records[-3:])
    return records


@pytest.fixture
def root(tmp_path, mlflow_directory):
    mlflow_directory(tmp_path)
    return tmp_path


def kill_again_and_again(root, base, kills, seconds):
    """Every trainer is killed wherever it is; the last one is asked to end."""
    began = time.monotonic()
    for number in range(kills):
        process = start(values(root, base))
        if number % 2:
            time.sleep(random.uniform(0.2, 1.5))
        else:
            progress(root, process)
            time.sleep(random.uniform(0, 0.3))
        process.kill()
        assert finished(process) == -signal.SIGKILL
        if time.monotonic() - began > seconds:
            break


def progress(root, process, more=1):
    """Wait until a process has committed so many more rounds."""

    def committed():
        return max(
            (int(one.name[6:]) for one in root.glob("models/checkpoints/*/round-*")), default=0
        )

    before = committed()
    while committed() < before + more:
        assert process.exitcode is None
        time.sleep(0.01)


def test_killed_and_started_again_every_episode_is_taken_once(root, tiny_model_dir):
    random.seed(5)
    writers = [simulation(root, 60, 0.02), simulation(root, 100_000, 0.05)]
    kill_again_and_again(root, tiny_model_dir, kills=3, seconds=60)
    writers[1].kill()
    assert [writer.wait() for writer in writers] == [0, -signal.SIGKILL]
    assert finished(start(values(root, tiny_model_dir, follow_timeout=0.5))) == 0
    state = check_once(root)
    records = check_chain(root)
    assert len(records) == state.round
    assert records[-1].data.episodes == state.round * ROUND


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


@pytest.mark.parametrize(
    ("module", "name", "call"),
    [
        (checkpoints, "_seal", 3),
        (publishing, "check_finite", 2),
        (publishing, "retire_superseded", 2),
    ],
    ids=["before the commit", "committed but not registered", "registered"],
)
def test_killed_around_the_commit(root, tiny_model_dir, module, name, call):
    assert simulation(root, 14, 0).wait() == 0
    given = values(root, tiny_model_dir, follow_timeout=0.3)
    assert finished(start(given, die_in(module, name, call))) == -signal.SIGKILL
    assert finished(start(given)) == 0
    assert check_once(root).round == 3
    assert len(check_chain(root)) == 3


def test_asked_to_end_it_publishes_and_can_go_on(root, tiny_model_dir):
    writer = simulation(root, 100_000, 0.02)
    given = values(root, tiny_model_dir, publish_every=1000)
    process = start(given)
    progress(root, process, more=2)
    process.terminate()
    assert finished(process) == 0
    writer.kill()
    writer.wait()
    (record,) = Registry(root / "models").list()
    assert int(record.tags["round"]) == taken(root)[1].round
    assert (
        finished(start(values(root, tiny_model_dir, publish_every=1000, follow_timeout=0.3))) == 0
    )
    check_once(root)


@pytest.mark.slow
def test_killed_thirty_times(root, tiny_model_dir):
    writers = [simulation(root, 100_000, 0.03) for _ in range(3)]
    kill_again_and_again(root, tiny_model_dir, kills=30, seconds=600)
    for writer in writers:
        writer.kill()
        writer.wait()
    assert finished(start(values(root, tiny_model_dir, follow_timeout=0.5))) == 0
    check_once(root)
    check_chain(root)
