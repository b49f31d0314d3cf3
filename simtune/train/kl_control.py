"""How much leaving the base model costs: a fixed coefficient, or one that holds a target."""

from __future__ import annotations

TOLERANCE = 1.5
"""A divergence within this factor of the target leaves the coefficient as it is."""


class KLControl:
    """The coefficient of the KL to the base.

    With a target it is doubled after a round whose divergence was above 1.5 times the target, and
    halved after one below target / 1.5 (the adaptive penalty of arXiv 1707.06347, section 4).

    Args:
        coefficient: to begin with; 0 means no penalty at all.
        target: nats per unit, or None for a fixed coefficient.
    """

    def __init__(self, coefficient: float, target: float | None) -> None:
        self.coefficient = coefficient
        self.target = target

    def observe(self, divergence: float) -> None:
        """Adapt to a round's mean KL to the base, nats per unit."""
        if self.target is None:
            return
        if divergence > self.target * TOLERANCE:
            self.coefficient *= 2.0
        elif divergence < self.target / TOLERANCE:
            self.coefficient /= 2.0
