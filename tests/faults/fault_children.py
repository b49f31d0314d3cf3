"""Children to be killed: forked where simtune is loaded, so that each takes a millisecond.

The process that forks captures nothing itself and has no threads.
"""

import os
import random
import select
import signal
import struct
import sys
import time
import traceback

from simtune import config
from simtune.recording import recorders
from simtune.recording.segments import is_finished, iter_segment

ACK = struct.Struct("<q")


class Child:
    """A forked child that runs `program(acknowledge)` and can be killed.

    Args:
        program: called with a function that tells this process a number.
    """

    def __init__(self, program):
        self._pipe, told = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.close(self._pipe)
                program(lambda number: os.write(told, ACK.pack(number)))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        os.close(told)

    def wait_for(self, count, seconds):
        """Read acknowledgements until there are so many, or for so long; returns those read."""
        end = time.monotonic() + seconds
        found = b""
        while len(found) < count * ACK.size:
            left = max(0.0, end - time.monotonic())
            if not select.select([self._pipe], [], [], left)[0]:
                break
            chunk = os.read(self._pipe, 65536)
            if not chunk:
                break
            found += chunk
        return found

    def kill(self, found=b""):
        """Kill -9; returns every number that was ever told, those already read included."""
        os.kill(self.pid, signal.SIGKILL)
        return self.finish(found)

    def finish(self, found=b""):
        """Wait for its end; returns every number that was ever told."""
        while chunk := os.read(self._pipe, 65536):
            found += chunk
        os.close(self._pipe)
        self.status = os.waitpid(self.pid, 0)[1]
        return [number for (number,) in ACK.iter_unpack(found[: len(found) // 8 * 8])]


def use(root, **settings):
    """Capture into a store with these settings, in this process."""
    config._current = config.Config(root=str(root), **settings)
    recorders._by_root.clear()
    recorders._active = None


def kill_at_random(child, rng, *, numbers, seconds):
    """Kill a child after a random count of acknowledgements, or at a random time."""
    if rng.random() < 0.5:
        found = child.wait_for(rng.randrange(numbers), 10.0)
    else:
        found = child.wait_for(10**9, rng.random() * seconds)
    pause = time.perf_counter() + rng.random() * 0.0005
    while time.perf_counter() < pause:
        pass
    return child.kill(found)


def read_back(root, seen=()):
    """{writer: [(seq, row)]} of the finished segments, but for the writers already seen."""
    found = {}
    directory = root / "wal"
    for path in sorted(directory.glob("*.wal")) if directory.is_dir() else ():
        writer = path.name[:16]
        if writer not in seen:
            assert is_finished(path), f"{path.name}: its writer is dead, its lock is held"
            found.setdefault(writer, []).extend(iter_segment(path))
    return found


def check_contiguous(found):
    """A writer's rows are numbered from 0 without a gap or a double."""
    for writer, rows in found.items():
        numbers = [seq for seq, _ in rows]
        assert numbers == list(range(len(rows))), f"{writer}: {numbers}"


def content(number):
    """A prompt that can be checked: its length and bytes follow from the number."""
    rng = random.Random(number)
    return rng.choice("abcdefgh") * rng.randrange(600)
