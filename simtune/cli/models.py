"""`simtune models`: what is in the registry, and base models to begin from."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from simtune.cli import output, promotion, watch
from simtune.cli.progress import Progress
from simtune.errors import OptionError

if TYPE_CHECKING:
    from simtune.registry import ModelRecord, Registry

HELP = "The registry of adapters, and base models."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what can be done with models."""
    actions = parser.add_subparsers(
        dest="action",
        required=True,
        metavar="ls | show | promote | rollback | history | watch | pull-base",
    )
    listing = actions.add_parser("ls", help="every registered model", allow_abbrev=False)
    show = actions.add_parser("show", help="one model's whole record", allow_abbrev=False)
    show.add_argument("model", metavar="ID", help="id or its beginning, `latest` or `champion`")
    for each in (listing, show):
        each.add_argument(
            "--models-dir", default="./models", metavar="DIR", help="registry of adapters"
        )
        each.add_argument("--json", action="store_true", help="print JSON")
    promotion.add_actions(actions)
    watch.add_action(actions)
    pull = actions.add_parser("pull-base", help="make a base model directory", allow_abbrev=False)
    pull.add_argument("name", metavar="NAME", help="tiny, smollm2-135m, or a hub id")
    pull.add_argument(
        "--env", metavar="SPEC", help="tiny: environment whose words it learns (default: a lake)"
    )
    pull.add_argument("--seed", type=int, default=0, help="tiny: seed of its weights and play")
    pull.add_argument("--output", required=True, metavar="DIR", help="directory to make")


def run(args: argparse.Namespace) -> int:
    """Do what was asked for."""
    if args.action == "pull-base":
        return _pull_base(args)
    from simtune.registry import Registry

    registry = Registry(args.models_dir)
    if args.action == "ls":
        return _list(registry.list(), args.json)
    if args.action == "show":
        return _show(registry, registry.get(args.model), args.json)
    if args.action == "watch":
        return watch.run(args, registry)
    return promotion.run(args, registry)


def _list(records: list[ModelRecord], as_json: bool) -> int:
    if as_json:
        output.json(records)
        return 0
    output.table(
        ["id", "name", "version", "method", "status", "decisions", "created"],
        [
            (r.id, r.name, r.version, r.method, r.status, r.data and r.data.decisions, r.created_at)
            for r in records
        ],
    )
    return 0


def _show(registry: Registry, record: ModelRecord, as_json: bool) -> int:
    if as_json:
        output.json(record)
        return 0
    import msgspec

    fields = msgspec.to_builtins(record)
    fields["path"] = str(registry.path(record).resolve())
    for name, value in fields.items():
        if not isinstance(value, dict):
            output.line(f"{name}: {output.cell(value)}")
            continue
        output.line(f"{name}:")
        for key, inner in value.items():
            output.line(f"  {key}: {output.cell(inner)}")
    _show_changes(registry, record)
    return 0


def _show_changes(registry: Registry, record: ModelRecord) -> None:
    """What was decided about a model."""
    from simtune.registry.promotion import history_of

    about = [one for one in history_of(registry) if record.id in (one.model, one.before, one.after)]
    if about:
        output.line("history:")
    for one in about:
        output.line(
            f"  {one.at} {one.event} by {one.by}: {one.model}, "
            f"champion {one.before or 'base'} -> {one.after or 'base'}; {one.reason or '-'}"
        )


def _pull_base(args: argparse.Namespace) -> int:
    from simtune.policy.bases import DEFAULT_ENV, pull_base

    if args.env is not None and args.name != "tiny":
        raise OptionError(f"--env is for tiny; {args.name} knows its words already")
    with Progress(f"base model {args.name}") as progress:
        made = pull_base(
            args.name,
            args.output,
            env=args.env or DEFAULT_ENV,
            seed=args.seed,
            on_step=lambda step, total, loss: progress.update(step, total, {"loss": loss}),
        )
    output.line(str(made))
    return 0
