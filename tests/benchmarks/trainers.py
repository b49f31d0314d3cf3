"""Training next to TRL's GRPO and AgileRL's PPO: the same work, a process each, one thread."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.peers.environment import interpreter

SCRIPTS = "tests.benchmarks.peers.training"
SEEDS = (11, 12, 13)
"""None of those that settings were chosen with."""

MINUTES = 30
"""A process that takes longer is stuck."""

Found = dict[str, float]


class Trainer(NamedTuple):
    """One trainer, with one choice of settings.

    Attributes:
        name: in the table.
        script: the module that runs it.
        part: of the work.
        options: changes to the script's settings.
    """

    name: str
    script: str
    part: str
    options: tuple[str, ...] = ()


WALKERS = (
    Trainer("simtune, choose", "with_simtune", "grid-choose"),
    Trainer("simtune, generate", "with_simtune", "grid-generate"),
    Trainer("TRL GRPO, fast", "with_trl", "grid", ("per_device_train_batch_size=64",)),
    Trainer("TRL GRPO, few turns", "with_trl", "grid"),
    Trainer("AgileRL PPO, fast", "with_agilerl", "grid", ("update_epochs=2",)),
    Trainer("AgileRL PPO, few turns", "with_agilerl", "grid"),
)
BATCHED = (
    Trainer("simtune", "with_simtune", "reading"),
    Trainer("TRL GRPO", "with_trl", "reading"),
    Trainer("AgileRL PPO", "with_agilerl", "reading"),
)
"""With four rows, or about a thousand tokens, in a micro-batch."""

ROW_BY_ROW = (
    Trainer(
        "simtune, row by row", "with_simtune", "reading", ("num_envs=16", "tokens_per_batch=512")
    ),
    Trainer("TRL GRPO, row by row", "with_trl", "reading", ("rows=1", "at_once=16")),
    Trainer("AgileRL PPO, row by row", "with_agilerl", "reading", ("rows=1",)),
)
"""With one row in a micro-batch, and 16 chats at once where the trainer can: to save memory."""


class Walked(NamedTuple):
    """The grid walk; medians over `SEEDS`, and the spread as lowest-highest.

    Attributes:
        trainer: which one.
        reached: runs that got to 90 %.
        cpu: seconds of processor time until then.
        cpu_spread: of it.
        turns: decisions until then.
        turns_spread: of it.
    """

    trainer: str
    reached: str
    cpu: float
    cpu_spread: str
    turns: float
    turns_spread: str


class Read(NamedTuple):
    """Throughput; medians over `SEEDS`.

    Attributes:
        trainer: which one.
        rollout: sampled tokens per second of processor time.
        update: row tokens per second, from collected episodes to changed weights, one pass.
        limit: row tokens per second of a plain forward and backward pass of the same rows.
        peak: resident memory at its highest, MB.
        above: MB of that above what loading left.
    """

    trainer: str
    rollout: float
    update: float
    limit: float
    peak: float
    above: float


class Ratio(NamedTuple):
    """Simtune against the better peer in each measure; above 1 is better than the peer."""

    measure: str
    ratio: float


class Compared(NamedTuple):
    """Both parts, and the ratios."""

    walked: list[Walked]
    read: list[Read]
    ratios: list[Ratio]


def compare() -> Compared:
    """Measure all trainers on both parts."""
    with tempfile.TemporaryDirectory() as place:
        _python(Path(sys.executable), "bases", place)
        walked = [_walked(one, runs) for one, runs in _runs(WALKERS, place)]
        read = [_read(one, runs) for one, runs in _runs((*BATCHED, *ROW_BY_ROW), place)]
    return Compared(walked, read, list(_ratios(walked, read)))


def _runs(trainers: Sequence[Trainer], bases: str) -> list[tuple[Trainer, list[Found]]]:
    """Every trainer with every seed, in turns: what else the machine does meets all alike."""
    runs: dict[str, list[Found]] = {trainer.name: [] for trainer in trainers}
    for seed in SEEDS:
        for name, script, part, options in trainers:
            python = Path(sys.executable)
            if script == "with_agilerl":
                python = interpreter("agilerl.txt")
            out = _python(python, script, part, bases, str(seed), *options)
            runs[name].append(json.loads(out.splitlines()[-1]))
            sys.stderr.write(f"{name}, seed {seed}: {runs[name][-1]}\n")
    return [(trainer, runs[trainer.name]) for trainer in trainers]


def _python(python: Path, script: str, *arguments: str) -> str:
    command = [str(python), "-W", "ignore", "-m", f"{SCRIPTS}.{script}", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=60 * MINUTES
    )
    if done.returncode:
        raise RuntimeError(f"{script} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def _walked(trainer: Trainer, runs: Sequence[Found]) -> Walked:
    cpu = [run["cpu"] for run in runs]
    turns = [run["turns"] for run in runs]
    reached = int(sum(run["reached"] for run in runs))
    return Walked(
        trainer.name,
        f"{reached} of {len(runs)}",
        statistics.median(cpu),
        f"{min(cpu):.2f}-{max(cpu):.2f}",
        statistics.median(turns),
        f"{min(turns):.0f}-{max(turns):.0f}",
    )


def _read(trainer: Trainer, runs: Sequence[Found]) -> Read:
    def median(name: str) -> float:
        return statistics.median(run.get(name, float("nan")) for run in runs)

    names = ("rollout", "update", "limit", "peak_mb", "above_loaded_mb")
    return Read(trainer.name, *map(median, names))


def _ratios(walked: Sequence[Walked], read: Sequence[Read]) -> Iterator[Ratio]:
    chooses, generates = walked[:2]
    for own in (chooses, generates):
        for name in ("cpu", "turns"):
            best = min(getattr(one, name) for one in walked[2:])
            yield Ratio(f"{own.trainer}: {name}", best / getattr(own, name))
    better: tuple[tuple[str, Callable[[float, float], float]], ...] = (
        ("rollout", lambda mine, theirs: mine / theirs),
        ("update", lambda mine, theirs: mine / theirs),
        ("peak", lambda mine, theirs: theirs / mine),
        ("above", lambda mine, theirs: theirs / mine),
    )
    peers = len(BATCHED) - 1
    for at in range(0, len(read), 1 + peers):
        own, others = read[at], read[at + 1 : at + 1 + peers]
        for name, ratio in better:
            mine = getattr(own, name)
            best = min(ratio(mine, getattr(one, name)) for one in others)
            yield Ratio(f"{own.trainer}: {name}", best)
        yield Ratio(f"{own.trainer}: update over limit", own.update / own.limit)
