"""Which episodes: the filters that `ls`, `stats` and `export` share."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from simtune.errors import DataError

if TYPE_CHECKING:
    from simtune.store import Store


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Declare --env, --run, --adapter and --where."""
    parser.add_argument("--env", metavar="NAME", help="episodes of this environment")
    parser.add_argument("--run", metavar="ID", help="episodes of this run of the simulation")
    parser.add_argument("--adapter", metavar="HASH", help="adapter's hash, or its beginning")
    parser.add_argument(
        "--where",
        metavar="SQL",
        help="condition on the view `episodes`, such as 'success and decisions < 9'",
    )


def filtered(args: argparse.Namespace) -> bool:
    """Whether any filter was given."""
    return any((args.env, args.run, args.adapter, args.where))


def summaries(store: Store, args: argparse.Namespace) -> list[dict[str, Any]]:
    """What the filters leave of the view `episodes`, in order of the episodes' starts."""
    found: list[dict[str, Any]] = store.summary().to_pylist()
    ids = None if args.where is None else set(store.episode_ids_where(args.where))
    return [
        episode
        for episode in found
        if (ids is None or episode["episode_id"] in ids)
        and args.env in (None, episode["env"])
        and args.run in (None, episode["run_id"])
        and (args.adapter is None or str(episode["adapter"] or "").startswith(args.adapter))
    ]


def whole_id(store: Store, beginning: str) -> str:
    """The one episode id that begins so.

    Raises:
        DataError: there is none, or there are several; the message names near ones.
    """
    found = store.episode_ids(beginning)
    if len(found) == 1 or beginning in found:
        return beginning if beginning in found else found[0]
    if found:
        raise DataError(
            f"{len(found)} episodes begin with {beginning!r}",
            expected="more of the id",
            got=_some(found),
        )
    raise DataError(
        f"no episode {beginning!r} in {store.root}",
        expected=f"an id such as {_some(_near(store, beginning))}",
        fix=f"simtune episodes ls --store {store.root}",
    )


def _near(store: Store, wrong: str) -> list[str]:
    """The ids that share the longest beginning with a wrong one."""
    for length in range(len(wrong) - 1, -1, -1):
        found = store.episode_ids(wrong[:length])
        if found:
            return found
    return []


def _some(ids: list[str]) -> str:
    return ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
