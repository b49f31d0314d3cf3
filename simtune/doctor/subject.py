"""What is examined: a store, a registry, a model, a tracking address; read once, changed never."""

from __future__ import annotations

import shlex
from functools import cached_property
from pathlib import Path

from simtune.doctor.sample import Sample, take_sample
from simtune.errors import DataError, OptionError
from simtune.recording.recorders import local_root
from simtune.recording.spool import is_url


class Subject:
    """What an examination looks at.

    Args:
        store: root of captured episodes, a directory or a URL.
        llm_path: base model directory to compare with what was captured; None: no model.
        models_dir: the registry.
        tracking_uri: where MLflow keeps the runs.
    """

    def __init__(
        self,
        store: str = "./simtune-data",
        *,
        llm_path: str | None = None,
        models_dir: str = "./models",
        tracking_uri: str = "./mlruns",
    ) -> None:
        self.store = store
        self.llm_path = llm_path
        self.models_dir = Path(models_dir)
        self.tracking_uri = tracking_uri

    @property
    def remote(self) -> bool:
        """Whether the store's tables are behind a URL."""
        return is_url(self.store)

    @property
    def local(self) -> Path:
        """Where the log, staging and locks of the store lie."""
        return local_root(self.store) if self.remote else Path(self.store)

    @property
    def is_there(self) -> bool:
        """Whether there is a store, or a place for one, that can be looked at."""
        return not self.sample.unreachable if self.remote else self.local.is_dir()

    @property
    def option(self) -> str:
        """`--store ROOT` for a command line."""
        return f"--store {shlex.quote(self.store)}"

    @cached_property
    def sample(self) -> Sample:
        """The newest rows of the store, those of the log among them; asked for once."""
        try:
            return take_sample(self.store)
        except (DataError, OptionError) as error:
            return Sample(unreachable=" ".join(str(error).split()))
