"""`simtune doctor` as the installed command."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import simtune
from simtune import config
from simtune.cli import main as frame
from simtune.recording import recorders
from tests.doctor.broken_things import write_episodes


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SIMTUNE_ROOT", raising=False)
    monkeypatch.setattr(config, "_current", None)
    monkeypatch.setattr(recorders, "_by_root", {})
    monkeypatch.setattr(recorders, "_active", None)
    return tmp_path


def doctor(*arguments, **environment):
    program = Path(sys.executable).with_name("simtune")
    return subprocess.run(
        [program, "doctor", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


def levels(done):
    return {each["code"]: each["level"] for each in json.loads(done.stdout)["findings"]}


MACHINE = {"too-many-threads", "low-memory", "gpu-nearly-full", "disk-nearly-full", "cpu-torch"}
"""What the machine that runs the tests may really have."""


def test_a_captured_store_has_no_warning_and_nothing_is_changed(place):
    simtune.configure(root="store")

    def answer(messages):
        return simtune.Reply("3", prompt_token_ids=[1], token_ids=[2], logprobs=[-0.5])

    ask = simtune.capture(answer)
    for day in range(12):
        with simtune.episode(env="market", seed=day) as episode:
            ask([{"role": "user", "content": f"day {day}"}])
            simtune.reward(day)
            episode.finish(terminated=True)
    simtune.flush()
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    began = time.perf_counter()
    done = doctor("--json", SIMTUNE_ROOT="store")
    assert time.perf_counter() - began < 20
    found = levels(done)
    wrong = {code for code, level in found.items() if level in ("warning", "error")} - MACHINE
    assert wrong == set(), done.stdout
    assert found["capture"] == "ok"
    assert done.returncode == (1 if MACHINE & set(found) else 0)
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before


def test_findings_are_printed_with_the_command_that_mends_them(place):
    write_episodes(place / "store", 3, end=False)
    (place / "store").chmod(0o755)
    done = doctor("--store", "store")
    assert done.returncode == 1
    text = " ".join(done.stdout.split())
    assert "error no-episode-ends: no episode has ended" in text
    assert "-> chmod -R go-rwx store" in text
    assert all(len(line) <= 120 for line in done.stdout.splitlines())
    assert done.stderr == ""


def test_a_model_that_is_none_is_bad_input(place, capsys):
    assert frame.main(["doctor", "--llm-path", "nowhere"]) == 2
    assert "no base model in 'nowhere'" in capsys.readouterr().err
    assert frame.main(["doctor", "--stor", "x"]) == 2


def test_it_loads_no_heavy_library(place):
    write_episodes(place / "store", 3)
    program = (
        "import sys; from simtune.cli.main import main; main(['doctor', '--store', 'store']);"
        "print([name for name in ('torch', 'transformers', 'mlflow', 'gymnasium', 'duckdb')"
        " if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
