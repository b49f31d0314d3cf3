"""`simtune plugins ls`: what is installed, what it offers, and what failed."""

from __future__ import annotations

import argparse
from typing import Any

from simtune.cli import output

HELP = "Show the plugins that are installed or loaded."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("action", choices=["ls"], help="ls: list them")
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE_OR_MODULE",
        help="plugin to load as well, repeatable",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """List the plugins; failures are shown, not raised."""
    from simtune import plugins

    for spec in args.plugin:
        plugins.load(spec)
    listed = _listed()
    if args.json:
        output.json(listed)
        return 0
    output.table(
        ["plugin", "distribution", "hooks", "rewards"],
        [
            [each["name"], each["distribution"], ", ".join(each["hooks"]), _rewards(each)]
            for each in listed
        ],
    )
    for each in listed:
        for failure in each["failures"]:
            output.line(f"{each['name']} failed in {failure['hook']}: {failure['error']}")
    return 0


def _listed() -> list[dict[str, Any]]:
    from simtune import plugins
    from simtune.rewards.registration import collect

    manager = plugins.manager()
    rewards = collect().values()
    distributions = plugins.distributions()
    failures = plugins.first_failures()
    # A plugin that failed on import is known by its failure alone.
    names = dict.fromkeys([name for name, plugin in manager.list_name_plugin() if plugin])
    names.update(dict.fromkeys(failure.plugin for failure in failures))
    return [
        {
            "name": name,
            "distribution": distributions.get(name),
            "hooks": _hooks(manager, name),
            "rewards": [
                {"name": each.name, "version": each.version}
                for each in rewards
                if each.plugin == name
            ],
            "failures": [
                {"hook": each.hook, "error": each.error} for each in failures if each.plugin == name
            ],
        }
        for name in names
    ]


def _hooks(manager: Any, name: str) -> list[str]:
    plugin = manager.get_plugin(name)
    callers = manager.get_hookcallers(plugin) if plugin is not None else None
    return sorted(caller.name for caller in callers or ())


def _rewards(listed: dict[str, Any]) -> str:
    return ", ".join(f"{each['name']} ({each['version']})" for each in listed["rewards"])
