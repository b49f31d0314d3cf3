"""Environments of the benchmark's own: what peers need never enters simtune's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def interpreter(requirements: str) -> Path:
    """Python of an environment with the packages of a file in this folder; made at first use.

    It lies beside simtune's own as `.venv-peers-<name of the file>` and is made anew where the
    file changed.
    """
    wanted = HERE / requirements
    place = Path.cwd() / f".venv-peers-{wanted.stem}"
    made = place / "made-of.txt"
    python = place / "bin" / "python"
    if made.exists() and made.read_text() == wanted.read_text():
        return python
    sys.stderr.write(f"making {place.name} of {requirements}\n")
    subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "-r", wanted]
    subprocess.run(install, check=True)
    made.write_text(wanted.read_text())
    return python
