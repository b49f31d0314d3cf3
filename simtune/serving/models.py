"""The models that can be asked for by name: the base, the registry's adapters, and directories."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from simtune.errors import RegistryError, SimtuneError
from simtune.policy.adapter_hash import saved_sha256
from simtune.registry import ModelRecord, Registry
from simtune.registry.files import REGISTRY_FILE, read_index
from simtune.registry.history import measured_worse
from simtune.serving.beside import beside

CHAMPION, LATEST = "champion", "latest"


class Served(msgspec.Struct, frozen=True):
    """A model that answers.

    Attributes:
        id: the registry's id, the directory's name, or the base model's name.
        adapter: content hash; None: the base model alone.
        lane: what writes its answers.
    """

    id: str
    adapter: str | None
    lane: Any


class UnknownModelError(Exception):
    """No such model; the message lists those that there are."""


class Models:
    """Names and what answers to them; `champion` and `latest` follow the registry.

    `latest` is the newest adapter that is neither retired nor found worse than the champion by the
    gate. While there is none, an alias means the base model, so that a simulation can begin before
    the first adapter is there, and goes on where the only champion was rolled back.

    An alias moves to another adapter only when that one is loaded, so nobody waits for a swap.
    An adapter is loaded once for each content hash, and dropped when it is the one least lately
    asked and no alias means it; answers that are being written keep theirs.

    Args:
        base_name: of the base model.
        base_path: its directory; adapters of other bases are not served.
        base: the model.
        lane_of: makes a lane of a model and a content hash.
        models_dir: the registry.
        keep: adapters that stay loaded.
    """

    def __init__(
        self,
        *,
        base_name: str,
        base_path: str,
        base: Any,
        lane_of: Callable[[Any, str | None], Any],
        models_dir: str,
        keep: int,
    ) -> None:
        self._base = base
        self._base_path = base_path
        self._lane_of = lane_of
        self._registry = Registry(models_dir)
        self._file = Path(models_dir) / REGISTRY_FILE
        self._keep = keep
        self._lock = threading.Lock()
        self.base = Served(base_name, None, lane_of(base, None))
        self._directories: dict[str, Path] = {}
        self._records: dict[str, ModelRecord] = {}
        self._aliases = {CHAMPION: self.base, LATEST: self.base}
        self._loaded: dict[str, Served] = {}
        self._seen: tuple[int, ...] | None = None
        self._failed: set[str] = set()
        self.swaps = 0

    def names(self) -> dict[str, str | None]:
        """Every name that can be asked for, and its content hash where that is known."""
        found: dict[str, str | None] = {self.base.id: None}
        for name, served in list(self._aliases.items()):
            found[name] = served.adapter
        for name in self._directories:
            found[name] = self._loaded[name].adapter if name in self._loaded else None
        for record in list(self._records.values()):
            found[record.id] = record.weights_sha256
        return found

    def ready(self, name: str) -> Served | None:
        """What answers to a name, if it is loaded; notes that it was asked for.

        Raises:
            UnknownModelError: no such name.
        """
        if name in (self.base.id, self._base_path):
            return self.base
        served = self._aliases.get(name) or self._loaded.get(name)
        if served is not None:
            self._touch(served)
        elif name not in self._records and name not in self._directories:
            known = list(self.names())
            raise UnknownModelError(
                f"no model {name!r}; there are: {', '.join(known[:20])}"
                + (f" and {len(known) - 20} more" if len(known) > 20 else "")
            )
        return served

    def load(self, name: str) -> Served:
        """Load what answers to a name; takes as long as reading an adapter takes.

        Raises:
            UnknownModelError: no such name.
            SimtuneError: its files are gone, broken, or do not fit the base.
        """
        with self._lock:
            found = self.ready(name)
            if found is not None:
                return found
            if name in self._directories:
                return self._load(name, self._directories[name], None)
            record = self._records[name]
            return self._load(name, self._registry.path(record), record.weights_sha256)

    def hold(self, name: str) -> Served:
        """Load an adapter of the registry or a directory at the start.

        Raises:
            SimtuneError: there is none.
        """
        if Path(name).is_dir():
            self._directories[Path(name).name] = Path(name)
            return self.load(Path(name).name)
        record = self._registry.get(name)
        self._records.setdefault(record.id, record)
        return self.load(record.id)

    def changed(self) -> bool:
        """Whether the registry's file is another than at the last `follow`."""
        return self._signature() != self._seen

    def follow(self) -> None:
        """Take the registry as it is now; aliases move when their adapter is loaded.

        What cannot be read or loaded is said on stderr, once; the names stay as they were.
        """
        seen = self._signature()
        try:
            index = read_index(self._registry.models_dir)
        except RegistryError as error:
            self._complain(f"the registry cannot be followed: {error}")
            self._seen = seen
            return
        mine = [one for one in index.models if one.type == "fine_tuned" and self._fits(one)]
        self._records = {record.id: record for record in mine}
        champions = [record for record in mine if record.status == CHAMPION]
        worse = measured_worse(index.history)
        in_use = [one for one in mine if one.status != "retired" and one.id not in worse]
        for alias, found in ((CHAMPION, champions), (LATEST, in_use)):
            self._move(alias, found[-1] if found else None)
        self._seen = seen

    def cache_bytes(self) -> int:
        """Bytes of all caches."""
        lanes = {id(one.lane): one.lane for one in [self.base, *list(self._loaded.values())]}
        return sum(lane.cache_bytes for lane in lanes.values())

    @property
    def loaded(self) -> list[str]:
        """Ids of the adapters that are loaded."""
        return list(self._loaded)

    def _move(self, alias: str, record: ModelRecord | None) -> None:
        if self._aliases[alias].id == (self.base.id if record is None else record.id):
            return
        try:
            served = self.base if record is None else self.load(record.id)
        except SimtuneError as error:
            if record is not None and record.id not in self._failed:
                self._failed.add(record.id)
                self._complain(f"{alias} stays as it was: {error}")
            return
        self._aliases[alias] = served
        self.swaps += 1

    def _load(self, name: str, path: Path, expected: str | None) -> Served:
        adapter = saved_sha256(path)
        if expected is not None and adapter != expected:
            raise RegistryError(
                f"the weights of model {name!r} are not those that were registered",
                expected=expected,
                got=adapter,
            )
        same = next((one for one in self._loaded.values() if one.adapter == adapter), None)
        lane = same.lane if same is not None else self._lane_of(beside(self._base, path), adapter)
        served = self._loaded[name] = Served(name, adapter, lane)
        self._drop()
        return served

    def _drop(self) -> None:
        """Let go of the adapters least lately asked."""
        meant = {one.id for one in self._aliases.values()} | set(self._directories)
        for name in list(self._loaded)[:-1]:
            if len(self._loaded) <= self._keep:
                return
            if name not in meant:
                del self._loaded[name]

    def _touch(self, served: Served) -> None:
        found = self._loaded.pop(served.id, None)
        if found is not None:
            self._loaded[served.id] = found

    def _fits(self, record: ModelRecord) -> bool:
        mine, theirs = Path(self._base_path), Path(record.base_model)
        return mine.resolve() == theirs.resolve() or mine.name == theirs.name

    def _signature(self) -> tuple[int, ...] | None:
        try:
            found = os.stat(self._file)
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_size, found.st_ino)

    @staticmethod
    def _complain(text: str) -> None:
        sys.stderr.write(f"simtune serve: {time.strftime('%H:%M:%S')} {text}\n")
