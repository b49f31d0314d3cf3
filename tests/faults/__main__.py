"""Repeat the random fault injections: `python -m tests.faults --rounds 1000 [--seed S] [NAME...]`.

Prints one line per experiment; exit code 1, and the seed that repeats it, where one fails.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from simtune import plugins
from tests.faults import fault_compaction, fault_damage, fault_io, fault_kills, fault_processes

EXPERIMENTS = {
    **fault_kills.EXPERIMENTS,
    **fault_io.EXPERIMENTS,
    **fault_processes.EXPERIMENTS,
    **fault_damage.EXPERIMENTS,
    **fault_compaction.EXPERIMENTS,
}


def main():
    """Run the experiments that are named, all by default."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    names = sorted(EXPERIMENTS)
    parser.add_argument("name", nargs="*", metavar="NAME", help=", ".join(names))
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--root", help="keep the stores under this directory")
    args = parser.parse_args()
    plugins.manager()  # found once here, not by every child
    failed = False
    for name in args.name or names:
        with tempfile.TemporaryDirectory(dir=_memory()) as scratch:
            failed |= not _run(name, args, f"{args.root or scratch}/{name}")
    return int(failed)


def _memory():
    """A file system in memory, where there is one with room: kill -9 does not ask for a disk."""
    path = Path("/dev/shm")
    roomy = path.is_dir() and shutil.disk_usage(path).free > 1 << 30
    return path if roomy and os.access(path, os.W_OK) else None


def _run(name, args, root):
    again = f"python -m tests.faults {name} --rounds {args.rounds} --seed {args.seed}"
    started, used = time.monotonic(), time.process_time()
    try:
        function, what = EXPERIMENTS[name]
        result = function(Path(root), what, args.rounds, args.seed)
    except Exception:
        traceback.print_exc()
        print(f"FAILED; to repeat: {again}", file=sys.stderr, flush=True)
        return False
    seconds = time.monotonic() - started
    print(f"ok {result} in {seconds:.1f} s ({time.process_time() - used:.1f} s CPU): {again}")
    return True


if __name__ == "__main__":
    sys.exit(main())
