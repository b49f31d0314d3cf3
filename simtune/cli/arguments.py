"""Command-line flags made from options Structs, so that every option is written down once."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import inspect

from simtune.cli.values import pairs
from simtune.errors import OptionError

ALIASES = {"training_arguments": "--set"}
"""A second, shorter flag of an option."""


def add_flags(parser: argparse.ArgumentParser, kinds: Mapping[str, type[msgspec.Struct]]) -> None:
    """Add a flag for every field of several Structs, once each, grouped by who reads it.

    Flags have no defaults of their own: what was not given is absent from the namespace, and
    `given` finds what was.

    Args:
        parser: where to add them.
        kinds: name of a method -> its options.
    """
    fields: dict[str, list[tuple[str, inspect.Field]]] = {}
    for method, kind in kinds.items():
        for field in _fields(kind):
            fields.setdefault(field.name, []).append((method, field))
    groups: dict[str, argparse._ArgumentGroup] = {}
    for name, users in fields.items():
        readers = [method for method, _ in users]
        title = (
            "options of every method"
            if len(readers) == len(kinds)
            else f"options of {' and '.join(readers)} only"
        )
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        _add_flag(groups[title], name, users)


def given(args: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """The options that were given as flags, `K=V` ones as dicts.

    Raises:
        OptionError: a `K=V` option without `=`.
    """
    found = {name: getattr(args, name) for name in names if hasattr(args, name)}
    return {
        name: pairs(value, option=ALIASES.get(name, flag(name)))
        if isinstance(value, _Pairs)
        else value
        for name, value in found.items()
    }


def merged(config: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Flags over a configuration file; dict options are merged key by key."""
    values = {name.replace("-", "_"): value for name, value in config.items()}
    for name, value in flags.items():
        below = values.get(name)
        both = isinstance(below, dict) and isinstance(value, dict)
        values[name] = {**below, **value} if both else value  # type: ignore[dict-item]
    return values


def read_config(path: str) -> dict[str, Any]:
    """Read a YAML file of options.

    Raises:
        OptionError: no such file, no YAML, or no mapping of names to values.
    """
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            found = yaml.safe_load(file)
    except OSError as error:
        raise OptionError(f"the configuration file {path!r} cannot be read", got=error) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise OptionError(f"the configuration file {path!r} is not YAML", got=error) from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise OptionError(
            f"the configuration file {path!r} is not a list of options",
            expected="name: value, one a line",
            got=type(found).__name__,
        )
    return found


def flag(name: str) -> str:
    """The flag of a field: `llm_path` -> `--llm-path`."""
    return "--" + name.replace("_", "-")


class _Pairs(list[str]):
    """The `K=V` texts of one dict option."""


class _AppendPair(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Keep one more `K=V`."""
        setattr(namespace, self.dest, _Pairs([*getattr(namespace, self.dest, ()), values]))


def _fields(kind: type[msgspec.Struct]) -> tuple[inspect.Field, ...]:
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    return info.fields


def _add_flag(
    group: argparse._ArgumentGroup, name: str, users: list[tuple[str, inspect.Field]]
) -> None:
    kind, description = _described(users[0][1].type)
    action: Any = "store"
    if isinstance(kind, inspect.ListType):
        action = "append"
    elif isinstance(kind, inspect.DictType):
        action = _AppendPair
    # A switch alone turns it on: `--follow` is `--follow true`.
    switch: dict[str, Any] = {"nargs": "?", "const": "true"} if _is_switch(kind) else {}
    group.add_argument(
        *([ALIASES[name]] if name in ALIASES else []),
        flag(name),
        dest=name,
        action=action,
        default=argparse.SUPPRESS,
        metavar=_metavar(kind) + ("|null" if _switched_off_by_null(users[0][1]) else ""),
        help=(description + _defaults(users)).replace("%", "%%"),
        **switch,
    )


def _is_switch(kind: inspect.Type) -> bool:
    return isinstance(kind, inspect.BoolType)


def _described(kind: inspect.Type) -> tuple[inspect.Type, str]:
    """The bare type of a field and its description."""
    description = ""
    while True:
        if isinstance(kind, inspect.Metadata):
            schema = kind.extra_json_schema or {}
            description = description or str(schema.get("description", ""))
            kind = kind.type
        elif isinstance(kind, inspect.UnionType):
            kind = next(each for each in kind.types if not isinstance(each, inspect.NoneType))
        else:
            return kind, description


def _switched_off_by_null(field: inspect.Field) -> bool:
    kind = field.type.type if isinstance(field.type, inspect.Metadata) else field.type
    return field.default is not None and isinstance(kind, inspect.UnionType)


def _metavar(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.LiteralType):
        return "|".join(map(str, kind.values))
    if isinstance(kind, inspect.DictType):
        return "NAME=VALUE"
    names = {inspect.IntType: "N", inspect.FloatType: "X", inspect.BoolType: "true|false"}
    return names.get(type(kind), "TEXT")


def _defaults(users: list[tuple[str, inspect.Field]]) -> str:
    """` (default: 3)`, or ` (default: sft 3, ppo 1)` where methods differ."""
    values = {method: field.default for method, field in users}
    shown = {
        method: value
        for method, value in values.items()
        if value not in (msgspec.NODEFAULT, msgspec.UNSET, None, "")
    }
    if not shown:
        return ""
    if len(set(map(str, shown.values()))) == 1:
        return f" (default: {next(iter(shown.values()))})"
    return f" (default: {', '.join(f'{method} {value}' for method, value in shown.items())})"
