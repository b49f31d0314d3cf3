"""What counts as success."""

import pytest

from simtune.gym.outcomes import outcome, said_success


@pytest.mark.parametrize(
    ("info", "terminated", "total", "success"),
    [
        ({}, True, 1.0, True),
        ({}, True, 0.0, False),
        ({}, False, 5.0, False),  # cut off: the environment did not say that it was solved
        ({"is_success": True}, False, -3.0, True),
        ({"success": 0}, True, 9.0, False),
        ({"is_success": False, "success": True}, True, 9.0, False),
    ],
)
def test_the_environments_word_counts_first(info, terminated, total, success):
    assert outcome(said_success(info), terminated=terminated, total=total) == {
        "success": success,
        "return": total,
    }
