"""`simtune models watch`: roll the champion back where its live scores fall."""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING

from simtune.cli import output
from simtune.cli.promotion import add_tracking_uri, tell_mlflow

if TYPE_CHECKING:
    from simtune.registry import Change, Registry

ROLLED_BACK = 1


def add_action(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare watch."""
    parser = actions.add_parser(
        "watch", help="roll the champion back if its live scores fall", allow_abbrev=False
    )
    add = parser.add_argument
    add("--store", required=True, metavar="ROOT", help="root of captured episodes")
    add("--metric", default="success", metavar="NAME", help="success, return, or a reward")
    add(
        "--range",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="of the metric: test its mean instead of ranks",
    )
    add(
        "--false-alarms",
        type=float,
        default=0.01,
        metavar="P",
        help="chance of ever rolling back a champion that did not fall (default: %(default)s)",
    )
    add(
        "--min-baseline",
        type=int,
        default=50,
        metavar="N",
        help="episodes to compare with (default: %(default)s)",
    )
    add("--once", action="store_true", help="look at what is new, and end; 1: rolled back")
    add("--plugin", action="append", default=[], metavar="FILE_OR_MODULE", help="plugin to load")
    add("--models-dir", default="./models", metavar="DIR", help="registry of adapters")
    add("--json", action="store_true", help="print JSON")
    add_tracking_uri(parser)


def run(args: argparse.Namespace, registry: Registry) -> int:
    """Watch; with `--once` the exit code says whether there was a rollback."""
    from simtune import plugins
    from simtune.errors import OptionError
    from simtune.eval.metrics import Metric
    from simtune.eval.watch import Watch

    if args.min_baseline < 1 or not 0 < args.false_alarms < 1:
        raise OptionError(
            "--min-baseline is at least 1, and --false-alarms between 0 and 1",
            got=f"{args.min_baseline} and {args.false_alarms}",
        )
    for spec in args.plugin:
        plugins.load(spec)

    def on_rollback(change: Change) -> None:
        tell_mlflow(registry, args.tracking_uri)
        if args.json:
            output.json(change)
        else:
            output.line(f"champion: {change.before} -> {change.after or 'base'}")
            output.line(f"reason: {change.reason}")

    if not args.once:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    watch = Watch(
        registry,
        args.store,
        Metric(args.metric, tuple(args.range) if args.range else None),
        alpha=args.false_alarms,
        min_baseline=args.min_baseline,
        ranks=args.range is None,
        on_rollback=on_rollback,
    )
    made = watch.run(once=args.once)
    if made:
        return ROLLED_BACK
    if args.json:
        output.json(watch.summary())
    else:
        for name, value in watch.summary().items():
            output.line(f"{name}: {output.cell(value)}")
    return 0
