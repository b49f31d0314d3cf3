"""Progress without a terminal: plain lines on stderr."""

from simtune.cli import progress
from simtune.cli.progress import Progress


def test_the_last_step_is_a_line_with_rate_and_numbers(capsys):
    with Progress("sft") as shown:
        shown.update(1, 4, {"loss": 2.0})
        shown.update(4, 4, {"loss": 0.51239})
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("sft: 4/4  ") and "/s" in line and line.endswith("loss 0.5124")


def test_lines_are_seconds_apart_and_say_what_is_left(capsys, monkeypatch):
    clock = iter([0.0, 0.0, 1.0, 6.0, 6.0, 7.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    shown = Progress("ppo", 10).__enter__()
    shown.update(1, 10, {})
    shown.update(2, 10, {})
    (line,) = capsys.readouterr().err.splitlines()
    # 2 of 10 in 6 s: 8 more at a third of one per second.
    assert line == "ppo: 2/10  0.333/s  6 s  24 s left"


def test_an_unknown_total_ends_with_its_count(capsys):
    with Progress("episodes") as shown:
        for _ in range(3):
            shown.advance()
    assert capsys.readouterr().err.startswith("episodes: 3  ")


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    with Progress("sft", 2) as shown:
        shown.update(2, 2, {"loss": 0.5})
    assert "2/2" in capsys.readouterr().err
