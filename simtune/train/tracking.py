"""The MLflow run of one training: parameters, curves, artifacts, a model version.

Only `MlflowClient` is used, never MLflow's fluent globals: nothing of a run is left behind in the
process, and several runs can be open at once.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from simtune.errors import MissingExtraError, TrainingError
from simtune.registry.mlflow_quiet import quiet_mlflow
from simtune.registry.tracking_uri import resolve_tracking_uri

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

FLUSH_SECONDS = 1.0
"""How long metrics may wait: a fast loop pays for one transaction a second, not one a step."""

_MAX_PARAM = 6000
_BATCH = 100


class Tracker:
    """One MLflow run, as a context manager; an exception inside marks the run FAILED.

    Args:
        experiment: name of the experiment; made when it does not exist.
        tracking_uri: an MLflow URI, or a plain path (sqlite inside it).
        run_name: shown in MLflow; MLflow makes one up where it is None.
        tags: of the run.
        run_id: of a run to go on with: its points are not logged a second time.
    """

    def __init__(
        self,
        experiment: str,
        tracking_uri: str,
        run_name: str | None = None,
        tags: Mapping[str, str] | None = None,
        run_id: str = "",
    ) -> None:
        """Resolve the URI; the run starts with `with`."""
        self.experiment = experiment
        self.uri, self._artifact_root = resolve_tracking_uri(tracking_uri)
        self.run_id = run_id
        self._logged: dict[str, int] = {}
        self.experiment_id = ""
        self._run_name = run_name
        self._tags = dict(tags or {})
        self._client: MlflowClient | None = None
        self._waiting: list[tuple[str, float, int, int]] = []
        self._flushed = time.monotonic()

    def __enter__(self) -> Self:
        """Start the run.

        Raises:
            MissingExtraError: mlflow is not installed.
            TrainingError: the tracking server cannot be used.
        """
        try:
            with quiet_mlflow():
                from mlflow import MlflowClient
                from mlflow.exceptions import MlflowException
        except ImportError as error:
            raise MissingExtraError(
                "tracking a training run", package="mlflow", extra="train"
            ) from error
        try:
            with quiet_mlflow():
                _create_database(self.uri)
                self._client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
                self.experiment_id = self._find_experiment(self._client)
                self._begin(self._client)
        except MlflowException as error:
            raise TrainingError(
                f"MLflow cannot be used at {self.uri}",
                got=error,
                fix="--tracking-uri ./mlruns keeps runs in a local directory",
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the run: FINISHED, FAILED after an exception, KILLED after an interrupt."""
        self.flush()
        status = "FINISHED"
        if error is not None:
            status = "FAILED" if isinstance(error, Exception) else "KILLED"
            self.client.set_tag(self.run_id, "error", str(error)[:_MAX_PARAM])
        self.client.set_terminated(self.run_id, status)

    @property
    def client(self) -> MlflowClient:
        """MLflow's client, for what this class has no word for."""
        if self._client is None:
            raise TrainingError("the tracker is not open", fix="use it as `with Tracker(...)`")
        return self._client

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters; lists and dicts as JSON."""
        from mlflow.entities import Param

        made = [Param(name, _text(value)[:_MAX_PARAM]) for name, value in values.items()]
        for start in range(0, len(made), _BATCH):
            self.client.log_batch(self.run_id, params=made[start : start + _BATCH])

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log one point of each curve; written within a second, or when the run ends."""
        now = int(time.time() * 1000)
        self._waiting += [
            (name, float(value), now, step)
            for name, value in values.items()
            if step > self._logged.get(name, -1)
        ]
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the metrics that wait."""
        from mlflow.entities import Metric

        waiting = [Metric(*point) for point in self._waiting]
        self._waiting.clear()
        for start in range(0, len(waiting), 10 * _BATCH):
            self.client.log_batch(self.run_id, metrics=waiting[start : start + 10 * _BATCH])
        self._flushed = time.monotonic()

    def artifact(self, path: str | Path, folder: str | None = None) -> None:
        """Log a file, or all files of a directory, into a folder of the run's artifacts."""
        if Path(path).is_dir():
            self.client.log_artifacts(self.run_id, str(path), folder)
        else:
            self.client.log_artifact(self.run_id, str(path), folder)

    def figure(self, figure: Figure, name: str) -> None:
        """Log a matplotlib figure under a file name."""
        self.client.log_figure(self.run_id, figure, name)

    def model_version(self, name: str, model_id: str, folder: str = "adapter") -> str | None:
        """Add a version to MLflow's model registry, alias `candidate`; returns the version.

        Args:
            name: the registered model; characters that MLflow refuses become dashes.
            model_id: simtune's id, kept as a tag.
            folder: the artifacts' folder that holds the weights.

        Returns:
            None where the tracking server has no model registry.
        """
        from mlflow.exceptions import MlflowException

        name = re.sub(r"[/:\s]+", "-", name)
        source = f"{self.client.get_run(self.run_id).info.artifact_uri}/{folder}"
        try:
            if not self.client.search_registered_models(f"name = '{name}'"):
                self.client.create_registered_model(name)
            version = self.client.create_model_version(
                name, source=source, run_id=self.run_id, tags={"simtune_model_id": model_id}
            )
            self.client.set_registered_model_alias(name, "candidate", version.version)
        except MlflowException as error:
            self.client.set_tag(self.run_id, "model_version_error", str(error)[:_MAX_PARAM])
            return None
        return str(version.version)

    def _begin(self, client: MlflowClient) -> None:
        """Create the run, or open the one to go on with and see how far its curves are."""
        if not self.run_id:
            run = client.create_run(self.experiment_id, run_name=self._run_name, tags=self._tags)
            self.run_id = run.info.run_id
            return
        client.update_run(self.run_id, status="RUNNING")
        for name in client.get_run(self.run_id).data.metrics:
            history = client.get_metric_history(self.run_id, name)
            self._logged[name] = max(point.step for point in history)

    def _find_experiment(self, client: MlflowClient) -> str:
        found = client.get_experiment_by_name(self.experiment)
        if found is not None:
            return str(found.experiment_id)
        created = client.create_experiment(self.experiment, artifact_location=self._artifact_root)
        return str(created)


def _create_database(uri: str) -> None:
    """Make the database of a sqlite URI whole, or not at all.

    MLflow makes its tables in dozens of migrations. A process that is killed among them, or a
    second one that starts meanwhile, would leave a database that no MLflow opens again.
    """
    from mlflow import MlflowClient

    target = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or target.exists() or not target.parent.is_dir():
        return
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        MlflowClient(tracking_uri=f"sqlite:///{partial}").search_experiments()
        # Another process may have been first: then its database is the one.
        with suppress(FileExistsError):
            os.link(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, list | dict) else str(value)
