"""All of it on one machine: `python examples/04_online/online.py [DIRECTORY]`.

Three simulations, a trainer and a server run. A gate lets the better adapter go live, and refuses
a bad one; that one is then promoted by hand, and the watch takes it back.
"""

import sys
import tempfile
from pathlib import Path
from statistics import fmean

import base
from programs import GATE, SIMTUNE, TRAIN_WRONG, WATCH, commands, simtune, start
from seen import Seen


def main(place: Path, port: int = 8765) -> None:
    """Run it; it ends by itself."""
    base.main(str(place / "base"))
    seen = Seen(place)
    running = [start(place, name, command) for name, command in commands(port).items()]
    try:
        seen.wait(seen.learned)
        simtune(place, f"{GATE} --model latest")
        running.append(start(place, "watch", [str(SIMTUNE), *WATCH.split()]))
        seen.wait(seen.champion_played)
        simtune(place, TRAIN_WRONG)
        bad = next(one for one in seen.registry.list() if one.method == "sft")
        simtune(place, f"{GATE} --model {bad.id}")
        simtune(place, f"models promote {bad.id} --reason in-a-hurry")
        seen.wait(seen.rolled_back)
        simtune(place, "models history")
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait()
    seen.look()
    for adapter, values in seen.returns.items():
        print(f"{(adapter or 'base')[:8]} {len(values):5d} episodes, return {fmean(values):.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="simtune-example-")))
