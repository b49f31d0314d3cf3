"""Policies that a command plays: their base, how they are asked, how they are loaded."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from simtune.errors import OptionError

if TYPE_CHECKING:
    from simtune.policy.local import LocalPolicy
    from simtune.registry import ModelRecord, Registry


def loaders(
    args: argparse.Namespace, registry: Registry, records: Sequence[ModelRecord | None]
) -> list[Callable[[], LocalPolicy]]:
    """What loads each policy; the base model is found, and made sure of, before any is loaded.

    Args:
        args: with `llm_path`, `decision`, `history`, `temperature`, `max_new_tokens`, `seed`; what
            was not said of decision and history is filled in.
        registry: holds the adapters.
        records: of each policy; None is the base model without an adapter.
    """
    from simtune.train.checks import check_model

    adapters = [record for record in records if record is not None]
    base = args.llm_path or common_base(adapters)
    check_model(base)
    fill_in_as_trained(args, adapters)
    return [
        partial(_load, args, base, None if record is None else registry.path(record))
        for record in records
    ]


def common_base(records: Sequence[ModelRecord]) -> str:
    """The base model that all of them sit on.

    Raises:
        OptionError: there is none, or several.
    """
    bases = sorted({record.base_model for record in records})
    if len(bases) != 1:
        raise OptionError(
            "no base model is named" if not bases else "the adapters sit on several base models",
            expected="--llm-path DIR",
            got=", ".join(bases) or None,
        )
    return bases[0]


def fill_in_as_trained(args: argparse.Namespace, records: Sequence[ModelRecord]) -> None:
    """Fill in how all policies are asked, where that was not said: as the first was trained."""
    trained = records[0].parameters if records else {}
    if args.decision is None:
        args.decision = trained.get("decision", "generate")
    if args.history is None:
        args.history = trained.get("history")
    args.length_normalised = bool(trained.get("length_normalised", False))


def _load(args: argparse.Namespace, base: str, adapter: Path | None) -> LocalPolicy:
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
