"""Each test has a store of its own, and leaves capture as it found it."""

import pytest
from read_back import Store

from simtune import config, plugins
from simtune.recording import announce, guard, recorders, redaction


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "_current", config.Config(root=str(tmp_path / "store")))
    monkeypatch.setattr(recorders, "_by_root", {})
    monkeypatch.setattr(recorders, "_active", None)
    monkeypatch.setattr(announce, "_unusable", False)
    monkeypatch.setattr(redaction, "_everywhere", ())
    guard.forget_failures()
    yield Store(tmp_path / "store")
    for recorder in recorders.recorders():
        recorder.close()
    guard.forget_failures()


@pytest.fixture
def plugin():
    """Registers hooks for the time of a test."""
    registered = []

    def register(hooks):
        plugins.manager().register(hooks)
        registered.append(hooks)

    yield register
    for hooks in registered:
        plugins.manager().unregister(hooks)
