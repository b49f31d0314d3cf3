"""Rows -> episodes: ordered decisions, JSON decoded, how it ended."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import msgspec
import pyarrow as pa

from simtune.records import Decision, Episode, Messages

PlainRow: TypeAlias = dict[str, Any]
_MESSAGE_FIELD = re.compile(r"prompt\[(\d+)\]\.(\w+)")


def assemble(rows: pa.Table) -> dict[str, Episode]:
    """Episodes by id.

    Args:
        rows: every row of these episodes in any order, late rewards folded in.
    """
    grouped: dict[str, list[PlainRow]] = {}
    for row in plain_rows(rows):
        grouped.setdefault(row["episode_id"], []).append(row)
    return {episode_id: episode_of(episode_id, found) for episode_id, found in grouped.items()}


def plain_rows(rows: pa.Table) -> Iterator[PlainRow]:
    """The rows as dicts, `ts` in microseconds."""
    position = rows.schema.get_field_index("ts")
    plain = rows.set_column(position, "ts", rows["ts"].cast(pa.int64()))
    names = plain.column_names
    for values in zip(*(column.to_pylist() for column in plain.columns), strict=True):
        yield dict(zip(names, values, strict=True))


def episode_of(episode_id: str, found: Sequence[PlainRow]) -> Episode:
    """One episode of its rows, in any order, late rewards folded in."""
    rows = _in_order(found)
    decisions = [_decision(row) for row in rows if row["kind"] == "decision"]
    start = next((row for row in rows if row["kind"] == "episode_start"), {})
    ends = [row for row in rows if row["kind"] == "episode_end"]
    end = ends[-1] if ends else {}
    episode = Episode(
        episode_id=episode_id,
        run_id=_first(rows, "run_id"),
        env=_first(rows, "env"),
        agent_id=_first(rows, "agent_id"),
        metadata=mapping(start.get("metadata")),
        decisions=decisions,
        terminated=any(row["terminated"] for row in rows),
        truncated=any(row["truncated"] for row in rows),
        aborted=end.get("error") is not None,
        ended=bool(ends),
        error=end.get("error"),
        outcome=outcome_of(end.get("metadata")),
        final_prompt=messages(end.get("prompt"), mapping(end.get("extra"))),
        final_prompt_token_ids=end.get("prompt_token_ids") or [],
    )
    _close_last_decisions(episode, ends)
    return episode


def _in_order(rows: Sequence[PlainRow]) -> list[PlainRow]:
    """Order by seq within a writer; whole writers by when each began this episode."""
    begun: dict[str, int] = {}
    for row in rows:
        writer = row["writer_id"]
        begun[writer] = min(row["ts"], begun.get(writer, row["ts"]))
    return sorted(rows, key=lambda row: (begun[row["writer_id"]], row["writer_id"], row["seq"]))


def _first(rows: Sequence[PlainRow], name: str) -> str | None:
    return next((row[name] for row in rows if row[name] is not None), None)


def _close_last_decisions(episode: Episode, ends: Sequence[PlainRow]) -> None:
    """What ended the episode ended every agent's last decision."""
    last = {decision.agent_id: decision for decision in episode.decisions}
    for decision in last.values():
        decision.terminated |= any(row["terminated"] for row in ends)
        decision.truncated |= any(row["truncated"] for row in ends)


def _decision(row: PlainRow) -> Decision:
    extra = mapping(row["extra"])
    return Decision(
        decision_id=row["decision_id"],
        agent_id=row["agent_id"],
        action=row["action"],
        step=row["step"],
        prompt=messages(row["prompt"], extra),
        response=row["response"] or "",
        parsed=json_value(row["parsed"]),
        observation=json_value(row["observation"]),
        metadata=mapping(row["metadata"]),
        extra=extra,
        valid=row["valid"] is not False,
        error=row["error"],
        prompt_token_ids=row["prompt_token_ids"] or [],
        token_ids=row["token_ids"] or [],
        logprobs=row["logprobs"] or [],
        choices=row["choices"] or [],
        choice_logprobs=row["choice_logprobs"] or [],
        sampling=mapping(row["sampling"]),
        model=row["model"],
        adapter=row["adapter"],
        reward=row["reward"],
        terminated=bool(row["terminated"]),
        truncated=bool(row["truncated"]),
        ts=row["ts"],
        latency_us=row["latency_us"],
    )


def messages(prompt: list[dict[str, str | None]] | None, extra: dict[str, Any]) -> Messages:
    """The messages as they were captured: absent fields absent, converted ones as they were.

    Args:
        prompt: the structs of the column `prompt`.
        extra: the row's decoded `extra`, in which capture noted what it converted.
    """
    restored: Messages = [
        {name: text for name, text in turn.items() if text is not None or name == "content"}
        for turn in prompt or ()
    ]
    for path, note in _notes(extra, "converted").items():
        field = _MESSAGE_FIELD.fullmatch(path)
        if field and str(note).endswith("as JSON") and int(field[1]) < len(restored):
            turn = restored[int(field[1])]
            turn[field[2]] = json_value(turn.get(field[2]))
    for index, fields in _notes(extra, "prompt_fields").items():
        if index.isdecimal() and int(index) < len(restored) and isinstance(fields, dict):
            restored[int(index)].update(fields)
    return restored


def _notes(extra: dict[str, Any], name: str) -> dict[str, Any]:
    notes = extra.get(name)
    return notes if isinstance(notes, dict) else {}


def json_value(text: str | None) -> Any:
    """The value of JSON text; None for None, and the text itself where it is not JSON."""
    if text is None:
        return None
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text


def mapping(text: str | None) -> dict[str, Any]:
    """A JSON object as a dict; {} for none, {"value": ...} for any other JSON."""
    value = json_value(text)
    if value is None:
        return {}
    return value if isinstance(value, dict) else {"value": value}


def outcome_of(metadata: str | None) -> dict[str, Any]:
    """The simulation's own summary, from the `metadata` of an `episode_end` row."""
    outcome = mapping(metadata).get("outcome")
    if outcome is None:
        return {}
    return outcome if isinstance(outcome, dict) else {"value": outcome}
