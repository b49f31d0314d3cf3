"""Rules that take secrets out of a row before it is written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from simtune.errors import OptionError
from simtune.recording.guard import attempt
from simtune.records import Row

REDACTED = "[redacted]"

Redaction: TypeAlias = Callable[[Row], "Row | bool | None"]
"""Gives the row that is to be written, or None or False where none is."""

Redact: TypeAlias = "Redaction | str | re.Pattern[str] | Sequence[str | re.Pattern[str]]"
"""A `Redaction`, or the texts and regular expressions that `[redacted]` takes the place of."""

_TEXTS = ("response", "error", "run_id", "env", "agent_id", "action", "model", "adapter")
_JSON = ("parsed", "observation", "metadata", "extra", "sampling")
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})

_everywhere: tuple[Redaction, ...] = ()


def everywhere() -> tuple[Redaction, ...]:
    """What is applied to every row of this process, after the rules of its decision point."""
    return _everywhere


def apply_everywhere(rule: Redact) -> None:
    """Set what is applied to every row; an empty sequence is nothing.

    Raises:
        OptionError: as for `redactions`.
    """
    global _everywhere
    _everywhere = redactions(rule)


def redactions(rule: Redact | None) -> tuple[Redaction, ...]:
    """A rule as what is applied to each row; empty where there is none.

    Raises:
        OptionError: it is neither a function nor texts and regular expressions.
    """
    if rule is None:
        return ()
    if callable(rule):
        return (rule,)
    rules = [rule] if isinstance(rule, str | re.Pattern) else list(rule)
    return (TextRules(rules),) if rules else ()


class TextRules:
    """Replaces texts and regular expressions wherever a row holds text.

    Strings and keys within JSON are looked at unescaped, and numbers as they are written.

    Args:
        rules: a string stands for itself, a compiled pattern for all that it matches.

    Raises:
        OptionError: a rule is something else, or matches the empty text.
    """

    def __init__(self, rules: Sequence[str | re.Pattern[str]]) -> None:
        for rule in rules:
            _check(rule)
        literals = {form for rule in rules if isinstance(rule, str) for form in _forms(rule)}
        # The longest first: of "abc" and "abcdef", the first would leave "def" standing.
        ordered = sorted(literals, key=len, reverse=True)
        alternatives = [re.compile("|".join(map(re.escape, ordered)))] if ordered else []
        self._patterns = [*alternatives, *(rule for rule in rules if isinstance(rule, re.Pattern))]

    def __call__(self, row: Row) -> Row:
        """A copy of the row with the rules applied."""
        changed: dict[str, Any] = {
            name: change(getattr(row, name))
            for names, change in ((_TEXTS, self._text), (_JSON, self._json))
            for name in names
            if getattr(row, name) is not None
        }
        if row.prompt is not None:
            changed["prompt"] = [self._message(message) for message in row.prompt]
        changed["choices"] = [self._text(choice) for choice in row.choices]
        return msgspec.structs.replace(row, **changed)

    def _message(self, message: dict[str, Any]) -> dict[str, Any]:
        return {
            name: value if name == "role" and value in _ROLES else self._walk(value)
            for name, value in message.items()
        }

    def _text(self, value: str) -> str:
        if value.lstrip()[:1] in ("{", "[", '"'):
            decoded, error = attempt(msgspec.json.decode, value)
            walked = decoded if error is not None else self._walk(decoded)
            if walked != decoded:
                value = msgspec.json.encode(walked).decode()
        return self._replace(value)

    def _json(self, value: str) -> str:
        decoded, error = attempt(msgspec.json.decode, value)
        walked = self._walk(value if error is not None else decoded)
        replaced = self._replace(msgspec.json.encode(walked).decode())
        _, broken = attempt(msgspec.json.decode, replaced)
        # A pattern may match across JSON's own punctuation: then the rest is kept as text.
        return replaced if broken is None else msgspec.json.encode(replaced).decode()

    def _walk(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict):
            return {self._text(key): self._walk(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._walk(item) for item in value]
        if value is None or isinstance(value, bool):
            return value
        replaced = self._replace(str(value))
        return value if replaced == str(value) else replaced

    def _replace(self, text: str) -> str:
        for pattern in self._patterns:
            text = pattern.sub(REDACTED, text)
        return text


def _check(rule: object) -> None:
    if not isinstance(rule, str | re.Pattern) or isinstance(getattr(rule, "pattern", ""), bytes):
        raise OptionError(
            "a redaction rule cannot be used",
            expected="a function of a row, or strings and compiled patterns of text",
            got=type(rule).__name__,
        )
    if rule == "" or (isinstance(rule, re.Pattern) and rule.search("") is not None):
        raise OptionError("a redaction rule matches the empty text", got=repr(rule))


def _forms(literal: str) -> set[str]:
    """A text as it stands, and as JSON and `repr` escape it."""
    escaped = (json.dumps(literal), json.dumps(literal, ensure_ascii=False), repr(literal))
    return {literal, *(form[1:-1] for form in escaped)}
