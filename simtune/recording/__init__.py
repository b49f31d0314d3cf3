"""Capture: the decorator, episodes, and the write-ahead log that holds every decision.

Only msgspec and the standard library. The readers' side of the log is `frames` and `segments`.
"""

from simtune.recording.api import configure, episode, flush, open_episode, reward, seal
from simtune.recording.decorator import capture
from simtune.recording.episodes import EpisodeLog

__all__ = [
    "EpisodeLog",
    "capture",
    "configure",
    "episode",
    "flush",
    "open_episode",
    "reward",
    "seal",
]
