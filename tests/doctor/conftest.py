"""A sound store, registry and machine for the doctor's tests, which then break one thing each."""

import os

import pytest

from simtune import config, plugins
from simtune.doctor import Subject, diagnose
from simtune.doctor import devices as devices_module
from simtune.doctor import threads as threads_module
from simtune.recording import recorders
from simtune.store import compact
from tests.doctor.broken_things import write_episodes


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No settings, plugins or processes of this machine are seen."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("SIMTUNE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(config, "_current", None)
    monkeypatch.setattr(recorders, "_by_root", {})
    monkeypatch.setattr(recorders, "_active", None)
    (tmp_path / "proc").mkdir()
    monkeypatch.setattr(threads_module, "PROC", tmp_path / "proc")
    (tmp_path / "meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable: 8000000 kB\n")
    monkeypatch.setattr(devices_module, "MEMINFO", tmp_path / "meminfo")
    plugins.reset()
    yield
    plugins.reset()


@pytest.fixture
def root(tmp_path):
    """A compacted store of twelve sound episodes."""
    write_episodes(tmp_path / "store")
    compact(tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def found(root):
    """Examine: names of checks, and what else the subject is to have; code -> finding."""

    def examine(*checks, **named):
        subject = Subject(str(named.pop("store", root)), **named)
        report = diagnose(subject, checks) if checks else diagnose(subject)
        return {finding.code: finding for finding in report.findings}

    return examine
