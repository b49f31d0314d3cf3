"""`simtune episodes export`: episodes into one file, which is there whole or not at all."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from simtune.cli import output
from simtune.cli.episodes.filters import add_filters, filtered, summaries, whole_id
from simtune.errors import DataError, OptionError

if TYPE_CHECKING:
    from simtune.store import Store

ROWS = ("parquet", "jsonl")
TRAINING = ("decisions", "prompt-completion", "conversations")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--output", required=True, metavar="FILE", help="file to write")
    parser.add_argument(
        "--format",
        choices=(*ROWS, *TRAINING),
        default="parquet",
        help="parquet and jsonl hold everything and can be imported; the others are data sets for "
        "training (default: parquet)",
    )
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    parser.add_argument(
        "--episode",
        action="append",
        default=[],
        metavar="ID",
        help="this episode, by its id or its beginning, repeatable",
    )
    add_filters(parser)


def run(args: argparse.Namespace) -> int:
    """Write the file, and say what is in it."""
    from simtune.data.exports import write_samples
    from simtune.store import export_rows, read

    path = Path(args.output)
    store = read(args.store)
    ids = _chosen(store, args)
    with _new_file(path, force=args.force) as file:
        if args.format in ROWS:
            done = {"rows": export_rows(store, file, format=args.format, ids=ids)}
        else:
            done = write_samples(store.episodes(ids=ids), file, format=args.format)
    episodes = len(store.episode_ids()) if ids is None else len(ids)
    report = {"file": str(path), "format": args.format, "episodes": episodes, **done}
    if args.json:
        output.json(report)
    else:
        output.line(
            ", ".join(f"{count} {what}" for what, count in {"episodes": episodes, **done}.items())
            + f" -> {path}"
        )
    return 0


def _chosen(store: Store, args: argparse.Namespace) -> Sequence[str] | None:
    """Sorted ids of the episodes that were asked for; None for all."""
    if not args.episode and not filtered(args):
        return None
    ids = {episode["episode_id"] for episode in summaries(store, args)}
    if args.episode:
        ids &= {whole_id(store, beginning) for beginning in args.episode}
    if not ids:
        raise DataError(
            "no episode is left to export",
            fix=f"simtune episodes ls --store {args.store} with the same filters",
        )
    return sorted(ids)


@contextmanager
def _new_file(path: Path, *, force: bool) -> Iterator[BinaryIO]:
    """A file under another name, which gets its own when it is whole and durable."""
    if path.is_dir() or (path.exists() and not force):
        raise OptionError(
            f"{path} is there already",
            expected="the name of a new file",
            fix=None if path.is_dir() else "--force replaces it",
        )
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
