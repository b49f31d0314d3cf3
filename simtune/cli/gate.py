"""`simtune eval --gate`: promote a candidate only where it is measurably better."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING, Any

from simtune.cli import output
from simtune.cli.contenders import loaders
from simtune.cli.progress import Progress
from simtune.cli.promotion import add_tracking_uri, tell_mlflow
from simtune.cli.values import pairs
from simtune.errors import OptionError

if TYPE_CHECKING:
    from simtune.eval.metrics import Metric
    from simtune.eval.verdict import Rule, Verdict
    from simtune.registry import ModelRecord, Registry

NOT_PROMOTED = 1
EPISODES = 200

_DEFAULTS: dict[str, Any] = {
    "store": None,
    "metric": None,
    "range": None,
    "margin": 0.0,
    "confidence": 0.95,
    "max_episodes": None,
    "decoding": "sampled",
    "min_ess": None,
    "weight_cap": None,
    "other_base": False,
    "tracking_uri": None,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that go with `--gate`."""
    group = parser.add_argument_group("promotion, with --gate")
    add = group.add_argument
    add(
        "--gate",
        action="store_true",
        help="promote --model (default: latest) if it is better than the champion; "
        "exit code 0: promoted, 1: not",
    )
    add("--store", metavar="ROOT", help="compare on these logged decisions instead of --env")
    add("--metric", metavar="NAME", help="success (default), return, or a reward")
    add("--range", nargs=2, type=float, metavar=("LOW", "HIGH"), help="of the metric")
    add("--margin", type=float, metavar="X", help="to be better by (default: 0)")
    add("--confidence", type=float, metavar="P", help="of the lower bound (default: 0.95)")
    add("--max-episodes", type=int, metavar="N", help="stop as soon as it is decided")
    add("--decoding", choices=["sampled", "greedy"], help="of both (default: sampled)")
    add("--min-ess", type=float, metavar="N", help="--store: least effective sample (default: 50)")
    add("--weight-cap", type=float, metavar="C", help="--store: largest weight (default: 20)")
    add("--other-base", action="store_true", help="allow another base than the champion's")
    add_tracking_uri(group)
    parser.set_defaults(**dict.fromkeys(_DEFAULTS, None) | {"other_base": False})


def refuse_stray(args: argparse.Namespace) -> None:
    """Make sure that no option of the gate was given without it.

    Raises:
        OptionError: one was.
    """
    for name in _DEFAULTS:
        if getattr(args, name) not in (None, False):
            raise OptionError(f"--{name.replace('_', '-')} goes with --gate")


def run(args: argparse.Namespace) -> int:
    """Measure, decide, write it down; returns 0 where the candidate was promoted, else 1."""
    from simtune import plugins
    from simtune.eval.metrics import SUCCESS, Metric
    from simtune.eval.verdict import Rule, settle
    from simtune.registry import Registry
    from simtune.registry.promotion import champion_of
    from simtune.registry.soundness import check_same_base, check_sound

    _check(args)
    for spec in args.plugin:
        plugins.load(spec)
    rule = Rule(margin=args.margin, confidence=args.confidence)
    metric = Metric(args.metric or SUCCESS, tuple(args.range) if args.range else None)
    registry = Registry(args.models_dir)
    candidate = registry.get((args.model or ["latest"])[0])
    champion = champion_of(registry)
    if champion is not None and champion.id == candidate.id:
        raise OptionError(f"model {candidate.id!r} is the champion", expected="another model")
    # Before hours of play: what could not be promoted is not measured.
    check_sound(registry.models_dir, candidate)
    if champion is not None and not args.other_base:
        check_same_base(candidate, champion)
    measure = _in_environment if args.store is None else _on_logs
    verdict = measure(args, registry, (candidate, champion), metric, rule)
    change = settle(registry, candidate, champion, verdict, other_base=args.other_base)
    tell_mlflow(registry, args.tracking_uri)
    if args.json:
        output.json({"promoted": change.event == "promoted", "change": change})
    else:
        _print(verdict)
        output.line(f"{change.event}: {change.reason}")
        output.line(f"champion: {change.after or 'base'}")
    return 0 if change.event == "promoted" else NOT_PROMOTED


def _check(args: argparse.Namespace) -> None:
    if args.model is not None and len(args.model) != 1:
        raise OptionError("--gate is for one --model", got=" ".join(args.model))
    if (args.env is None) == (args.store is None):
        raise OptionError(
            "--gate needs a simulator or logged decisions", expected="either --env or --store"
        )
    if args.episodes is not None and args.max_episodes is not None:
        raise OptionError("--episodes plays that many, --max-episodes at most: give one of them")
    only = {"env": ("max_episodes", "decoding"), "store": ("min_ess", "weight_cap")}
    absent = "env" if args.env is None else "store"
    for name in only[absent]:
        if getattr(args, name) is not None:
            raise OptionError(f"--{name.replace('_', '-')} goes with --{absent}")
    for name, value in _DEFAULTS.items():
        if getattr(args, name) is None:
            setattr(args, name, value)


def _in_environment(
    args: argparse.Namespace,
    registry: Registry,
    models: tuple[ModelRecord, ModelRecord | None],
    metric: Metric,
    rule: Rule,
) -> Verdict:
    from simtune import gym
    from simtune.eval.gate import Match, play_match
    from simtune.gym.seating import check_source

    make = partial(gym.build, args.env, **pairs(args.env_arg, option="--env-arg"))
    check_source(make)
    load = loaders(args, registry, models)
    match = Match(
        env=make,
        metric=metric,
        rule=rule,
        method="sign-flip" if args.max_episodes is None else "betting",
        episodes=args.max_episodes or args.episodes or EPISODES,
        seed=args.seed,
        num_envs=args.num_envs,
        history=args.history,
    )
    policies = [one() for one in load]
    for policy in policies:
        policy.greedy = args.decoding == "greedy"
    with Progress("episodes", 2 * match.episodes) as progress:
        return play_match(
            match,
            *policies,
            names=_names(models),
            details={
                "env": args.env,
                "env_arg": args.env_arg,
                "decoding": args.decoding,
                "temperature": args.temperature,
                "decision": args.decision,
            },
            on_episode=lambda _: progress.advance(),
        )


def _on_logs(
    args: argparse.Namespace,
    registry: Registry,
    models: tuple[ModelRecord, ModelRecord | None],
    metric: Metric,
    rule: Rule,
) -> Verdict:
    from simtune.eval.logged import MIN_ESS, judge_logged, usable_logs
    from simtune.eval.off_policy import WEIGHT_CAP
    from simtune.store import read

    load = loaders(args, registry, models)
    logs = usable_logs(read(args.store).episodes(), metric, newest=args.episodes)
    return judge_logged(
        logs,
        *load,
        metric=metric,
        rule=rule,
        names=_names(models),
        min_ess=MIN_ESS if args.min_ess is None else args.min_ess,
        cap=WEIGHT_CAP if args.weight_cap is None else args.weight_cap,
        seed=args.seed,
    )


def _names(models: tuple[ModelRecord, ModelRecord | None]) -> tuple[str, str]:
    from simtune.registry.promotion import BASE

    candidate, champion = models
    return candidate.id, BASE if champion is None else champion.id


def _print(verdict: Verdict) -> None:
    low, high = verdict.difference.low, verdict.difference.high
    output.line(f"candidate {verdict.candidate}: {verdict.metric} {verdict.candidate_mean:.4g}")
    output.line(f"champion {verdict.champion}: {verdict.metric} {verdict.champion_mean:.4g}")
    output.line(
        f"difference {verdict.difference.estimate:.4g} [{low:.4g}, {high:.4g}], "
        f"{verdict.episodes} episodes, {verdict.method}, each bound at {verdict.confidence:g}"
    )
    sizes = verdict.details.get("effective_sample_size")
    if sizes:
        output.line(
            f"effective sample size: candidate {sizes[0]:.4g}, champion {sizes[1]:.4g}, "
            f"needed {verdict.details['min_ess']:g}"
        )
