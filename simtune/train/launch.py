"""Several training processes on this machine: started, followed, and ended together."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from simtune import errors
from simtune.errors import OptionError, SimtuneError, TrainingError
from simtune.registry import ModelRecord
from simtune.train.options import OnStep, PPOOptions

OPTIONS, STEPS, RECORD = "options.json", "steps.jsonl", "record.json"
"""Files of the folder that the processes share with the one that started them."""

_SECONDS_BETWEEN_LOOKS = 0.1


class Failure(msgspec.Struct):
    """Why a process ended, in the file `error-RANK.json`."""

    kind: str
    text: str


def processes_wanted(options: PPOOptions) -> int:
    """How many processes are to train: as asked, or one per GPU of `--devices`.

    Raises:
        OptionError: more than the machine has GPUs, where it has some.
    """
    import torch

    gpus = torch.cuda.device_count()
    wanted = options.processes or max(1, min(len(options.devices.split(",")), gpus))
    if options.follow and wanted > 1:
        raise OptionError(
            "a store is followed by one process",
            expected="one GPU in --devices, and --processes 1",
            got=f"{wanted} processes",
        )
    if gpus and wanted > gpus:
        raise OptionError(
            f"--processes {wanted} is more than there are GPUs",
            expected=f"at most {gpus}, one GPU each",
            fix="name more of them with --devices",
        )
    if options.env is not None and wanted > options.episodes_per_iteration:
        raise OptionError(
            "a process would have no episode to play",
            expected=f"--episodes-per-iteration of at least {wanted}",
            got=options.episodes_per_iteration,
        )
    return wanted


def launch(options: PPOOptions, count: int, *, on_step: OnStep | None = None) -> ModelRecord:
    """Train in `count` processes; when one fails, all end, and its error is raised here.

    Args:
        options: of the run.
        count: how many processes.
        on_step: called here with what the main process reports.

    Raises:
        SimtuneError: what a process raised; a TrainingError where it simply died.
    """
    with tempfile.TemporaryDirectory(prefix="simtune-launch-") as name:
        folder = Path(name)
        (folder / OPTIONS).write_bytes(msgspec.json.encode(options))
        started = [_start(folder, rank, count) for rank in range(count)]
        try:
            _follow(folder, started, on_step)
        finally:
            for process in started:
                process.kill()
                process.communicate()
        return msgspec.json.decode((folder / RECORD).read_bytes(), type=ModelRecord)


def _start(folder: Path, rank: int, count: int) -> subprocess.Popen[bytes]:
    """Start one process; it ends when its standard input does, that is when this process dies."""
    with open(folder / f"stderr-{rank}.txt", "wb") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "simtune.train.worker", str(folder)],
            env=_environment(folder, rank, count),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )


def _environment(folder: Path, rank: int, count: int) -> dict[str, str]:
    """What torchrun would set; threads are divided among the processes."""
    port = folder / "port"
    if not port.exists():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port.write_text(str(free.getsockname()[1]))
    threads = max(1, (os.cpu_count() or 1) // count)
    return {"OMP_NUM_THREADS": str(threads)} | {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port.read_text(),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }


def _follow(
    folder: Path, started: Sequence[subprocess.Popen[bytes]], on_step: OnStep | None
) -> None:
    """Pass on what the main process reports until all have ended well, or one has not."""
    told = 0
    while True:
        codes = [process.poll() for process in started]
        told = _tell(folder, told, on_step)
        if any(codes):
            # Its peers lose the connection and fail too: the first to say why is the cause.
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            raise _cause(folder, codes)
        if all(code == 0 for code in codes):
            return
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _tell(folder: Path, told: int, on_step: OnStep | None) -> int:
    """Call `on_step` for each new whole line; gives the number of bytes read so far."""
    steps = folder / STEPS
    if on_step is None or not steps.exists():
        return told
    with open(steps, "rb") as file:
        file.seek(told)
        new = file.read()
    whole = new[: new.rfind(b"\n") + 1]
    for line in whole.splitlines():
        step, total, metrics = msgspec.json.decode(line)
        on_step(step, total, {k: float("nan") if v is None else v for k, v in metrics.items()})
    return told + len(whole)


def _cause(folder: Path, codes: Sequence[int | None]) -> SimtuneError:
    """The error to raise: what a process said first, or how it died."""
    said = sorted(folder.glob("error-*.json"), key=lambda path: path.stat().st_mtime_ns)
    if said:
        failure = msgspec.json.decode(said[0].read_bytes(), type=Failure)
        kind: Any = getattr(errors, failure.kind)
        made = kind.__new__(kind, failure.text)
        Exception.__init__(made, failure.text)
        return made  # type: ignore[no-any-return]
    rank = min(
        (rank for rank, code in enumerate(codes) if code),
        key=lambda rank: (codes[rank] or 0) > 0,
    )
    lines = (folder / f"stderr-{rank}.txt").read_text(errors="replace").strip().splitlines()
    return TrainingError(
        f"training process {rank} of {len(codes)} died",
        got=f"exit code {codes[rank]}" + (f": {lines[-1]}" if lines else ""),
        fix="--resume latest goes on from the last checkpoint",
    )
