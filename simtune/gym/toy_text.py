"""Gymnasium's toy-text environments in words: task, action names, and what the player sees.

Every text is made from the unwrapped environment's own state, is deterministic, and is short:
words are separated by spaces, so that a small tokenizer needs one token for most of them.
"""

from __future__ import annotations

from typing import Any

from gymnasium import Env
from gymnasium.envs.toy_text.blackjack import BlackjackEnv
from gymnasium.envs.toy_text.cliffwalking import CliffWalkingEnv
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv
from gymnasium.envs.toy_text.taxi import TaxiEnv

from simtune.gym.view import View

_CELL_WORDS = {"F": "ice", "S": "ice", "H": "hole", "G": "goal"}
_PLACES = ("red", "green", "yellow", "blue")


def frozen_lake_text(observation: Any, env: Env[Any, Any]) -> str:
    """The whole map, the player's cell marked P, then the four neighbouring cells."""
    lake: Any = env
    rows = [[cell.decode() for cell in row] for row in lake.desc.tolist()]
    row, column = divmod(int(lake.s), lake.ncol)
    around = []
    for name, r, c in (
        ("left", row, column - 1),
        ("down", row + 1, column),
        ("right", row, column + 1),
        ("up", row - 1, column),
    ):
        inside = 0 <= r < lake.nrow and 0 <= c < lake.ncol
        around.append(f"{name} {_CELL_WORDS[rows[r][c]] if inside else 'wall'}")
    rows[row][column] = "P"
    return "\n".join([*(" ".join(cells) for cells in rows), ", ".join(around)])


def taxi_text(observation: Any, env: Env[Any, Any]) -> str:
    """Where the taxi, the passenger and the destination are, and which ways are open."""
    taxi: Any = env
    row, column, passenger, destination = (int(part) for part in taxi.decode(int(taxi.s)))
    waiting = "in the taxi" if passenger == 4 else f"at {_place(taxi, passenger)}"
    open_east = column < 4 and taxi.desc[row + 1, 2 * column + 2] == b":"
    open_west = column > 0 and taxi.desc[row + 1, 2 * column] == b":"
    ways = (("south", row < 4), ("north", row > 0), ("east", open_east), ("west", open_west))
    return "\n".join(
        (
            f"taxi at row {row} column {column}",
            f"passenger {waiting}",
            f"destination {_place(taxi, destination)}",
            ", ".join(f"{name} {'free' if is_open else 'wall'}" for name, is_open in ways),
        )
    )


def _place(taxi: Any, index: int) -> str:
    row, column = taxi.locs[index]
    return f"{_PLACES[index]} row {row} column {column}"


def cliff_walking_text(observation: Any, env: Env[Any, Any]) -> str:
    """Where the player and the goal are, and what lies in each direction."""
    walk: Any = env
    height, width = (int(side) for side in walk.shape)
    row, column = divmod(int(walk.s), width)
    around = []
    for name, r, c in (
        ("up", row - 1, column),
        ("right", row, column + 1),
        ("down", row + 1, column),
        ("left", row, column - 1),
    ):
        inside = 0 <= r < height and 0 <= c < width
        goal = (r, c) == (height - 1, width - 1)
        free = "goal" if goal else "free"
        around.append(f"{name} {('cliff' if walk._cliff[r, c] else free) if inside else 'wall'}")
    here = f"player at row {row} column {column}"
    return f"{here}\ngoal at row {height - 1} column {width - 1}\n{', '.join(around)}"


def blackjack_text(observation: Any, env: Env[Any, Any]) -> str:
    """The player's sum, whether an ace counts 11 in it, and the dealer's open card."""
    total, dealer, usable_ace = (int(part) for part in observation)
    ace = "yes" if usable_ace else "no"
    return f"your sum {total}\nusable ace {ace}\ndealer shows {'ace' if dealer == 1 else dealer}"


VIEWS: dict[type[Env[Any, Any]], View] = {
    FrozenLakeEnv: View(
        task="Walk over the ice to the goal. "
        "P is you, F and S are ice, H is a hole that ends the game, G is the goal.",
        actions=("left", "down", "right", "up"),
        render=frozen_lake_text,
    ),
    TaxiEnv: View(
        task="Drive the taxi to the passenger, pick the passenger up, drive to the destination "
        "and drop the passenger off there. Rows count from the north, columns from the west.",
        actions=("south", "north", "east", "west", "pickup", "dropoff"),
        render=taxi_text,
    ),
    CliffWalkingEnv: View(
        task="Walk to the goal in few steps. A step into the cliff throws you back to the start. "
        "Rows count from the top, columns from the left.",
        actions=("up", "right", "down", "left"),
        render=cliff_walking_text,
    ),
    BlackjackEnv: View(
        task="Beat the dealer at blackjack: come closer to 21 without going over it. "
        "stick keeps your cards, hit takes another one.",
        actions=("stick", "hit"),
        render=blackjack_text,
    ),
}
