"""The two games as simtune's environments: text in, text out, and the chat so far as the prompt."""

from __future__ import annotations

from typing import Any

import gymnasium

from simtune.records import Messages
from tests.benchmarks.peers.training.work import GridWalk, Reading, Tally

TALLY = Tally()
"""Of every environment in this process."""


class Chat(gymnasium.Env[str, str]):
    """A game whose prompts are the whole chat.

    Args:
        game: what is played.
    """

    metadata: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, game: GridWalk | Reading) -> None:
        self.game = game
        self.choices = game.answers
        text = gymnasium.spaces.Text(1024, min_length=0, charset=game.characters)
        self.observation_space = self.action_space = text
        self._chat: Messages = []

    def messages(self, observation: str) -> Messages:
        """The chat so far."""
        return list(self._chat)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        """Begin an episode."""
        shown, info = self.game.reset(seed=seed)
        self._chat = [{"role": "user", "content": shown}]
        return shown, info

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take an answer."""
        stepped = self.game.step(action)
        self._chat += [
            {"role": "assistant", "content": action},
            {"role": "user", "content": stepped[0]},
        ]
        return stepped


def grid_walk() -> Chat:
    """See `GridWalk`."""
    return Chat(GridWalk(TALLY))


def reading() -> Chat:
    """See `Reading`."""
    return Chat(Reading(TALLY))
