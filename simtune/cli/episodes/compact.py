"""`simtune episodes compact`: move the finished log into Parquet files, once or for good."""

from __future__ import annotations

import argparse
import sys
import threading
from typing import TYPE_CHECKING

from simtune.cli import output
from simtune.errors import OptionError

if TYPE_CHECKING:
    from simtune.store import CompactionReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--watch", action="store_true", help="go on until Ctrl-C")
    parser.add_argument(
        "--interval",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="pause between looks at the log (default: 5)",
    )


def run(args: argparse.Namespace) -> int:
    """Compact, and say what was done."""
    from simtune.store import compact, watch

    if not args.watch:
        _print(compact(args.store), args.json)
        return 0
    if not 0 < args.interval < threading.TIMEOUT_MAX:
        raise OptionError("--interval is no pause", expected="seconds above 0", got=args.interval)
    watch(
        args.store,
        interval=args.interval,
        on_report=lambda report: _print(report, args.json),
    )
    return 0


def _print(report: CompactionReport, as_json: bool) -> None:
    if as_json:
        output.json(report)
    else:
        files = f" in {', '.join(report.files)}" if report.files else ""
        output.line(f"{report.rows} rows of {report.segments} segments{files}")
        for damaged in report.damaged:
            output.line(f"damaged: {damaged}")
    # Whoever reads a pipe sees a report when it is made.
    sys.stdout.flush()
