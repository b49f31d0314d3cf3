"""Settings from the environment."""

import pytest

from simtune.config import LARGEST_RECORD, from_environment
from simtune.errors import OptionError
from simtune.recording.frames import MAX_PAYLOAD


def test_every_setting_has_a_variable(monkeypatch):
    values = {
        "root": "elsewhere",
        "durability": "disk",
        "backpressure": "drop",
        "buffer_bytes": 1,
        "backlog_bytes": 2,
        "compactor": "none",
        "record_bytes": 3,
        "segment_bytes": 4,
        "segment_seconds": 0.5,
    }
    for name, value in values.items():
        monkeypatch.setenv(f"SIMTUNE_{name.upper()}", str(value))
    found = from_environment()
    assert {name: getattr(found, name) for name in values} == values


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SIMTUNE_BACKLOG_BYTES", "many"),
        ("SIMTUNE_BACKLOG_BYTES", "0"),
        ("SIMTUNE_DURABILITY", "eternal"),
        ("SIMTUNE_COMPACTOR", "perhaps"),
        ("SIMTUNE_RECORD_BYTES", str(LARGEST_RECORD + 1)),
    ],
)
def test_a_variable_that_cannot_be_used_is_an_error(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(OptionError):
        from_environment()


def test_the_largest_record_can_be_read_back():
    assert LARGEST_RECORD < MAX_PAYLOAD
