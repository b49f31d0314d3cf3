"""What plugins and redaction leave of a row before it is written."""

from __future__ import annotations

from typing import Any

import msgspec

from simtune.errors import OptionError, RedactionError
from simtune.recording.announce import kept_by_plugins, listened_to
from simtune.recording.encoding import decode_row, encode_row
from simtune.recording.guard import attempt, leave_out, report
from simtune.recording.redaction import Redaction, everywhere
from simtune.records import Row

_ANSWER = ("prompt", "response", "choices")
_LOOKED_AT = (
    *("prompt", "response", "choices", "parsed", "observation", "metadata", "extra", "error"),
    *("sampling", "run_id", "env", "agent_id", "action", "model", "adapter"),
)
_STRUCTURE = (
    *("kind", "episode_id", "target", "step", "ts", "mono_ns"),
    *("reward", "terminated", "truncated"),
)


def screened(row: Row, redact: tuple[Redaction, ...] = ()) -> Row | None:
    """The row that is to be written, or None where it is not to be.

    Plugins are asked first (about decisions), then `redact`, then `simtune.configure`'s rules,
    so that nothing a plugin adds goes by them. All of them get a copy of what would be written.
    Where they change prompt, response or choices, the token ids go, since they spell the same.

    Args:
        row: as captured; it is left as it is.
        redact: the rules of this decision point.

    Raises:
        RedactionError: a rule failed on a decision, which is not written then. What else an
            episode consists of is written without its contents.
    """
    rules = (*redact, *everywhere()) if redact else everywhere()
    asked = row.kind == "decision" and listened_to("simtune_decision")
    if not rules and not asked:
        return row
    payload = encode_row(row)
    before, left = decode_row(payload), decode_row(payload)
    if asked:
        if not kept_by_plugins(left):
            return None
        left = _as_written(left)
    if rules:
        redacted, error = attempt(_redacted, left, rules)
        if redacted is None:
            return _without_contents(before, error)
        left = redacted
    return _consistent(before, left)


def _as_written(row: Row) -> Row:
    return decode_row(encode_row(row))


def _redacted(row: Row, rules: tuple[Redaction, ...]) -> Row | None:
    for redaction in rules:
        left = redaction(row)
        if left is None or left is False:
            return None
        if not isinstance(left, Row):
            raise OptionError(
                "a redaction returned neither a row nor None",
                expected="the row, or None or False to leave it out",
                got=type(left).__name__,
            )
        row = left
    return _as_written(row)


def _without_contents(row: Row, error: Exception | None) -> Row | None:
    failure = None
    if error is not None:
        # Not the error's own text: it may quote what was to be kept out.
        failure = RedactionError(
            f"a redaction failed with {type(error).__name__}, so a {row.kind} is not kept",
            fix="mend the rule; nothing it failed on is written",
        )
        failure.__cause__ = error
    if row.kind == "decision":
        leave_out("redact")
        if failure is not None:
            raise failure
        return None
    if failure is not None:
        report(failure)
    return Row(**{name: getattr(row, name) for name in _STRUCTURE}, extra='{"redacted":"all"}')


def _object(column: str | None) -> dict[str, Any]:
    held, _ = attempt(msgspec.json.decode, column or "{}")
    return held if isinstance(held, dict) else {"text": column}


def _consistent(before: Row, left: Row) -> Row:
    changed = [name for name in _LOOKED_AT if getattr(before, name) != getattr(left, name)]
    if not changed:
        return left
    extra: dict[str, Any] = {**_object(left.extra), "changed": changed}
    if set(changed) & set(_ANSWER):
        extra.pop("token_logprobs", None)
        sampling = _object(left.sampling)
        if sampling.pop("choice_token_ids", None) is not None:
            left.sampling = msgspec.json.encode(sampling).decode()
        if left.prompt_token_ids or left.token_ids:
            extra["tokens"] = "left out: the text they spell was changed"
        left.prompt_token_ids, left.token_ids, left.logprobs = [], [], []
    left.extra = msgspec.json.encode(extra).decode()
    return left
