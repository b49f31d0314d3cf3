"""`simtune eval`: policies side by side on the same seeds, greedy and sampled."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from simtune.cli import output
from simtune.cli.progress import Progress
from simtune.cli.values import pairs
from simtune.errors import OptionError

if TYPE_CHECKING:
    from simtune.eval.compare import Evaluation
    from simtune.eval.intervals import Interval
    from simtune.registry import ModelRecord

HELP = "Play policies on the same seeds and compare them, with 95 % confidence intervals."

BASE = "base"
"""The value of --model that asks for the base model without an adapter."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("--env", required=True, metavar="SPEC", help="gymnasium id, or module:callable")
    add("--env-arg", action="append", default=[], metavar="K=V", help="for the environment")
    add("--llm-path", metavar="DIR", help="base model; default: the one the adapter was trained on")
    add(
        "--model",
        action="append",
        metavar="ID",
        help="model id, `latest`, `champion`, or `base`; repeatable (default: base)",
    )
    add("--models-dir", default="./models", metavar="DIR", help="registry (default: %(default)s)")
    add("--episodes", type=int, default=200, metavar="N", help="per policy (default: %(default)s)")
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


def run(args: argparse.Namespace) -> int:
    """Play, and print one row per policy and way of decoding."""
    from simtune import gym, plugins
    from simtune.eval.compare import evaluate

    if args.episodes < 1 or args.num_envs < 1:
        raise OptionError("--episodes and --num-envs are at least 1")
    for spec in args.plugin:
        plugins.load(spec)
    contenders = _contenders(args)
    make = partial(gym.make, args.env, **pairs(args.env_arg, option="--env-arg"))
    # Before a model is loaded: a wrong environment is found in milliseconds.
    make().close()
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
    from simtune.train.checks import check_model

    wanted = args.model or [BASE]
    registry = Registry(args.models_dir)
    records = {name: registry.get(name) for name in wanted if name != BASE}
    base = args.llm_path or _common_base(list(records.values()))
    check_model(base)
    _as_trained(args, list(records.values()))
    found: list[tuple[str, Callable[[], Any]]] = []
    for name in wanted:
        record = records.get(name)
        adapter = None if record is None else registry.path(record)
        label = BASE if record is None else record.id
        found.append((label, partial(_load, args, base, adapter)))
    return found


def _common_base(records: Sequence[ModelRecord]) -> str:
    bases = sorted({record.base_model for record in records})
    if len(bases) != 1:
        raise OptionError(
            "no base model is named" if not bases else "the adapters sit on several base models",
            expected="--llm-path DIR",
            got=", ".join(bases) or None,
        )
    return bases[0]


def _as_trained(args: argparse.Namespace, records: Sequence[ModelRecord]) -> None:
    """Fill in how all policies are asked, where that was not said: as the first was trained."""
    trained = records[0].parameters if records else {}
    if args.decision is None:
        args.decision = trained.get("decision", "generate")
    if args.history is None:
        args.history = trained.get("history")
    args.length_normalised = bool(trained.get("length_normalised", False))


def _load(args: argparse.Namespace, base: str, adapter: Any) -> Any:
    from simtune.policy.local import LocalPolicy

    return LocalPolicy.load(
        base,
        adapter,
        temperature=args.temperature,
        max_new_tokens=args.max_new_tokens,
        seed=args.seed,
        decision=args.decision,
        length_normalised=args.length_normalised,
    )


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
