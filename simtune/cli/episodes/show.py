"""`simtune episodes show ID`: one episode as a chat, with rewards and scores."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from simtune.cli import output
from simtune.cli.episodes.filters import whole_id

if TYPE_CHECKING:
    from simtune.records import Decision, Episode

_Scores = Mapping[str | None, Sequence[dict[str, Any]]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("episode", metavar="ID", help="episode id, or its beginning")


def run(args: argparse.Namespace) -> int:
    """Print one episode."""
    from simtune.store import read

    store = read(args.store)
    episode = store.episode(whole_id(store, args.episode))
    scores: dict[str | None, list[dict[str, Any]]] = {}
    for score in store.scores(episode.episode_id).to_pylist():
        scores.setdefault(score["decision_id"], []).append(score)
    if args.json:
        output.json({"episode": episode, "scores": [s for found in scores.values() for s in found]})
    else:
        _show(episode, scores)
    return 0


def _show(episode: Episode, scores: _Scores) -> None:
    output.line(f"episode {episode.episode_id}  env {episode.env}  run {episode.run_id}")
    shown: list[Any] = []
    for decision in episode.decisions:
        output.line()
        # A growing chat repeats what was said before: only what is new is printed.
        new = decision.prompt[len(shown) :] if decision.prompt[: len(shown)] == shown else None
        for message in decision.prompt if new is None else new:
            output.line(f"[{message.get('role')}] {message.get('content')}")
        output.line(f"[{decision.agent_id or 'answer'}] {decision.response}")
        output.line("    " + ", ".join([*_notes(decision), *_said(scores, decision.decision_id)]))
        answer = {"role": "assistant", "content": decision.response}
        shown = [*decision.prompt, answer]
    output.line()
    for said in _said(scores, None):
        output.line(f"score {said}")
    output.line(f"return {episode.total_reward:g}  outcome {episode.outcome or '-'}")
    if episode.error:
        output.line(f"aborted: {episode.error}")


def _notes(decision: Decision) -> list[str]:
    notes = [f"step {decision.step}", f"parsed {decision.parsed!r}", f"reward {decision.reward}"]
    if not decision.valid:
        notes.append(f"invalid: {decision.error or 'no action could be read'}")
    if decision.adapter:
        notes.append(f"adapter {decision.adapter[:12]}")
    return notes


def _said(scores: _Scores, decision_id: str | None) -> list[str]:
    """`judge 0.5`, one for each scorer, or why it failed."""
    return [
        f"{score['scorer']} {output.cell(score['score'])}"
        + (f" ({score['detail']})" if score["score"] is None and score["detail"] else "")
        for score in scores.get(decision_id, ())
    ]
