"""What commands print: lines, aligned tables, JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any


def line(text: str = "") -> None:
    """Print one line."""
    sys.stdout.write(f"{text}\n")


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print an aligned table: numbers to the right, everything else to the left."""
    cells = [[cell(value) for value in row] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(headers, *cells, strict=True)]
    numeric = [
        bool(rows) and all(isinstance(value, int | float | None) for value in column)
        for column in zip(*rows, strict=True)
    ] or [False] * len(headers)
    for texts in [list(headers), ["-" * width for width in widths], *cells]:
        line(
            "  ".join(
                text.rjust(width) if right else text.ljust(width)
                for text, width, right in zip(texts, widths, numeric, strict=True)
            ).rstrip()
        )


def cell(value: object) -> str:
    """The text of one value: `-` for nothing, four significant digits for floats."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def json(value: Any) -> None:
    """Print a value, structs included, as indented JSON."""
    import msgspec

    encoded = msgspec.json.encode(value, enc_hook=str)
    line(msgspec.json.format(encoded, indent=2).decode())
