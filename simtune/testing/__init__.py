"""For authors: does my plugin, does my simulator's adapter keep simtune's contract?

Both checks collect every problem they find and raise them together, so one run shows all.
"""

from simtune.testing.adapters import check_adapter
from simtune.testing.plugins import check_plugin

__all__ = ["check_adapter", "check_plugin"]
