"""Which model is champion: promote, refuse, roll back. Each is one step under the lock.

A change and its entry in the history are written together, by one atomic rename. There is at most
one champion in a registry; where there is none, the base model without an adapter is what a
candidate has to beat.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from simtune.errors import RegistryError
from simtune.registry.files import Index, locked, read_index, write_index
from simtune.registry.history import Author, Change, Event, lineage
from simtune.registry.record import ModelRecord
from simtune.registry.registry import Registry
from simtune.registry.soundness import check_same_base, check_sound

logger = logging.getLogger(__name__)

BASE: Final = "base"
"""Names the base model without an adapter, where a model is asked for."""


class ChampionChangedError(RegistryError):
    """The champion is no longer the one that a decision was made about."""


def champion_of(registry: Registry) -> ModelRecord | None:
    """The champion; None where the base model is what there is."""
    return _champion(read_index(registry.models_dir))


def history_of(registry: Registry) -> list[Change]:
    """Every decision about the champion, oldest first."""
    return read_index(registry.models_dir).history


def promote(
    registry: Registry,
    wanted: str,
    *,
    by: Author = "hand",
    reason: str = "",
    evidence: Mapping[str, Any] | None = None,
    beaten: ModelRecord | str | None = "any",
    other_base: bool = False,
) -> Change:
    """Make a model champion; the one before it is retired.

    Args:
        registry: where it is.
        wanted: id, its beginning, or `latest`.
        by: who decided.
        reason: in words, for the history.
        evidence: the numbers behind the decision.
        beaten: the champion that was measured against (None: the base model); `any`: whichever
            there is at this moment.
        other_base: whether it may sit on another base model than the champion.

    Raises:
        ChampionChangedError: another model was promoted meanwhile.
        RegistryError: no such model, files gone or changed, another base model, or it is
            champion already.
    """
    model_id = registry.get(wanted).id

    def change(index: Index) -> Change:
        record = _record(index, model_id)
        before = _champion(index)
        _unchanged(before, beaten)
        if before is not None and before.id == record.id:
            raise RegistryError(f"model {record.id!r} is champion already")
        check_sound(registry.models_dir, record)
        if before is not None and not other_base:
            check_same_base(record, before)
        return _move(
            index, "promoted", before, record, by=by, model=record.id, reason=reason, of=evidence
        )

    return _changed(registry, change)


def refuse(
    registry: Registry,
    wanted: str,
    *,
    by: Author = "gate",
    reason: str,
    evidence: Mapping[str, Any] | None = None,
) -> Change:
    """Note that a model was not promoted, and why; it stays a candidate.

    Raises:
        RegistryError: no such model.
    """
    model_id = registry.get(wanted).id

    def change(index: Index) -> Change:
        present = _champion(index)
        kept = None if present is None else present.id
        made = Change(
            at=_now(),
            event="refused",
            by=by,
            model=model_id,
            before=kept,
            after=kept,
            reason=reason,
            evidence=dict(evidence or {}),
        )
        index.history.append(made)
        return made

    return _changed(registry, change)


def roll_back(
    registry: Registry,
    to: str | None = None,
    *,
    by: Author = "hand",
    reason: str = "",
    evidence: Mapping[str, Any] | None = None,
    fallen: ModelRecord | str | None = "any",
) -> Change:
    """Retire the champion, and go back to one before it.

    Args:
        registry: where they are.
        to: id, or `base` for no adapter; by default the last champion before this one whose files
            are sound, else the base model. Champions that were rolled back are passed over.
        by: who decided.
        reason: in words, for the history.
        evidence: the numbers behind the decision.
        fallen: the champion that is to go; `any`: whichever there is.

    Raises:
        ChampionChangedError: another model was promoted meanwhile.
        RegistryError: there is no champion, or what was asked for cannot be gone back to.
    """
    named = None if to in (None, BASE) else registry.get(str(to)).id

    def change(index: Index) -> Change:
        before = _champion(index)
        _unchanged(before, fallen)
        if before is None:
            raise RegistryError(
                "there is no champion to roll back",
                expected="a promoted model",
                fix="simtune models promote ID",
            )
        passed: list[str] = []
        if to == BASE:
            target = None
        elif named is not None:
            target = _record(index, named)
            check_sound(registry.models_dir, target)
        else:
            target, passed = _last_sound(registry, index)
        if target is not None and target.id == before.id:
            raise RegistryError(f"model {before.id!r} is the champion that there is")
        said = "; ".join([*([reason] if reason else []), *passed])
        return _move(
            index, "rolled_back", before, target, by=by, model=before.id, reason=said, of=evidence
        )

    return _changed(registry, change)


def _changed(registry: Registry, change: Callable[[Index], Change]) -> Change:
    registry.get("latest")
    with locked(registry.models_dir):
        index = read_index(registry.models_dir)
        made = change(index)
        write_index(registry.models_dir, index)
    logger.log(
        logging.WARNING if made.by == "watch" else logging.INFO,
        "%s by %s: %s; champion %s -> %s; %s",
        made.event,
        made.by,
        made.model,
        made.before or BASE,
        made.after or BASE,
        made.reason or "no reason given",
    )
    return made


def _move(
    index: Index,
    event: Event,
    before: ModelRecord | None,
    after: ModelRecord | None,
    *,
    by: Author,
    model: str,
    reason: str,
    of: Mapping[str, Any] | None,
) -> Change:
    if before is not None:
        before.status = "retired"
    if after is not None:
        after.status = "champion"
    made = Change(
        at=_now(),
        event=event,
        by=by,
        model=model,
        before=None if before is None else before.id,
        after=None if after is None else after.id,
        reason=reason,
        evidence=dict(of or {}),
    )
    index.history.append(made)
    return made


def _last_sound(registry: Registry, index: Index) -> tuple[ModelRecord | None, list[str]]:
    """The newest former champion that can be used, and what was passed over to get there."""
    passed: list[str] = []
    for model_id in reversed(lineage(index.history)[:-1]):
        if model_id is None:
            break
        try:
            record = _record(index, model_id)
            check_sound(registry.models_dir, record)
        except RegistryError as error:
            passed.append(f"passed over {model_id}: {str(error).splitlines()[0]}")
            continue
        return record, passed
    return None, passed


def _champion(index: Index) -> ModelRecord | None:
    return next((one for one in reversed(index.models) if one.status == "champion"), None)


def _record(index: Index, model_id: str) -> ModelRecord:
    for record in index.models:
        if record.id == model_id:
            return record
    raise RegistryError(f"no model {model_id!r} in the registry", fix="simtune models ls")


def _unchanged(present: ModelRecord | None, expected: ModelRecord | str | None) -> None:
    if isinstance(expected, str):
        return
    was, now = (BASE if one is None else one.id for one in (expected, present))
    if was != now:
        raise ChampionChangedError(
            "the champion changed meanwhile",
            expected=was,
            got=now,
            fix="measure against the new champion",
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
