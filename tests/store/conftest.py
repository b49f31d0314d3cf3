"""Each test that captures has a store of its own, and leaves capture as it found it."""

import pytest

from simtune import config
from simtune.recording import announce, guard, recorders


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty store into which `simtune.episode` and friends capture."""
    monkeypatch.setattr(config, "_current", config.Config(root=str(tmp_path / "store")))
    monkeypatch.setattr(recorders, "_by_root", {})
    monkeypatch.setattr(recorders, "_active", None)
    monkeypatch.setattr(announce, "_unusable", False)
    guard.forget_failures()
    yield tmp_path / "store"
    for recorder in recorders.recorders():
        recorder.close()
