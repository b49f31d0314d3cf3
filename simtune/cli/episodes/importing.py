"""`simtune episodes import`: take episodes from a file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from simtune.cli import output
from simtune.errors import DataError

if TYPE_CHECKING:
    from simtune.store import ImportReport

FORMATS = ("parquet", "jsonl", "decisions")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("file", metavar="FILE", help="what `export` wrote, or rated decisions")
    parser.add_argument(
        "--format", choices=FORMATS, help="of the file (default: told by its content)"
    )
    parser.add_argument(
        "--env",
        metavar="NAME",
        default="imported",
        help="environment of the episodes made of rated decisions (default: imported)",
    )


def run(args: argparse.Namespace) -> int:
    """Import, and say what came in and what was there already."""
    path = Path(args.file)
    report = _import(args.store, path, args.format or _format_of(path), args.env)
    if args.json:
        output.json(report)
        return 0
    skipped = f", {report.skipped} rows were there already" if report.skipped else ""
    output.line(f"{report.rows} rows of {report.episodes} episodes -> {args.store}{skipped}")
    return 0


def _import(store: str, path: Path, format: str, env: str) -> ImportReport:
    from simtune.store import import_jsonl, import_parquet, import_rows

    if format == "parquet":
        return import_parquet(store, path)
    if format == "jsonl":
        return import_jsonl(store, path)
    from simtune.data.decisions import read_decisions
    from simtune.data.one_decision import episode_rows

    data = read_decisions(path)
    return import_rows(store, data.digest[:16], episode_rows(data, env=env))


def _format_of(path: Path) -> str:
    """Told by the first bytes: Parquet, rows of an export, or anything else of JSON."""
    try:
        with open(path, "rb") as file:
            start = file.read(1 << 16)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DataError(f"{path} cannot be imported", expected="a file", got=error) from error
    if start.startswith(b"PAR1"):
        return "parquet"
    first = start.lstrip().split(b"\n", 1)[0]
    rows = first.startswith(b"{") and b'"writer_id"' in first and b'"episode_id"' in first
    return "jsonl" if rows else "decisions"
