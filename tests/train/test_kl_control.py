import pytest

from simtune.train.kl_control import KLControl


@pytest.mark.parametrize(
    ("divergence", "expected"),
    # Target .02: above .03 doubled, below .01333 halved, between them left alone.
    [(0.031, 0.2), (0.029, 0.1), (0.02, 0.1), (0.0134, 0.1), (0.0133, 0.05), (0.0, 0.05)],
)
def test_the_weight_is_doubled_or_halved_outside_the_band(divergence, expected):
    control = KLControl(0.1, 0.02)
    control.observe(divergence)
    assert control.coefficient == pytest.approx(expected)


def test_without_a_target_it_stays():
    control = KLControl(0.1, None)
    control.observe(5.0)
    assert control.coefficient == 0.1
