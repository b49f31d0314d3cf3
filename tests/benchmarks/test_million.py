"""The benchmark's two processes, at a size for tests: everything arrives, in bounded memory."""

import pytest

from .million import measure


@pytest.mark.parametrize(
    "decisions", [2_000, pytest.param(200_000, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_everything_arrives_and_memory_stays_flat(decisions):
    found = measure(decisions)
    episodes = decisions // 20
    assert found["compactor"]["rows"] == decisions + 2 * episodes
    assert found["compactor"]["files"] >= 1
    assert found["writer"]["peak_mb"] <= 300
    assert found["compactor"]["peak_mb"] <= 500
