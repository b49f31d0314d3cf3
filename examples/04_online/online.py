"""All of it on one machine: `python examples/04_online/online.py [DIRECTORY]`.

Three simulations, a trainer and a server run. A gate lets the better adapter go live, and refuses
a bad one; that one is then promoted by hand, and the watch takes it back.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import base
from programs import GATE, SIMTUNE, TRAIN_WRONG, WATCH, commands, simtune, start

from simtune import read
from simtune.registry import Registry
from simtune.registry.promotion import champion_of, history_of


def returns(place: Path) -> dict[str | None, list[float]]:
    """What the episodes of each adapter brought, by its content hash, in the order of versions."""
    models = [None, *(record.weights_sha256 for record in Registry(place / "models").list())]
    found: dict[str | None, list[float]] = {adapter: [] for adapter in models}
    for episode in read(place / "store").episodes(ended=True):
        made_by = {decision.adapter for decision in episode.decisions}
        if len(made_by) == 1:
            found[made_by.pop()].append(episode.total_reward)
    return {adapter: values for adapter, values in found.items() if values}


def learned(place: Path) -> bool:
    """Whether the newest adapters let more than three cars of four through."""
    by_adapter = returns(place) if (place / "store").exists() else {}
    newest = [value for values in list(by_adapter.values())[1:] for value in values][-100:]
    return len(newest) == 100 and fmean(newest) > 1.5


def champion_played(place: Path) -> bool:
    """Whether the champion has 40 episodes."""
    champion = champion_of(Registry(place / "models"))
    return champion is not None and len(returns(place).get(champion.weights_sha256, [])) >= 40


def rolled_back(place: Path) -> bool:
    """Whether the last change of champion was that."""
    return history_of(Registry(place / "models"))[-1].event == "rolled_back"


def wait(place: Path, until: Callable[[Path], bool]) -> None:
    """Look every other second."""
    while not until(place):
        time.sleep(2)


def main(place: Path, port: int = 8765) -> None:
    """Run it; ends by itself after some minutes."""
    base.main(str(place / "base"))
    running = [start(place, name, command) for name, command in commands(port).items()]
    try:
        wait(place, learned)
        simtune(place, f"{GATE} --model latest")
        running.append(start(place, "watch", [str(SIMTUNE), *WATCH.split()]))
        wait(place, champion_played)
        simtune(place, TRAIN_WRONG)
        bad = next(r for r in reversed(Registry(place / "models").list()) if r.method == "sft")
        simtune(place, f"{GATE} --model {bad.id}")
        simtune(place, f"models promote {bad.id} --reason in-a-hurry")
        wait(place, rolled_back)
        simtune(place, "models history")
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait()
    for adapter, values in returns(place).items():
        print(f"{(adapter or 'base')[:8]} {len(values):5d} episodes, return {fmean(values):.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="simtune-example-")))
