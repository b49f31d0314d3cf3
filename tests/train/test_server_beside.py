"""An endpoint beside the trainer: a simulation that knows a URL plays, is learned from, and gets
the adapters as they are published. All real processes."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from simtune.errors import OptionError, TrainingError
from simtune.registry import Registry
from simtune.store import tail
from simtune.train import following_checks, server_beside
from simtune.train.options import SFTOptions


def ask(address, path, body, episode=None):
    headers = {"Content-Type": "application/json"}
    if episode is not None:
        headers["X-Simtune-Episode"] = episode
    request = urllib.request.Request(address + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def command(root, base, *more):
    return [
        *(sys.executable, "-m", "simtune.cli.main", "train", "ppo", "--llm-path", str(base)),
        *("--store", str(root / "store"), "--models-dir", str(root / "models")),
        *("--tracking-uri", str(root / "mlruns"), "--follow", "--serve", "0"),
        *("--episodes-per-iteration", "2", "--lora-r", "2", "--critic-warmup", "0"),
        *more,
    ]


@pytest.fixture
def trainer(tmp_path, tiny_model_dir):
    process = subprocess.Popen(
        command(tmp_path, tiny_model_dir), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    said = ""
    while "simtune serves on" not in said:
        said = process.stderr.readline()
        assert said, "the trainer ended"
    yield process, re.search(r"http://\S+?(?=/v1)", said)[0]
    process.kill()
    process.communicate()


def play(address, number):
    """One episode over HTTP, as any language could."""
    name = f"http-{number}"
    body = {
        "model": "latest",
        "messages": [{"role": "user", "content": "go left"}],
        "max_tokens": 4,
        "temperature": 1.0,
    }
    answer = ask(address, "/v1/chat/completions", body, episode=name)
    ask(address, f"/v1/simtune/episodes/{name}/reward", {"reward": 1.0})
    ask(address, f"/v1/simtune/episodes/{name}/finish", {"terminated": True})
    return answer


@pytest.mark.slow
def test_a_simulation_over_http_is_learned_from_and_gets_what_was_learned(
    tmp_path, trainer, tiny_model_dir
):
    process, address = trainer
    for number in range(200):
        play(address, number)
        records = Registry(tmp_path / "models").list()
        if len(records) >= 2:
            break
        time.sleep(0.05)
    hashes = {one.weights_sha256 for one in records}
    until = time.monotonic() + 60
    while time.monotonic() < until:
        play(address, f"after-{time.monotonic()}")
        decided = {
            decision.adapter
            for episode in tail(tmp_path / "store").episodes()
            for decision in episode.decisions
        }
        if decided & hashes:
            break
    assert decided & hashes
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    assert "registered ppo-" in said
    with pytest.raises(OSError):
        play(address, "too late")


@pytest.mark.slow
def test_the_server_ends_with_a_trainer_that_is_killed(trainer):
    process, address = trainer
    urllib.request.urlopen(address + "/health", timeout=30).close()
    os.kill(process.pid, signal.SIGKILL)
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            urllib.request.urlopen(address + "/health", timeout=5).close()
        except OSError:
            return
        time.sleep(0.1)
    raise AssertionError("the server goes on")


SERVER = """
import os, sys, time
print("simtune serves on nowhere", flush=True)
with open(sys.argv[sys.argv.index("--capture") + 1], "a") as file:
    print(os.getpid(), file=file)
sys.stdin.read()
"""


@pytest.fixture
def options(tmp_path):
    return SFTOptions(follow=True, serve=0, store=str(tmp_path / "started"))


def started(options, count):
    """Process ids of the servers, once there have been so many."""
    path = Path(options.store)
    until = time.monotonic() + 30
    while time.monotonic() < until:
        found = path.read_text().split() if path.exists() else []
        if len(found) == count:
            return [int(one) for one in found]
        time.sleep(0.01)
    raise AssertionError(f"no {count} servers")


def running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_server_runs_as_long_as_the_trainer(options, monkeypatch, capsys):
    monkeypatch.setattr(server_beside, "_PROGRAM", SERVER)
    with server_beside.server_beside(options):
        (pid,) = started(options, 1)
        assert running(pid)
    assert not running(pid)
    assert capsys.readouterr().err == "simtune serves on nowhere\n"


@pytest.mark.filterwarnings("ignore:the server ended with code -9:RuntimeWarning")
def test_a_server_that_dies_is_started_again(options, monkeypatch):
    monkeypatch.setattr(server_beside, "_PROGRAM", SERVER)
    with server_beside.server_beside(options):
        os.kill(started(options, 1)[0], signal.SIGKILL)
        _, second = started(options, 2)
        assert running(second)
    assert not running(second)


def test_a_server_that_cannot_start_ends_the_trainer(options, monkeypatch):
    monkeypatch.setattr(server_beside, "_PROGRAM", "import sys; sys.exit(2)")
    with (
        pytest.raises(TrainingError, match="could not start"),
        server_beside.server_beside(options),
    ):
        raise AssertionError("it did")


def test_a_port_that_is_taken_is_said_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr(following_checks, "_SECONDS_FOR_A_PORT", 0.05)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OptionError, match=f"port {port}"):
            following_checks.check_following(SFTOptions(follow=True, store="x", serve=port))
