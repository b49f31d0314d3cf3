"""One of several training processes: `python -m simtune.train.worker FOLDER`, see `launch`."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import msgspec

from simtune.errors import SimtuneError
from simtune.train.launch import OPTIONS, RECORD, STEPS, Failure
from simtune.train.options import PPOOptions
from simtune.train.parallel import is_main_process


def main(folder: Path) -> int:
    """Train; what happens is written into the folder."""
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    options = msgspec.json.decode((folder / OPTIONS).read_bytes(), type=PPOOptions)
    from simtune.train.ppo import train_ppo

    def tell(step: int, total: int | None, metrics: dict[str, float]) -> None:
        with open(folder / STEPS, "ab") as file:
            file.write(msgspec.json.encode((step, total, metrics)) + b"\n")

    try:
        record = train_ppo(options, on_step=tell)
    except SimtuneError as error:
        failure = Failure(kind=type(error).__name__, text=str(error))
        (folder / f"error-{os.environ['RANK']}.json").write_bytes(msgspec.json.encode(failure))
        return 2
    if is_main_process():
        (folder / RECORD).write_bytes(msgspec.json.encode(record))
    return 0


def _end_with_the_parent() -> None:
    """Standard input ends when the process that started this one is gone."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
