"""The registry of adapters: add one, list them, find one."""

from __future__ import annotations

import difflib
import hashlib
import itertools
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

import simtune
from simtune import plugins
from simtune.errors import RegistryError
from simtune.registry.files import Index, locked, read_index, write_index
from simtune.registry.provenance import code_commit, library_versions
from simtune.registry.record import DataSeen, ModelRecord, ModelType

Records: TypeAlias = list[ModelRecord]


class Registry:
    """The models under one directory.

    Args:
        models_dir: holds `registry.json` and one directory per model; made when first written.
    """

    def __init__(self, models_dir: str | Path) -> None:
        """Name the directory; nothing is read or made yet."""
        self.models_dir = Path(models_dir)

    def list(self) -> Records:
        """Every record, oldest registration first."""
        return read_index(self.models_dir).models

    def get(self, wanted: str) -> ModelRecord:
        """Find a model by `latest`, `champion`, its id, or the beginning of its id.

        Raises:
            RegistryError: no model, or several, match.
        """
        records = self.list()
        if not records:
            raise RegistryError(
                f"no model {wanted!r}: the registry in {str(self.models_dir)!r} is empty",
                fix="simtune train sft ... registers one; --models-dir names another registry",
            )
        if wanted == "latest":
            return records[-1]
        if wanted == "champion":
            return self._champion(records)
        exact = [record for record in records if record.id == wanted]
        found = exact or [record for record in records if wanted and record.id.startswith(wanted)]
        if len(found) == 1:
            return found[0]
        ids = [record.id for record in records]
        if found:
            raise RegistryError(
                f"{wanted!r} begins the id of {len(found)} models",
                expected="a longer prefix",
                got=", ".join(record.id for record in found[:5]),
            )
        near = difflib.get_close_matches(wanted, ids, n=3, cutoff=0.4)
        raise RegistryError(
            f"no model {wanted!r} in {str(self.models_dir)!r}",
            expected=f"latest, champion, or an id such as {', '.join(near or ids[-3:])}",
            fix="simtune models ls",
        )

    def path(self, record: ModelRecord) -> Path:
        """Where a model's files are.

        Raises:
            RegistryError: the directory is gone.
        """
        path = self.models_dir / record.path
        if not path.is_dir():
            raise RegistryError(
                f"the files of model {record.id!r} are gone", expected=f"a directory {path}"
            )
        return path

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A directory to write a model's files into; gone afterwards unless registered.

        It is inside the registry's directory, so that registering it is a rename.
        """
        self._create()
        staged = Path(tempfile.mkdtemp(prefix=".staging-", dir=self.models_dir))
        try:
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def register(
        self,
        staged: Path,
        *,
        method: str,
        base_model: str,
        weights_sha256: str,
        name: str | None = None,
        type: ModelType = "fine_tuned",
        description: str = "",
        tags: Mapping[str, str] | None = None,
        parameters: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        mlflow_run_id: str | None = None,
        parent: str | None = None,
        data: DataSeen | None = None,
    ) -> ModelRecord:
        """Move a staged directory to its place and add its record, both or neither.

        Afterwards `simtune_model_registered` is called. Arguments as in `ModelRecord`; id,
        version, size, time, code and libraries are found here.

        Raises:
            RegistryError: the registry's file is broken.
        """
        self._create()
        staged.chmod(0o755)
        with locked(self.models_dir):
            index = read_index(self.models_dir)
            name = name or f"{Path(base_model).name}-{method}"
            now = datetime.now(UTC)
            model_id = self._new_id(method, now, weights_sha256, index)
            record = ModelRecord(
                id=model_id,
                name=name,
                type=type,
                base_model=base_model,
                method=method,
                path=model_id,
                created_at=now.isoformat(timespec="seconds"),
                version=1 + max((r.version for r in index.models if r.name == name), default=0),
                size_bytes=sum(f.stat().st_size for f in staged.rglob("*") if f.is_file()),
                weights_sha256=weights_sha256,
                description=description,
                tags=dict(tags or {}),
                parameters=dict(parameters or {}),
                metrics=dict(metrics or {}),
                mlflow_run_id=mlflow_run_id,
                parent=parent,
                data=data,
                simtune_version=simtune.__version__,
                commit=code_commit(),
                libraries=library_versions(),
            )
            self._place(staged, record, index)
        plugins.call_each("simtune_model_registered", record=msgspec.to_builtins(record))
        return record

    def _place(self, staged: Path, record: ModelRecord, index: Index) -> None:
        target = self.models_dir / record.path
        staged.rename(target)
        index.models.append(record)
        try:
            write_index(self.models_dir, index)
        except OSError:
            target.rename(staged)
            raise

    def _create(self) -> None:
        try:
            self.models_dir.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError, PermissionError) as error:
            raise RegistryError(
                f"cannot keep models in {str(self.models_dir)!r}",
                expected="a directory that can be written",
                got=error,
            ) from error

    def _champion(self, records: Records) -> ModelRecord:
        for record in reversed(records):
            if record.status == "champion":
                return record
        raise RegistryError(
            f"no model in {str(self.models_dir)!r} is champion",
            expected="a promoted model",
            fix="name it by id or use `latest`; simtune models ls",
        )

    def _new_id(self, method: str, now: datetime, weights_sha256: str, index: Index) -> str:
        """Method, time and a hash of the weights; equal weights in one second still differ."""
        taken = {record.id for record in index.models}
        stamp = now.strftime("%Y%m%d-%H%M%S")
        ids = (
            f"{method}-{stamp}-{hashlib.sha256(f'{weights_sha256}/{n}'.encode()).hexdigest()[:8]}"
            for n in itertools.count()
        )
        return next(i for i in ids if i not in taken and not (self.models_dir / i).exists())
