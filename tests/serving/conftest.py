"""A base model, adapters in a registry, and real `simtune serve` processes."""

import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from simtune.policy.adapter_hash import adapter_sha256
from simtune.policy.local import load_base, quiet
from simtune.policy.tiny import build_model, build_tokenizer, save_base
from simtune.registry import Registry

STARTS_WITHIN = 120


@pytest.fixture(scope="session")
def base_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("serving") / "base-tiny"
    tokenizer = build_tokenizer(["5 buyers. Your price, 1 to 9? left right up down é"] * 20)
    save_base(build_model(tokenizer), tokenizer, path)
    return path


@pytest.fixture(scope="session")
def register(base_dir):
    """Puts an adapter of random weights, told by its seed, into a registry."""

    def put(models_dir, seed, **record):
        from peft import LoraConfig, get_peft_model

        model, _ = load_base(base_dir)
        torch.manual_seed(seed)
        config = LoraConfig(
            task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False
        )
        with quiet():
            adapted = get_peft_model(model, config)
        registry = Registry(models_dir)
        with registry.staging() as staged:
            adapted.save_pretrained(str(staged))
            return registry.register(
                staged,
                method="sft",
                base_model=str(base_dir),
                weights_sha256=adapter_sha256(adapted),
                **record,
            )

    return put


class Process:
    """A running `simtune serve`.

    Attributes:
        url: of the server, without `/v1`.
    """

    def __init__(self, *arguments, env=None):
        program = Path(sys.executable).with_name("simtune")
        self.popen = subprocess.Popen(
            [program, "serve", "--port", "0", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **(env or {})},
        )
        self.errors = []
        self._errors = threading.Thread(target=self._read_errors, daemon=True)
        self._errors.start()
        said = queue.Queue()
        threading.Thread(target=lambda: said.put(self.popen.stdout.readline()), daemon=True).start()
        line = said.get(timeout=STARTS_WITHIN)
        if not line:
            self._errors.join(10)
            raise AssertionError("".join(self.errors))
        self.url = line.split()[-1].removesuffix("/v1")

    def _read_errors(self):
        self.errors += self.popen.stderr.readlines()

    def stop(self, by=signal.SIGTERM):
        """End it; returns its exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(by)
        code = self.popen.wait(60)
        self._errors.join(10)
        self.popen.stdout.close()
        self.popen.stderr.close()
        return code


@pytest.fixture(scope="session")
def serve(base_dir):
    """Starts servers; those still running are ended with the session."""
    running = []

    def start(*arguments, env=None):
        process = Process("--llm-path", base_dir, *arguments, env=env)
        running.append(process)
        return process

    yield start
    for process in running:
        process.stop()


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory, register):
    path = tmp_path_factory.mktemp("models")
    for seed in (1, 2):
        register(path, seed)
    return path


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("served") / "store"


@pytest.fixture(scope="session")
def server(serve, models_dir, store):
    """A server with two adapters that captures."""
    return serve(
        *("--models-dir", models_dir, "--capture", store, "--max-concurrency", 32),
        env={"SIMTUNE_SEGMENT_SECONDS": "0.2"},  # so that tests can read while it runs
    )


@pytest.fixture(scope="session")
def client(server):
    import openai

    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made
