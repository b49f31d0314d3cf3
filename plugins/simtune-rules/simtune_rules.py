"""Rewards from rules: what an answer must look like, as a regular expression or a JSON schema.

`rules.single_word` and `rules.json_object` are always there; the file that `SIMTUNE_RULES` names
adds more. Each rule scores every decision of an episode.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

from simtune import Decision, Episode, hookimpl
from simtune.errors import OptionError
from simtune.hookspecs import RegisterReward

VARIABLE = "SIMTUNE_RULES"
PREFIX = "rules."


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule of the file.

    Attributes:
        name: the reward is `rules.<name>`.
        regex: holds where it matches anywhere in the field's text.
        json_schema: holds where the field's value satisfies it (draft 2020-12).
        field: the answer as it came, or what the simulation's parser made of it.
        score: reward where the rule holds.
        otherwise: reward where it does not.
        version: version of the reward; raise it when the rule changes.
    """

    name: str
    regex: str | None = None
    json_schema: dict[str, Any] | bool | None = None
    field: Literal["response", "parsed"] = "response"
    score: float = 1.0
    otherwise: float = 0.0
    version: str = "1"


class RuleFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file holds."""

    rules: list[Rule]


ALWAYS = (
    Rule(name="single_word", regex=r"\A\s*\S+\s*\Z"),
    Rule(name="json_object", json_schema={"type": "object"}),
)


@hookimpl
def simtune_register_rewards(register: RegisterReward) -> None:
    """Register the rules that are always there, then those of the file, if one is named."""
    path = os.environ.get(VARIABLE)
    for rule in [*ALWAYS, *(read_rules(path) if path else [])]:
        register(PREFIX + rule.name, reward_of(rule), version=rule.version)


def read_rules(path: str | Path) -> list[Rule]:
    """Read a YAML or JSON file of rules.

    Raises:
        OptionError: it cannot be read, is no such file, or has options that do not exist.
    """
    import yaml

    try:
        # YAML holds JSON, so one reader serves both.
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        return msgspec.convert(found, RuleFile).rules
    except OSError as error:
        raise OptionError(f"{VARIABLE} names a file that cannot be read: {error}") from error
    except (yaml.YAMLError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise OptionError(f"{path}: not a file of rules: {error}") from error


def reward_of(rule: Rule) -> Callable[[Episode], list[float]]:
    """Make the reward of a rule; the expression or schema is checked here, once.

    Raises:
        OptionError: neither or both of regex and json_schema, or one that is wrong.
    """
    holds = _test_of(rule)

    def reward(episode: Episode) -> list[float]:
        return [rule.score if holds(decision) else rule.otherwise for decision in episode.decisions]

    return reward


def _test_of(rule: Rule) -> Callable[[Decision], bool]:
    if (rule.regex is None) == (rule.json_schema is None):
        raise OptionError(f"rule {rule.name!r} needs either regex or json_schema")
    if rule.regex is None:
        return _schema_test(rule)
    try:
        expression = re.compile(rule.regex)
    except re.error as error:
        raise OptionError(f"rule {rule.name!r}: not a regular expression: {error}") from error
    return lambda decision: expression.search(_text(rule, decision)) is not None


def _schema_test(rule: Rule) -> Callable[[Decision], bool]:
    from jsonschema import Draft202012Validator, SchemaError

    assert rule.json_schema is not None
    try:
        Draft202012Validator.check_schema(rule.json_schema)
    except SchemaError as error:
        raise OptionError(f"rule {rule.name!r}: not a JSON schema: {error.message}") from error
    validator = Draft202012Validator(rule.json_schema)

    def holds(decision: Decision) -> bool:
        if rule.field == "parsed":
            return decision.valid and validator.is_valid(decision.parsed)
        try:
            return bool(validator.is_valid(msgspec.json.decode(decision.response)))
        except msgspec.DecodeError:
            return False

    return holds


def _text(rule: Rule, decision: Decision) -> str:
    if rule.field == "response":
        return decision.response
    parsed = decision.parsed
    return parsed if isinstance(parsed, str) else msgspec.json.encode(parsed).decode()
