"""`simtune demo`: the whole loop, from captured decisions to a better adapter."""

from __future__ import annotations

import argparse

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

    run_demo(DemoOptions(dir=args.dir, seed=args.seed, model=args.model, quick=args.quick))
    return 0
