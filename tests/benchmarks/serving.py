"""`simtune serve` next to `transformers serve --continuous-batching`: real processes in turn.

A 10M-parameter Llama and the demo's tiny one; 32 callers over HTTP, each asking again as soon as it
is answered. `independent`: prompts of their own; `shared`: a beginning of 700 tokens that all
callers have, as a simulation's agents do, and a short end of their own. One thread for torch.

    python -m tests.benchmarks.serving
"""

from __future__ import annotations

import http.client
import json
import os
import queue
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import Measured, of_rates, of_times

CALLERS, ANSWERS, SAMPLED = 32, 64, 32
RUNS = 3
SHARED_TOKENS = 700
WARM_UP = 8


def measure() -> Iterator[Measured]:
    """Tokens per second and latencies of both servers, for both models and both kinds of prompt."""
    with tempfile.TemporaryDirectory() as place:
        for name, sizes in (("tiny", (128, 4, 4, 384)), ("10M", (320, 8, 5, 864))):
            base = Path(place) / name
            _make(base, *sizes)
            for server, start in (
                ("simtune serve", _simtune),
                ("transformers serve", _transformers),
            ):
                with _Running(start(base)) as running:
                    for kind in ("independent", "shared"):
                        yield from _asked(f"{name}, {kind}: {server}", running, str(base), kind)


def _asked(what: str, running: _Running, model: str, kind: str) -> Iterator[Measured]:
    _crowd(running, model, _prompts(kind, seed=99)[:WARM_UP])
    rates, cpu, latencies = [], [], []
    for run in range(RUNS):
        began, used = time.perf_counter(), running.cpu_seconds()
        found = _crowd(running, model, _prompts(kind, seed=run))
        tokens = sum(count for _, count in found)
        rates.append(tokens / (time.perf_counter() - began))
        cpu.append(tokens / (running.cpu_seconds() - used))
        latencies += [1000 * seconds for seconds, _ in found]
    yield of_rates(f"{what}, wall clock", "tokens/s", rates)
    yield of_rates(f"{what}, its CPU time", "tokens/s", cpu)
    yield of_times(f"{what}, latency", "ms", latencies)


def _prompts(kind: str, seed: int) -> list[str]:
    chance = random.Random(seed)

    def text(count: int) -> str:
        return "".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=count))

    shared = text(SHARED_TOKENS) if kind == "shared" else ""
    low, high = (20, 40) if kind == "shared" else (40, 160)
    return [shared + text(chance.randint(low, high)) for _ in range(ANSWERS)]


def _crowd(running: _Running, model: str, prompts: list[str]) -> list[tuple[float, int]]:
    """Seconds and tokens of each answer."""
    left: queue.SimpleQueue[str] = queue.SimpleQueue()
    for prompt in prompts:
        left.put(prompt)
    found: list[tuple[float, int]] = []

    def caller() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=1800)
        while True:
            try:
                prompt = left.get_nowait()
            except queue.Empty:
                break
            body = {
                "model": model,
                "messages": [{"role": "user", "content": prompt}],
                "max_tokens": SAMPLED,
                "temperature": 1.0,
            }
            began = time.perf_counter()
            headers = {"content-type": "application/json"}
            connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
            answer = json.load(connection.getresponse())
            found.append((time.perf_counter() - began, answer["usage"]["completion_tokens"]))
        connection.close()

    threads = [threading.Thread(target=caller) for _ in range(CALLERS)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(found) == len(prompts), "a request failed"
    return found


def _make(output: Path, width: int, layers: int, heads: int, inner: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from simtune.policy.tiny import build_tokenizer, save_base

    tokenizer = build_tokenizer(["x"], vocab_size=270)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    save_base(LlamaForCausalLM(config), tokenizer, output)


Command = Callable[[int], list[str]]


def _simtune(base: Path) -> Command:
    program = str(Path(sys.executable).with_name("simtune"))
    return lambda port: [program, "serve", "--llm-path", str(base), "--port", str(port)]


def _transformers(base: Path) -> Command:
    program = str(Path(sys.executable).with_name("transformers"))
    return lambda port: [
        *(program, "serve", str(base), "--continuous-batching", "--port", str(port)),
        *("--device", "cpu", "--host", "127.0.0.1", "--log-level", "error"),
        *("--cb-num-blocks", "256", "--cb-max-batch-tokens", "2048"),
    ]


class _Running:
    """A server process until it is left."""

    def __init__(self, command: Command) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self._process = subprocess.Popen(
            command(self.port),
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self) -> _Running:
        for _ in range(1200):
            if self._process.poll() is not None:
                raise RuntimeError("the server did not start")
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return self
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("the server does not answer")

    def __exit__(self, *_: Any) -> None:
        self._process.terminate()
        self._process.wait()

    def cpu_seconds(self) -> float:
        """What the process has used so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    for line in measure():
        sys.stdout.write(f"{line.what}: {line.median:.4g} {line.unit} (worst {line.worst:.4g})\n")
        sys.stdout.flush()
