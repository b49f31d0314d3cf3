"""The installed command, run as a user runs it, and two models to run it on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

SIMTUNE = Path(sys.executable).with_name("simtune")
LIMIT = 500


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Demo(NamedTuple):
    """A finished `simtune demo --quick`."""

    directory: Path
    ended: Ended


def _run(command, cwd) -> Ended:
    own = {name: value for name, value in os.environ.items() if not name.startswith("SIMTUNE_")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        # Models this small only lose by sharing their work among threads.
        env=own | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def command():
    """Run `simtune ...`, however it ends."""
    return lambda *arguments, cwd: _run([SIMTUNE, *arguments], cwd)


@pytest.fixture(scope="session")
def simtune(command):
    """Run `simtune ...` and expect an exit code; never a traceback, never a warning."""

    def run(*arguments, cwd, code=0) -> Ended:
        ended = command(*arguments, cwd=cwd)
        assert ended.code == code, ended.err
        for word in ("Traceback", "Warning", "warning"):
            assert word not in ended.err, ended.err
        return ended

    return run


@pytest.fixture(scope="session")
def python():
    """Run a script of the user's and expect it to be quiet and to succeed."""

    def run(script, *arguments, cwd) -> Ended:
        ended = _run([sys.executable, script, *arguments], cwd)
        assert (ended.code, ended.err) == (0, "")
        return ended

    return run


@pytest.fixture(scope="session")
def demo(tmp_path_factory, simtune) -> Demo:
    """The demo, once; what it leaves behind is looked at by several tests, changed by none."""
    place = tmp_path_factory.mktemp("demo")
    return Demo(place / "D", simtune("demo", "--quick", "--dir", "D", cwd=place))


@pytest.fixture(scope="session")
def base(demo) -> Path:
    """A tiny base that has seen the lake: the demo's, because making one takes half a minute."""
    return demo.directory / "base"


@pytest.fixture(scope="session")
def bare_base(tmp_path_factory) -> Path:
    """The same model with random weights, made in a second: enough to be refused with."""
    from simtune.policy.tiny import build_model, build_tokenizer, save_base

    output = tmp_path_factory.mktemp("bare") / "base"
    tokenizer = build_tokenizer(["which way? left, right, up or down"] * 20, vocab_size=300)
    save_base(build_model(tokenizer), tokenizer, output)
    return output


@pytest.fixture(scope="session")
def files():
    """Every file below a directory with its bytes, to see that nothing was touched."""

    def read(directory: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(directory)): path.read_bytes()
            for path in sorted(directory.rglob("*"))
            if path.is_file()
        }

    return read
