"""The dashboard on a real terminal, and plain lines where there is none."""

import os
import pty
import re
import subprocess
import sys

import pytest

from simtune.cli.dashboard import progress_of, sparkline
from simtune.cli.progress import Progress
from simtune.train.options import PPOOptions, SFTOptions

SHOW = """
import time
from simtune.cli.dashboard import progress_of
from simtune.train.options import PPOOptions

options = PPOOptions(llm_path="b", iterations=20, tracking_uri="./runs", experiment_name="maps")
with progress_of("ppo", options) as shown:
    for done in range(1, 9):
        metrics = {"return": done / 8, "success": 0.25, "entropy": 1.5, "approx_kl": 0.0125}
        if done % 4 == 0:
            metrics |= {"eval_return": 0.5, "eval_return_low": 0.25, "eval_return_high": 0.75}
        shown.update(done, 20, metrics)
        time.sleep(0.02)
"""


def on_a_terminal(**environment):
    """What a process writes to a terminal of 100 columns."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", SHOW],
        stderr=child,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"} | environment,
    )
    os.close(child)
    said = b""
    while True:
        try:
            said += os.read(parent, 65536)
        except OSError:  # Linux says EIO when the other side has closed.
            break
    os.close(parent)
    assert process.wait() == 0
    return said.decode()


def test_a_terminal_shows_curves_numbers_rate_and_where_mlflow_is():
    raw = on_a_terminal()
    assert "\x1b[?25l" in raw and "\x1b[?25h" in raw  # The cursor is hidden, and back at the end.
    screen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", raw)
    last = [line.rstrip() for line in screen[screen.rindex("ppo  round 8/20") :].splitlines()]
    assert re.fullmatch(r"ppo  round 8/20  0:00:0\d  [\d.]+ rounds/s  0:00:0\d left", last[0])
    assert re.fullmatch(r"return +1 +▁▂▃▄▅▆▇█", last[1])
    assert re.fullmatch(r"success +0.25 +▁{8}", last[2])
    assert re.fullmatch(r"eval_return +0.5 \[0.25, 0.75\] +▁▁", last[3])
    assert last[4:7] == [
        "entropy    1.5",
        "approx_kl  0.0125",
        "MLflow ./runs, experiment maps",
    ]


def test_a_terminal_that_cannot_move_its_cursor_gets_lines():
    raw = on_a_terminal(TERM="dumb")
    assert "▁" not in raw


def test_a_pipe_gets_plain_lines():
    done = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert "\x1b" not in done.stderr and "▁" not in done.stderr
    assert re.match(r"ppo: 8/20  .*return 1  success 0.25", done.stderr)


def test_the_other_processes_of_a_run_are_silent(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with progress_of("ppo", PPOOptions(llm_path="b")) as shown:
        shown.update(20, 20, {"return": 1.0})
    assert capsys.readouterr().err == ""


def test_sft_has_a_bar():
    assert isinstance(progress_of("sft", SFTOptions(llm_path="b")), Progress)


@pytest.mark.parametrize(
    ("values", "width", "bars"),
    [
        ([], 8, ""),
        ([1.0, 1.0], 8, "▁▁"),
        ([0.0, 7.0], 8, "▁█"),
        ([0.0, float("nan"), 7.0], 8, "▁ █"),
        # Six values in three columns: means 1, 3 and 5.
        ([0.0, 2.0, 2.0, 4.0, 4.0, 6.0], 3, "▁▅█"),
    ],
)
def test_a_sparkline_spans_least_to_greatest(values, width, bars):
    assert sparkline(values, width) == bars
