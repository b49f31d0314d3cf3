"""`simtune doctor`: what is wrong with a store, the registry, the installation; how to mend it."""

from __future__ import annotations

import argparse
import os
import textwrap
from typing import TYPE_CHECKING

from simtune.cli import output

if TYPE_CHECKING:
    from simtune.doctor import Report

HELP = "Look for what is wrong, and say how to mend it; nothing is changed."

WRONG = 1
"""Exit code where a warning or an error was found."""

_INDENT = 9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add(
        "--store",
        metavar="ROOT",
        help="root of captured episodes (default: SIMTUNE_ROOT, else ./simtune-data)",
    )
    add(
        "--llm-path",
        metavar="DIR",
        help="base model: compare its prompts and log-probabilities with the captured ones",
    )
    add("--models-dir", default="./models", metavar="DIR", help="registry (default: %(default)s)")
    add(
        "--tracking-uri",
        default="./mlruns",
        metavar="URI",
        help="MLflow's, as for train (default: %(default)s)",
    )
    add("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Examine, and print each finding with what to do about it."""
    from simtune.doctor import Subject, diagnose

    if args.llm_path is not None:
        from simtune.train.checks import check_model

        check_model(args.llm_path)
    subject = Subject(
        args.store or os.environ.get("SIMTUNE_ROOT") or "./simtune-data",
        llm_path=args.llm_path,
        models_dir=args.models_dir,
        tracking_uri=args.tracking_uri,
    )
    report = diagnose(subject)
    if args.json:
        output.json({"worst": report.worst, **_fields(report)})
    else:
        _print(report)
    return WRONG if report.worst in ("warning", "error") else 0


def _fields(report: Report) -> dict[str, object]:
    return {"seconds": report.seconds, "findings": report.findings}


def _print(report: Report) -> None:
    width = max(60, min(120, _columns()))
    for each in report.findings:
        _paragraph(f"{each.level:<{_INDENT}}{each.code}: {each.seen}", width)
        if each.fix:
            _paragraph(f"{'':{_INDENT}}-> {each.fix}", width)
    output.line(
        f"{report.count('error')} errors, {report.count('warning')} warnings, "
        f"{report.count('note')} notes in {report.seconds:.1f} s"
    )


def _paragraph(text: str, width: int) -> None:
    """Wrap a text; paths and commands are not broken within a word."""
    for line in textwrap.wrap(
        text,
        width,
        subsequent_indent=" " * (_INDENT + 3),
        break_long_words=False,
        break_on_hyphens=False,
    ):
        output.line(line)


def _columns() -> int:
    import shutil

    return shutil.get_terminal_size((100, 24)).columns
