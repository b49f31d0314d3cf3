"""One entry of `models/registry.json`."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

ModelType: TypeAlias = Literal["base", "fine_tuned", "reward"]
Status: TypeAlias = Literal["candidate", "champion", "retired"]


class RewardUsed(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A reward that scored the training data."""

    name: str
    version: str
    weight: float = 1.0


class DataSeen(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The data that a model learned from.

    Attributes:
        source: `store` (captured episodes), `file` (a data set), or `env` (its own roll-outs,
            captured into the store at `root`).
        root: path of the store or file.
        digest: sha256 over the sorted episode ids, one a line; of a file, over its bytes.
        episodes: how many episodes (0 for a file).
        decisions: how many decisions, or rows of a file, were trained on.
        rewards: what scored them.
        skipped: how much was left out, by reason.
        recomputed: decisions that came without log-probabilities.
        behaviour: the model that those were recomputed under, in words; empty where none were.
    """

    source: Literal["store", "file", "env"]
    root: str
    digest: str
    episodes: int = 0
    decisions: int = 0
    rewards: list[RewardUsed] = msgspec.field(default_factory=list)
    skipped: dict[str, int] = msgspec.field(default_factory=dict)
    recomputed: int = 0
    behaviour: str = ""


class ModelRecord(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One model: what it is, where it is, and where it came from.

    Attributes:
        id: method, UTC time and a short hash; safe as a file name and as a served model's name.
        name: groups the versions of one thing; by default base and method.
        type: a base model, a fine-tuned adapter, or a reward model.
        base_model: path or hub id of the model that the adapter sits on.
        method: sft, ppo, ...
        path: directory of the weights, relative to the registry's directory.
        created_at: UTC, ISO 8601.
        version: counts from 1 within a name.
        size_bytes: of all files in `path`.
        description: free text.
        tags: free text pairs.
        parameters: every option of the training run.
        metrics: last values of the run's metrics.
        mlflow_run_id: the run that holds the curves.
        weights_sha256: content hash of the adapter's tensors; decisions carry it as `adapter`.
        parent: id of the adapter that training continued from.
        status: candidate until promoted, champion while it is the one in use, retired after that.
        data: what it learned from.
        simtune_version: the code that trained it.
        commit: its git commit, `-dirty` after it where files differed; empty where it was
            installed as a package.
        libraries: releases of torch, transformers, peft and others around it.
    """

    id: str
    name: str
    type: ModelType
    base_model: str
    method: str
    path: str
    created_at: str
    version: int
    size_bytes: int
    weights_sha256: str
    description: str = ""
    tags: dict[str, str] = msgspec.field(default_factory=dict)
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)
    metrics: dict[str, float] = msgspec.field(default_factory=dict)
    mlflow_run_id: str | None = None
    parent: str | None = None
    status: Status = "candidate"
    data: DataSeen | None = None
    simtune_version: str = ""
    commit: str = ""
    libraries: dict[str, str] = msgspec.field(default_factory=dict)
