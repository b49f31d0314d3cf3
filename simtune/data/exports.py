"""Captured episodes as data sets that other trainers read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import msgspec

from simtune.records import Decision, Episode


def write_samples(episodes: Iterable[Episode], sink: BinaryIO, *, format: str) -> dict[str, int]:
    """Write one sample for each decision with a prompt and an answer.

    Args:
            episodes: what to write.
            sink: a binary file open for writing.
            format: `decisions` is a JSON list of {prompt, output, rating, feedback?, reason?},
                invalid answers
    included, for they teach what not to do; `prompt-completion` and `conversations` are
                JSON lines in TRL's shapes, without invalid answers, for they would be imitated.

    Returns:
            How many `decisions` were written, and how many were `skipped`.
    """
    counts = {"decisions": 0, "skipped": 0}
    listed = format == "decisions"
    for decision in _decisions(episodes):
        if not decision.prompt or not decision.response or not (listed or decision.valid):
            counts["skipped"] += 1
            continue
        before = b"" if not listed else b",\n" if counts["decisions"] else b"[\n"
        sink.write(before + msgspec.json.encode(_SHAPES[format](decision)))
        sink.write(b"" if listed else b"\n")
        counts["decisions"] += 1
    if listed:
        sink.write(b"\n]\n" if counts["decisions"] else b"[]\n")
    return counts


def _decisions(episodes: Iterable[Episode]) -> Iterator[Decision]:
    return (decision for episode in episodes for decision in episode.decisions)


def _rated(decision: Decision) -> dict[str, Any]:
    (only, *more) = decision.prompt
    plain = not more and set(only) == {"role", "content"} and only["role"] == "user"
    said = {name: decision.metadata.get(name) for name in ("feedback", "reason")}
    return {
        "prompt": only["content"] if plain else decision.prompt,
        "output": decision.response,
        "rating": decision.reward,
        **{name: text for name, text in said.items() if isinstance(text, str)},
    }


def _prompt_completion(decision: Decision) -> dict[str, Any]:
    return {"prompt": decision.prompt, "completion": [_answer(decision)]}


def _conversation(decision: Decision) -> dict[str, Any]:
    return {"messages": [*decision.prompt, _answer(decision)]}


def _answer(decision: Decision) -> dict[str, str]:
    return {"role": "assistant", "content": decision.response}


_SHAPES = {
    "decisions": _rated,
    "prompt-completion": _prompt_completion,
    "conversations": _conversation,
}
