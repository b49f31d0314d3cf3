"""The programs of this example, each a process of its own; they share a directory."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SIMTUNE = Path(sys.executable).with_name("simtune")
SETTINGS = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(HERE)}

SERVE = "serve --llm-path base --capture store"
TRAIN = (
    "train ppo --llm-path base --store store --follow --episodes-per-iteration 48 --gamma 0 "
    "--max-staleness 3 --keep-published 1000 --learning-rate 1e-3 --critic-learning-rate 3e-3 "
    "--minibatch-size 48 --entropy-coef 0.02 --whiten false"
)
WATCH = "models watch --store store --min-baseline 30"
GATE = "eval --gate --env crossing_env:make --decision choose --seed 500000"
TRAIN_WRONG = (
    f"train sft --llm-path base --store store --plugin {HERE}/wrong_sign.py --reward left_waiting "
    "--min-score 2 --epochs 2 --learning-rate 2e-3"
)


def commands(port: int) -> dict[str, list[str]]:
    """What runs all the time; the simulation with curl is only ever given the champion."""
    url = f"http://127.0.0.1:{port}/v1"
    return {
        "server": [str(SIMTUNE), *SERVE.split(), "--port", str(port)],
        "trainer": [str(SIMTUNE), *TRAIN.split()],
        "openai": [sys.executable, f"{HERE}/with_openai.py", url, "latest"],
        "urllib": [sys.executable, f"{HERE}/with_urllib.py", url, "latest"],
        "curl": ["bash", f"{HERE}/with_curl.sh", url, "champion"],
    }


def start(place: Path, name: str, command: list[str]) -> subprocess.Popen[bytes]:
    """Start a program in the directory; what it says goes to `NAME.log` there."""
    with open(place / f"{name}.log", "ab") as log:
        return subprocess.Popen(command, cwd=place, env=SETTINGS, stdout=log, stderr=log)


def simtune(place: Path, words: str) -> int:
    """Run `simtune WORDS` in the directory; returns its exit code."""
    command = [str(SIMTUNE), *words.split()]
    return subprocess.run(command, cwd=place, env=SETTINGS, check=False).returncode
