"""A trained adapter on its way to the registry: saved, logged, registered, or nothing at all."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from simtune.errors import TrainingError
from simtune.policy.adapter_hash import adapter_sha256
from simtune.registry import DataSeen, ModelRecord, Registry
from simtune.train.options import TrainOptions
from simtune.train.tracking import Tracker

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

ARTIFACT_FOLDER = "adapter"


def publish(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    method: str,
    options: TrainOptions,
    data: DataSeen,
    metrics: Mapping[str, float],
    tracker: Tracker,
    parent: str | None = None,
    tags: Mapping[str, str] | None = None,
    beside: Path | None = None,
) -> ModelRecord:
    """Save adapter, tokenizer and chat template, log them to MLflow, and register them.

    Args:
        model: the trained adapter on its base.
        tokenizer: as used in training.
        method: sft, ppo, ...
        options: all of the run's.
        data: what it learned from.
        metrics: last values, for the record; those that are not finite are left out.
        tracker: the open run.
        parent: id of the adapter that training continued from.
        tags: for the record.
        beside: a directory whose content is put beside the adapter.

    Raises:
        TrainingError: the adapter holds weights that are not finite.
        RegistryError: the registry cannot be written.
    """
    check_finite(model)
    base = str(Path(options.llm_path).resolve())
    registry = Registry(options.models_dir)
    with registry.staging() as staged:
        save_adapter(model, tokenizer, staged, base_model=base)
        if beside is not None:
            shutil.copytree(beside, staged, dirs_exist_ok=True)
        tracker.artifact(staged, ARTIFACT_FOLDER)
        record = registry.register(
            staged,
            method=method,
            base_model=base,
            weights_sha256=adapter_sha256(model),
            description=options.description,
            tags=tags,
            parameters=msgspec.to_builtins(options),
            metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
            mlflow_run_id=tracker.run_id,
            parent=parent,
            data=data,
        )
    tracker.client.set_tag(tracker.run_id, "model_id", record.id)
    tracker.model_version(record.name, record.id, ARTIFACT_FOLDER)
    return record


def save_adapter(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, output: Path, *, base_model: str
) -> None:
    """Write an adapter in PEFT's own format; its config names the base model's path."""
    model.peft_config["default"].base_model_name_or_path = base_model
    model.save_pretrained(str(output), save_embedding_layers=False)
    tokenizer.save_pretrained(str(output))


def check_finite(model: PeftModel) -> None:
    """Refuse an adapter that training has destroyed.

    Raises:
        TrainingError: a weight is NaN or infinite.
    """
    import torch

    for name, weights in model.named_parameters():
        if weights.requires_grad and not torch.isfinite(weights).all():
            raise TrainingError(
                "training ended with weights that are not finite",
                got=f"NaN or infinity in {name}",
                fix="lower --learning-rate; nothing was registered",
            )
