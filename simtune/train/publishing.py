"""Adapters that an unfinished run puts into the registry, one after the other, as candidates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from simtune.policy.adapter_hash import adapter_sha256
from simtune.registry import ModelRecord, Registry
from simtune.registry.superseded import retire_superseded
from simtune.train.following import Following
from simtune.train.options import PPOOptions, SFTOptions
from simtune.train.saving import ARTIFACT_FOLDER, check_finite, save_adapter
from simtune.train.tracking import Tracker

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

CURSOR = "cursor.json"
"""Beside the adapter: up to where of the store it has learned."""

EPISODES = "episodes.txt"
"""Beside the adapter: ids of what it has learned from, sorted, one a line."""


VERSION = "online_version"
"""Tag of a record: the number of its version within the run."""


class Publisher:
    """Registers the adapter of a run as it is, each version once.

    A version is announced to `Following.versions` before the checkpoint and registered after it.
    So a process that is killed in between registers it when it goes on, and no decision is ever
    made by an adapter of weights that were not kept.

    Args:
        options: of the run.
        method: sft or ppo.
        run_id: of the MLflow run.
        following: what was learned from.
    """

    def __init__(
        self, options: PPOOptions | SFTOptions, method: str, run_id: str, following: Following
    ) -> None:
        self.options = options
        self.method = method
        self.run_id = run_id
        self.following = following
        self.registry = Registry(options.models_dir)

    def due(self, done: int) -> bool:
        """Whether a version is published after so many rounds."""
        return done > 0 and done % self.options.publish_every == 0

    def published(self, adapter: str | None = None) -> ModelRecord | None:
        """The run's last registered adapter, or the one with a content hash; None without one."""
        own = [one for one in self.registry.list() if one.mlflow_run_id == self.run_id]
        return next(
            (one for one in reversed(own) if adapter in (None, one.weights_sha256)),
            None,
        )

    def recall(self) -> None:
        """Know the number of every version of this run that is registered."""
        for record in self.registry.list():
            if record.mlflow_run_id == self.run_id and VERSION in record.tags:
                self.following.versions.alias(record.weights_sha256, int(record.tags[VERSION]))

    def to_mlflow(self, tracker: Tracker, record: ModelRecord) -> None:
        """Log a version's files, and add it to MLflow's registry; once, however often it ends."""
        told = tracker.client.get_run(self.run_id).data.tags.get("model_id")
        if told != record.id:
            tracker.artifact(self.registry.path(record), ARTIFACT_FOLDER)
            tracker.client.set_tag(self.run_id, "model_id", record.id)
            tracker.model_version(record.name, record.id, ARTIFACT_FOLDER)

    def publish(
        self,
        model: PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        round_: int,
        metrics: Mapping[str, float],
        tags: Mapping[str, str] | None = None,
    ) -> ModelRecord:
        """Register the adapter, unless it is registered; then retire those that it supersedes.

        Args:
            model: the adapter on its base.
            tokenizer: as used in training.
            round_: how many rounds it has learned from.
            metrics: of the last of them.
            tags: for the record, beside its version and round.

        Raises:
            TrainingError: the adapter holds weights that are not finite.
            RegistryError: the registry cannot be written.
        """
        adapter = adapter_sha256(model)
        before = self.published(adapter)
        if before is not None:
            return before
        check_finite(model)
        last = self.published()
        version = self.following.versions.current
        with self.registry.staging() as staged:
            base = self._fill(staged, model, tokenizer)
            record = self.registry.register(
                staged,
                method=self.method,
                base_model=base,
                weights_sha256=adapter,
                description=self.options.description,
                tags={VERSION: str(version), "round": str(round_)} | dict(tags or {}),
                parameters=msgspec.to_builtins(self.options),
                metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
                mlflow_run_id=self.run_id,
                parent=self.following.parent if last is None else last.id,
                data=self.following.seen(),
            )
        retire_superseded(self.registry, self.run_id, self.options.keep_published)
        return record

    def _fill(self, staged: Path, model: PeftModel, tokenizer: PreTrainedTokenizerBase) -> str:
        """Write what belongs together into a directory; gives the base model's path."""
        base = str(Path(self.options.llm_path).resolve())
        save_adapter(model, tokenizer, staged, base_model=base)
        self.following.cursor.save(staged / CURSOR)
        learned = sorted(self.following.journal.learned())
        (staged / EPISODES).write_text("\n".join(learned), encoding="utf-8")
        return base
