"""The classic data set of simulation tuning: {prompt, output, rating or reward, feedback, reason}.

A JSON list or JSON lines. Rows that cannot be used are skipped and accounted for by number; a
file that is something else altogether is an error that shows its columns and the nearest format.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from simtune.data.samples import reasons
from simtune.errors import DataError
from simtune.records import Messages

FORMATS = {
    "decisions": ("prompt", "output", "rating", "reward", "feedback", "reason"),
    "conversations": ("conversations", "messages"),
    "completion": ("input", "output"),
    "contextual": ("input", "context", "contexts", "response"),
    "preference": ("prompt", "chosen", "rejected"),
    "unpaired": ("prompt", "completion", "label"),
}
"""Columns of the known formats, to name the nearest one in an error."""

EXPECTED = "rows of {prompt, output, rating or reward, feedback?, reason?}"

_ROLES = {"system", "user", "assistant", "tool"}


class DecisionRow(msgspec.Struct, kw_only=True, frozen=True):
    """One usable row.

    Attributes:
        row: number in the file, from 1 (the line, for JSON lines).
        prompt: as messages; a plain string becomes one user message.
        output: what the model answered.
        rating: the row's `rating` or `reward`; None where it has neither.
        feedback: a reviewer's rewrite of the output; None where there is none.
        reason: why it was rated so.
    """

    row: int
    prompt: Messages
    output: str
    rating: float | None = None
    feedback: str | None = None
    reason: str | None = None


class DecisionFile(msgspec.Struct, kw_only=True):
    """A data set of decisions.

    Attributes:
        path: where it was read from.
        rows: usable rows in the file's order.
        skipped: (row number, reason) of the others.
        digest: sha256 of the file's bytes.
    """

    path: str
    rows: list[DecisionRow]
    skipped: list[tuple[int, str]]
    digest: str

    def skip_counts(self) -> Counter[str]:
        """How many rows were skipped, by reason."""
        return Counter(reason for _, reason in self.skipped)


class _BadRowError(Exception):
    """One row cannot be used; its text is the reason, the same for all rows of that kind."""


def read_decisions(path: str | Path) -> DecisionFile:
    """Read a data set of decisions.

    Raises:
        DataError: no such file, not UTF-8, not JSON, another format, or no usable row.
    """
    path = Path(path)
    content = _bytes(path)
    numbered = _parse(path, content)
    _check_columns(path, numbered)
    rows: list[DecisionRow] = []
    skipped: list[tuple[int, str]] = []
    for number, raw in numbered:
        try:
            rows.append(_row(number, raw))
        except _BadRowError as error:
            skipped.append((number, str(error)))
    found = DecisionFile(
        path=str(path), rows=rows, skipped=skipped, digest=hashlib.sha256(content).hexdigest()
    )
    if not rows:
        raise DataError(
            f"no row of {str(path)!r} can be used",
            expected=EXPECTED,
            got=f"{reasons(found.skip_counts())}; first: row {skipped[0][0]}",
        )
    return found


def _bytes(path: Path) -> bytes:
    if path.is_dir():
        raise DataError(
            f"the data set {str(path)!r} is a directory",
            expected="a file of decisions (JSON list, JSON lines)",
            fix=f"--store {path} trains on captured episodes",
        )
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"the data set {str(path)!r} does not exist", got=path.resolve()) from error
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"the data set {str(path)!r} is not UTF-8",
            expected="text in UTF-8",
            got=f"byte {content[error.start]:#04x} at offset {error.start}, line {line}",
            fix=f"iconv -f LATIN1 -t UTF-8 {path} > converted{path.suffix}",
        ) from error
    return content


def _parse(path: Path, content: bytes) -> list[tuple[int, Any]]:
    """Rows with their numbers, from a JSON list or from JSON lines."""
    content = content.removeprefix(b"\xef\xbb\xbf")
    if content.lstrip().startswith(b"["):
        try:
            rows = list(enumerate(msgspec.json.decode(content, type=list[Any]), start=1))
        except msgspec.DecodeError as error:
            raise DataError(f"the data set {str(path)!r} is not a JSON list", got=error) from error
    else:
        rows = [
            (number, _parse_line(path, number, line))
            for number, line in enumerate(content.splitlines(), start=1)
            if line.strip()
        ]
    if not rows:
        raise DataError(f"the data set {str(path)!r} is empty", expected=EXPECTED)
    return rows


def _parse_line(path: Path, number: int, line: bytes) -> Any:
    try:
        return msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        raise DataError(
            f"the data set {str(path)!r} is neither a JSON list nor JSON lines",
            expected="a file that begins with `[`, or one JSON object a line",
            got=f"line {number}: {error}",
        ) from error


def _check_columns(path: Path, numbered: Sequence[tuple[int, Any]]) -> None:
    columns: dict[str, None] = {}
    for _, raw in numbered:
        if isinstance(raw, dict):
            columns.update(dict.fromkeys(raw))
    if "prompt" in columns and ("output" in columns or "feedback" in columns):
        return
    overlap = {name: len(columns.keys() & set(known)) for name, known in FORMATS.items()}
    nearest = max(overlap, key=lambda name: overlap[name])
    raise DataError(
        f"the data set {str(path)!r} is not one of decisions",
        expected=EXPECTED,
        got=f"columns {', '.join(columns) or '(none: the rows are not objects)'}"
        + (f"; nearest format: {nearest}" if overlap[nearest] else ""),
        fix="rename the columns to those of `decisions`",
    )


def _row(number: int, raw: Any) -> DecisionRow:
    if not isinstance(raw, dict):
        raise _BadRowError("not an object")
    feedback = _text(raw.get("feedback"), "feedback")
    output = _text(raw.get("output"), "output")
    if not output and not feedback:
        raise _BadRowError("empty output")
    return DecisionRow(
        row=number,
        prompt=_messages(raw.get("prompt")),
        output=output or "",
        rating=_rating(raw),
        feedback=feedback,
        reason=_text(raw.get("reason"), "reason"),
    )


def _text(value: Any, column: str) -> str | None:
    """A non-blank text or None."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise _BadRowError(f"{column} is not text")
    return value if value.strip() else None


def _messages(prompt: Any) -> Messages:
    if isinstance(prompt, str):
        if not prompt.strip():
            raise _BadRowError("empty prompt")
        return [{"role": "user", "content": prompt}]
    if not isinstance(prompt, list) or not prompt:
        raise _BadRowError("empty prompt" if not prompt else "prompt is neither text nor messages")
    for message in prompt:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise _BadRowError("a message of the prompt has no role and content")
        if message.get("role") not in _ROLES:
            raise _BadRowError("a message of the prompt has an unknown role")
    if prompt[-1]["role"] == "assistant":
        raise _BadRowError("the prompt ends with the assistant's turn")
    return prompt


def _rating(raw: dict[str, Any]) -> float | None:
    """`rating` or `reward`; equal values in both are fine."""
    given = [raw[name] for name in ("rating", "reward") if raw.get(name) not in (None, "")]
    numbers = {_number(value) for value in given}
    if len(numbers) > 1:
        raise _BadRowError("rating and reward differ")
    return numbers.pop() if numbers else None


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _BadRowError("rating is not a number")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise _BadRowError("rating is not a number") from None
    if not math.isfinite(number):
        raise _BadRowError("rating is not a number")
    return number
