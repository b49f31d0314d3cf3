"""`simtune eval`: policies side by side on the same seeds, greedy and sampled."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from simtune.cli import gate, output
from simtune.cli.contenders import loaders
from simtune.cli.progress import Progress
from simtune.cli.values import pairs
from simtune.errors import OptionError

if TYPE_CHECKING:
    from simtune.eval.compare import Evaluation
    from simtune.eval.intervals import Interval

HELP = "Play policies on the same seeds and compare them, with 95 % confidence intervals."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("--env", metavar="SPEC", help="gymnasium id, or module:callable")
    add("--env-arg", action="append", default=[], metavar="K=V", help="for the environment")
    add("--llm-path", metavar="DIR", help="base model; default: the one the adapter was trained on")
    add(
        "--model",
        action="append",
        metavar="ID",
        help="model id, `latest`, `champion`, or `base`; repeatable (default: base)",
    )
    add("--models-dir", default="./models", metavar="DIR", help="registry (default: %(default)s)")
    add("--episodes", type=int, metavar="N", help="per policy (default: 200)")
    add("--seed", type=int, default=0, metavar="S", help="seed of the first episode")
    add("--num-envs", type=int, default=32, metavar="N", help="environments stepped together")
    add("--temperature", type=float, default=1.0, metavar="X", help="of the sampled runs")
    add("--max-new-tokens", type=int, default=16, metavar="N", help="longest answer")
    add(
        "--decision",
        choices=["generate", "choose"],
        help="how policies decide (default: as the first adapter was trained, else generate)",
    )
    add("--history", metavar="N", help="earlier turns in the chat: a number, or full")
    add("--plugin", action="append", default=[], metavar="FILE_OR_MODULE", help="plugin to load")
    add("--json", action="store_true", help="print JSON")
    gate.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Play, and print one row per policy and way of decoding."""
    from simtune import gym, plugins
    from simtune.eval.compare import evaluate
    from simtune.gym.seating import check_source

    for count in (args.episodes, args.num_envs):
        if count is not None and count < 1:
            raise OptionError("--episodes and --num-envs are at least 1")
    if args.gate:
        return gate.run(args)
    gate.refuse_stray(args)
    if args.env is None:
        raise OptionError("no environment to play in", expected="--env SPEC")
    args.episodes = args.episodes or gate.EPISODES
    for spec in args.plugin:
        plugins.load(spec)
    contenders = _contenders(args)
    make = partial(gym.build, args.env, **pairs(args.env_arg, option="--env-arg"))
    # Before a model is loaded: a wrong environment is found in milliseconds.
    check_source(make)
    found = []
    with Progress("episodes", 2 * len(contenders) * args.episodes) as progress:
        for label, load in contenders:
            policy = load()
            for decoding in ("greedy", "sampled"):
                policy.greedy = decoding == "greedy"
                found.append(
                    evaluate(
                        policy,
                        make,
                        episodes=args.episodes,
                        seed=args.seed,
                        label=f"{label} {decoding}",
                        num_envs=args.num_envs,
                        history=args.history,
                        on_episode=lambda _: progress.advance(),
                    )
                )
    if args.json:
        output.json({"env": args.env, "policies": found, "differences": _differences(found)})
    else:
        _print(found)
    return 0


def _contenders(args: argparse.Namespace) -> list[tuple[str, Callable[[], Any]]]:
    """The policies to play: label and loader; every name is resolved before any is loaded."""
    from simtune.registry import Registry
    from simtune.registry.promotion import BASE

    registry = Registry(args.models_dir)
    records = [None if name == BASE else registry.get(name) for name in args.model or [BASE]]
    labels = [BASE if record is None else record.id for record in records]
    return list(zip(labels, loaders(args, registry, records), strict=True))


def _differences(found: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Each policy's mean return minus the first one's, decoded alike and paired by seed."""
    from simtune.eval.compare import difference

    made = []
    for index, later in enumerate(found[2:], start=2):
        first = found[index % 2]
        made.append({"of": later.label, "to": first.label, "return": difference(later, first)})
    return made


def _print(found: Sequence[Evaluation]) -> None:
    output.table(
        ["policy", "episodes", "success", "return", "valid"],
        [
            [
                each.label,
                each.episodes,
                _text(each.success, 100, "%"),
                _text(each.mean_return, 1, ""),
                "-" if each.valid_rate is None else f"{100 * each.valid_rate:.1f} %",
            ]
            for each in found
        ],
    )
    for each in _differences(found):
        output.line(f"{each['of']} - {each['to']}: return {_text(each['return'], 1, '')}")


def _text(interval: Interval | None, scale: float, unit: str) -> str:
    if interval is None:
        return "-"
    digits = 1 if unit else 3
    estimate, low, high = (
        f"{scale * value:.{digits}f}" for value in (interval.estimate, interval.low, interval.high)
    )
    return f"{estimate} {unit} [{low}, {high}]".replace("  ", " ")
