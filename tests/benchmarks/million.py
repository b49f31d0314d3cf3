"""A million full decisions by one process, compacted by another.

`python -m tests.benchmarks.million [decisions]` says how much memory each needed at most,
and how fast they were.
"""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DECISIONS = 1_000_000
PER_EPISODE = 20


def write(root: str, decisions: int) -> dict[str, float]:
    """Capture that many decisions; what it took."""
    import random

    import simtune
    from simtune import config
    from simtune.recording import seal
    from tests.benchmarks.decisions import varied

    config.replace(root=root, compactor="none")
    chance = random.Random(0)
    captured = 0.0
    for _ in range(decisions // PER_EPISODE):
        with simtune.episode(env="bench") as episode:
            for _ in range(PER_EPISODE):
                prompt, answer = varied(chance)
                started = time.thread_time()
                episode.decision(prompt, answer, reward=0.5)
                captured += time.thread_time() - started
    seal(root)
    return {"caller_cpu_us": captured / decisions * 1e6}


def compact(root: str) -> dict[str, float]:
    """Compact until told to end; what it took."""
    from simtune.store import watch

    sums = {"rows": 0, "files": 0, "log_mb": 0.0, "parquet_mb": 0.0}

    def add(report) -> None:
        sums["rows"] += report.rows
        sums["files"] += len(report.files)
        sums["log_mb"] += report.log_bytes / 1e6
        sums["parquet_mb"] += report.parquet_bytes / 1e6

    started = time.process_time()
    watch(root, interval=0.2, on_report=add)
    return {**sums, "rows_per_cpu_s": sums["rows"] / (time.process_time() - started)}


def measure(decisions: int) -> dict[str, dict[str, float]]:
    """What both processes took, by their names."""
    with tempfile.TemporaryDirectory() as root, _begin("compact", root) as compactor:
        try:
            written = _result(_begin("write", root, str(decisions)))
            while compactor.poll() is None and any(Path(root, "wal").iterdir()):
                time.sleep(0.2)
        finally:
            compactor.send_signal(signal.SIGTERM)
        return {"writer": written, "compactor": _result(compactor)}


def _begin(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.benchmarks.million", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _result(process: subprocess.Popen[str]) -> dict[str, float]:
    said, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{process.args} ended with {process.returncode}")
    return json.loads(said)


def _peak_bytes() -> int:
    # Not ru_maxrss: that of a child counts from its parent's, which may be a whole test run.
    (line,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(line) * 1024


def main(arguments: list[str]) -> int:
    """Run one of the two processes, or both of them."""
    if arguments[:1] in (["write"], ["compact"]):
        started = time.perf_counter()
        part = write(arguments[1], int(arguments[2])) if arguments[2:] else compact(arguments[1])
        usage = resource.getrusage(resource.RUSAGE_SELF)
        used = {
            "seconds": time.perf_counter() - started,
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "peak_mb": _peak_bytes() / 1e6,
        }
        print(json.dumps({**part, **used}))
        return 0
    for name, found in measure(int(arguments[0]) if arguments else DECISIONS).items():
        print(name, ", ".join(f"{key} {value:,.1f}" for key, value in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
