"""Made-up rows, episodes and hook arguments that plugins are tried on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simtune.records import Decision, Episode, Row


def _sample_row() -> Row:
    return Row(
        kind="decision",
        episode_id="sample",
        env="sample",
        prompt=[{"role": "user", "content": "Where to?"}],
        response="left",
        parsed='"left"',
        valid=True,
        reward=1.0,
    )


HOOK_ARGUMENTS: dict[str, Callable[[], dict[str, Any]]] = {
    "simtune_episode_start": lambda: {"episode_id": "sample", "env": "sample", "metadata": {}},
    "simtune_decision": lambda: {"row": _sample_row()},
    "simtune_episode_end": lambda: {
        "episode_id": "sample",
        "terminated": True,
        "truncated": False,
        "outcome": {"success": True},
    },
    "simtune_training_start": lambda: {"method": "sft", "options": {}, "run_id": None},
    "simtune_training_metrics": lambda: {"method": "sft", "step": 1, "metrics": {"loss": 1.0}},
    "simtune_training_end": lambda: {"method": "sft", "model_id": "sample", "error": None},
    "simtune_model_registered": lambda: {"record": {"id": "sample"}},
}
"""Sample arguments of every hook but the one of rewards, fresh at each call."""


def episodes() -> list[Episode]:
    """An ordinary episode, an empty one, and one of answers that no parser likes."""
    ask = [{"role": "user", "content": "Where to?"}]

    def decision(index: int, response: str, **fields: Any) -> Decision:
        return Decision(
            decision_id=f"sample-{index}", step=index, prompt=ask, response=response, **fields
        )

    return [
        Episode(
            episode_id="ordinary",
            env="sample",
            decisions=[
                decision(0, "left", parsed="left", reward=0.0),
                decision(1, '{"to": "right"}', parsed={"to": "right"}, reward=1.0),
            ],
            terminated=True,
            ended=True,
            outcome={"success": True},
        ),
        Episode(episode_id="empty", env="sample", truncated=True, ended=True),
        Episode(
            episode_id="unparsed",
            decisions=[
                decision(0, "", valid=False, error="empty"),
                decision(1, "\N{SNOWMAN}\n" * 40, valid=False, error="no move in it"),
            ],
            aborted=True,
            ended=True,
            error="RuntimeError: the simulation broke",
        ),
    ]
