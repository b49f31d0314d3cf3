"""Training from the store, from a file, or from roll-outs: one trainer per method."""

from simtune.train.tuning import run_tuning

__all__ = ["run_tuning"]
