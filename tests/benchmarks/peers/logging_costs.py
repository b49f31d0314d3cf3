"""What one decision costs each logger: caller's time and total CPU, one process per logger.

    python logging_costs.py LOGGER SIZE CALLS DIRECTORY

prints JSON. Run with the interpreter of an environment that has the logger; beyond that the
standard library is all it needs, so every logger is measured by the same code. Caller's times are
those of the call that records, less an empty call. Total CPU is that of the whole process and its
threads, from the first decision until everything is in the logger's own files.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

WARM_UP = 50

LOGGED = ("prompt", "response", "token_ids", "logprobs")
WORDS = "north south east west queue light red green waiting vehicle lane signal long".split()  # noqa: SIM905
Decision = dict[str, Any]
Recorder = tuple[Callable[[Decision], object], Callable[[], object]]
"""Records one decision; brings everything into the logger's files."""


def small(draw: random.Random) -> Decision:
    """A short question and a word: 108 bytes in simtune's log, with its episode's id."""
    return {
        "prompt": [{"role": "user", "content": f"{draw.choice(WORDS)} or {draw.choice(WORDS)}?"}],
        "response": draw.choice(WORDS),
        "token_ids": [],
        "logprobs": [],
    }


def full(draw: random.Random) -> Decision:
    """1.5 kB of prompt, 200 characters of answer, 64 tokens with their log-probabilities."""
    return {
        "prompt": [
            {"role": "system", "content": "You steer one vehicle through a city's traffic. " * 10},
            {"role": "user", "content": " ".join(draw.choices(WORDS, k=170))},
        ],
        "response": " ".join(draw.choices(WORDS, k=35)),
        "token_ids": draw.choices(range(49_152), k=64),
        "logprobs": [-draw.expovariate(1.0) for _ in range(64)],
    }


SIZES = {"small": small, "full": full}


def simtune_logger(directory: Path, durability: str, *, compacted: bool = False) -> Recorder:
    """Simtune's decorator, at one durability level; `compacted` until all is Parquet."""
    import simtune

    simtune.configure(root=str(directory), durability=durability)  # type: ignore[arg-type]
    simtune.episode(env="bench").__enter__()

    def ask(messages: list[dict[str, str]], reply: simtune.Reply) -> str:
        return reply

    def finish() -> None:
        simtune.flush()
        if compacted:
            from simtune.recording import seal
            from simtune.store import compact

            seal(directory)
            compact(directory)

    captured = simtune.capture(ask)
    return lambda decision: captured(decision["prompt"], decision["reply"]), finish


def json_lines(directory: Path) -> Recorder:
    """`json.dumps` and a buffered file: the logger that everyone writes first."""
    file = (directory / "decisions.jsonl").open("w", encoding="utf-8")

    def record(decision: Decision) -> None:
        file.write(json.dumps({name: decision[name] for name in LOGGED}) + "\n")

    def finish() -> None:
        file.flush()
        os.fsync(file.fileno())

    return record, finish


def opentelemetry(directory: Path) -> Recorder:
    """OpenTelemetry spans through its batch processor into a file; no span may be dropped."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

    file = (directory / "spans.jsonl").open("w", encoding="utf-8")
    exporter = ConsoleSpanExporter(
        out=file, formatter=lambda span: span.to_json(indent=None) + "\n"
    )
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=1 << 20))
    tracer = provider.get_tracer("bench")

    def record(decision: Decision) -> None:
        with tracer.start_as_current_span("decision") as span:
            span.set_attribute("prompt", json.dumps(decision["prompt"]))
            for name in ("response", "token_ids", "logprobs"):
                span.set_attribute(name, decision[name])

    return record, provider.shutdown


def mlflow_tracing(directory: Path) -> Recorder:
    """MLflow's tracing, one trace per decision, into its SQLite store."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{directory}/mlflow.db")
    mlflow.set_experiment("bench")

    def record(decision: Decision) -> None:
        with mlflow.start_span("decision") as span:
            span.set_inputs({"messages": decision["prompt"]})
            span.set_outputs({"response": decision["response"]})
            span.set_attributes({name: decision[name] for name in ("token_ids", "logprobs")})

    return record, lambda: mlflow.flush_trace_async_logging(terminate=True)


def minari(directory: Path, tokens: int) -> Recorder:
    """Minari's data collector around an environment that does nothing, HDF5 storage."""
    os.environ["MINARI_DATASETS_PATH"] = str(directory)
    import gymnasium
    import numpy
    from minari import DataCollector

    class Silent(gymnasium.Env[Any, Any]):
        shown = ""
        observation_space = gymnasium.spaces.Text(65_536, min_length=0)
        action_space = gymnasium.spaces.Dict(
            {
                "response": gymnasium.spaces.Text(65_536, min_length=0),
                "token_ids": gymnasium.spaces.Box(0, 2**31 - 1, (tokens,), numpy.int64),
                "logprobs": gymnasium.spaces.Box(-100, 0, (tokens,), numpy.float32),
            }
        )

        def reset(self, **_: Any) -> tuple[str, dict[str, Any]]:
            return "", {}

        def step(self, action: Any) -> tuple[str, float, bool, bool, dict[str, Any]]:
            return self.shown, 0.5, False, False, {}

    environment = Silent()
    collector = DataCollector(environment)
    collector.reset()

    def record(decision: Decision) -> None:
        environment.shown = json.dumps(decision["prompt"])
        collector.step(
            {
                "response": decision["response"],
                "token_ids": numpy.array(decision["token_ids"], numpy.int64),
                "logprobs": numpy.array(decision["logprobs"], numpy.float32),
            }
        )

    return record, lambda: collector.create_dataset("bench/decisions-v0")


LOGGERS: dict[str, Callable[[Path], Recorder]] = {
    "simtune-buffered": partial(simtune_logger, durability="buffered"),
    "simtune-os": partial(simtune_logger, durability="os"),
    "simtune-disk": partial(simtune_logger, durability="disk"),
    "simtune-parquet": partial(simtune_logger, durability="buffered", compacted=True),
    "json-lines": json_lines,
    "opentelemetry": opentelemetry,
    "mlflow": mlflow_tracing,
}


def main(logger: str, size: str, calls: int, directory: Path) -> dict[str, float]:
    """Record `calls` decisions; times in microseconds per decision, and bytes on disk."""
    draw = random.Random(0)
    decisions = [SIZES[size](draw) for _ in range(calls)]
    record, finish = _logger(logger, directory, decisions)
    for decision in decisions[:WARM_UP]:
        record(decision)
    empty = statistics.median(_times(lambda _: None, decisions))
    cpu = time.process_time_ns()
    times = sorted(_times(record, decisions))
    finish()
    total = time.process_time_ns() - cpu
    written = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
    return {
        "median": (times[calls // 2] - empty) / 1000,
        "p99": (times[int(0.99 * calls)] - empty) / 1000,
        "cpu": total / calls / 1000,
        "bytes": written / (calls + WARM_UP),
    }


def _logger(logger: str, directory: Path, decisions: list[Decision]) -> Recorder:
    if logger == "minari":
        return minari(directory, len(decisions[0]["token_ids"]))
    if logger.startswith("simtune"):
        from simtune import Reply

        for decision in decisions:
            ids, logprobs = decision["token_ids"], decision["logprobs"]
            decision["reply"] = Reply(decision["response"], token_ids=ids, logprobs=logprobs)
    return LOGGERS[logger](directory)


def _times(record: Callable[[Decision], object], decisions: list[Decision]) -> list[int]:
    times = []
    for decision in decisions:
        started = time.perf_counter_ns()
        record(decision)
        times.append(time.perf_counter_ns() - started)
    return times


if __name__ == "__main__":
    sys.stdout.write(
        json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])))
    )
