"""`simtune demo`: the whole loop, from captured decisions to a better adapter."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from simtune.cli import output
from simtune.cli.progress import Progress

if TYPE_CHECKING:
    from simtune.demo import DemoResult, PolicyResult
    from simtune.eval.intervals import Interval

HELP = "Run the whole loop on a small model and a real environment; minutes on 2 CPU cores."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--dir", default="./simtune-demo", help="where everything goes (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random")
    parser.add_argument(
        "--model",
        choices=["tiny", "smollm2-135m"],
        default="tiny",
        help="tiny is built on the spot; smollm2-135m is the real instruct model, and takes hours",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a fraction of the work: shows the way, proves nothing"
    )


def run(args: argparse.Namespace) -> int:
    """Run it."""
    from simtune.demo import DemoOptions, run_demo

    options = DemoOptions(dir=args.dir, seed=args.seed, model=args.model, quick=args.quick)
    _show(run_demo(options, Progress))
    return 0


def _show(result: DemoResult) -> None:
    """Print the table, where everything is, and what to do next."""
    output.line()
    output.line(
        f"Success on {result.held_out} held-out maps (95% interval); "
        "greedy: the most probable answer, sampled: temperature 1"
    )
    output.table(
        ("policy", "greedy", "sampled", "valid answers"),
        [_row(policy) for policy in result.policies],
    )
    output.line()
    counts = ", ".join(f"{count} {kind}" for kind, count in result.captured.items())
    output.line(f"The store holds {counts}; the run took {sum(result.seconds.values()):.0f} s.")
    output.line()
    for name, path in result.paths.items():
        output.line(f"  {name:<9} {path}")
    output.line()
    output.line("Next:")
    for command in _next(result):
        output.line(f"  {command}")


def _row(policy: PolicyResult) -> tuple[str, str, str, str]:
    return (policy.label, _rate(policy.greedy), _rate(policy.sampled), f"{policy.valid:.0%}")


def _rate(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    return f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _next(result: DemoResult) -> list[str]:
    paths = result.paths
    return [
        f"simtune models ls --models-dir {paths['models']}",
        f"simtune episodes stats --store {paths['store']}",
        f"simtune eval --env simtune.demo.lake:lake --llm-path {paths['base']} "
        f"--models-dir {paths['models']} --model latest --episodes 100",
        f"mlflow ui --backend-store-uri sqlite:///{paths['tracking']}/mlflow.db",
    ]
