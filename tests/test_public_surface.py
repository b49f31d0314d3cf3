"""The public names, and how little it takes to have them."""

import json
import subprocess
import sys

import simtune

HEAVY = ["torch", "transformers", "pyarrow", "gymnasium", "mlflow", "numpy"]


def modules_after(code, cwd):
    """The heavy modules that a fresh interpreter has loaded, and what it printed itself."""
    code += f"\nimport sys, json\nprint(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    *printed, loaded = done.stdout.splitlines()
    assert printed == []
    return json.loads(loaded)


def test_the_public_names_are_these():
    assert simtune.__all__ == [
        "Decision",
        "Episode",
        "Reply",
        "__version__",
        "capture",
        "configure",
        "episode",
        "flush",
        "gym",
        "hookimpl",
        "hooks",
        "hookspec",
        "read",
        "reward",
        "run_tuning",
        "testing",
    ]


def test_importing_loads_nothing_heavy_and_says_nothing(tmp_path):
    assert modules_after("import simtune", tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_importing_reads_no_environment_and_no_entry_points(tmp_path):
    code = """
import importlib.metadata, os
def refuse(*args, **kwargs):
    raise AssertionError("import simtune must not do this")
importlib.metadata.distributions = importlib.metadata.entry_points = refuse
class Closed(dict):
    __getitem__ = get = __contains__ = refuse
environ, os.environ = os.environ, Closed()
import simtune
os.environ = environ
"""
    assert modules_after(code, tmp_path) == []


def test_the_first_captured_decision_loads_nothing_heavy(tmp_path):
    code = """
import simtune
@simtune.capture
def ask(prompt):
    return simtune.Reply("left", token_ids=[1], logprobs=[-0.5])
with simtune.episode(env="e", seed=1) as log:
    ask("left or right?")
    simtune.reward(1.0)
    log.finish(terminated=True, outcome={"success": True})
simtune.flush()
"""
    assert modules_after(code, tmp_path) == []
    assert len(list((tmp_path / "simtune-data" / "wal").glob("*.wal"))) == 1
