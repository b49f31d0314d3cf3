"""The end of a run: the chosen adapter into the registry, with what belongs beside it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from simtune.errors import TrainingError
from simtune.registry import ModelRecord, Registry
from simtune.train import checkpoints, curves
from simtune.train.kept import Kept
from simtune.train.learner import Learner
from simtune.train.lora import parent_record
from simtune.train.options import PPOOptions
from simtune.train.run import Run
from simtune.train.saving import publish, save_adapter

CURVES = "curves.png"
EPISODES = "episodes.txt"
"""Ids of the roll-outs that were learned from, sorted, one a line; its sha256 is the digest."""


def finish(
    options: PPOOptions, run: Run, learner: Learner, kept: Kept, failure: TrainingError | None
) -> ModelRecord:
    """Register the adapter that `--keep` chooses, and keep the other one in a folder of it.

    Args:
        options: of the run.
        run: of the main process.
        learner: gives the model; it holds the registered weights afterwards.
        kept: the candidates.
        failure: why the run stopped early, for the record's tag `stopped`.

    Raises:
        TrainingError: the adapter holds weights that are not finite.
        RegistryError: the registry cannot be written.
    """
    assert run.tracker is not None
    parent = parent_record(options)
    name, weights, chosen = kept.choice(options.keep)
    with tempfile.TemporaryDirectory(prefix="simtune-ppo-") as scratch:
        beside = Path(scratch)
        _write_beside(beside, options, run, learner, kept)
        learner.restore(weights)
        record = publish(
            learner.model.policy,
            learner.tokenizer,
            method="ppo",
            options=options,
            data=learner.source.seen(),
            metrics=_metrics(run, chosen),
            tracker=run.tracker,
            parent=parent.id if parent else None,
            tags={"kept": name} | ({"stopped": str(failure).splitlines()[0]} if failure else {}),
            beside=beside,
        )
    if run.directory is not None:
        checkpoints.prune(run.directory, keep=1)
    return record


def finished_before(options: PPOOptions, run: Run) -> ModelRecord | None:
    """The record of a run that was killed after it had registered, or that had simply ended."""
    if options.follow or run.resumed is None or run.resumed.state.round < options.iterations:
        return None
    for record in Registry(options.models_dir).list():
        rounds = record.metrics.get("rounds")
        if record.mlflow_run_id == run.run_id and rounds == run.resumed.state.round:
            return record
    return None


def _write_beside(
    folder: Path, options: PPOOptions, run: Run, learner: Learner, kept: Kept
) -> None:
    other = kept.other(options.keep)
    if other is not None:
        name, weights = other
        learner.restore(weights)
        base = str(Path(options.llm_path).resolve())
        save_adapter(learner.model.policy, learner.tokenizer, folder / name, base_model=base)
    ids = learner.source.state_dict().get("episode_ids")
    if ids:
        (folder / EPISODES).write_text("\n".join(sorted(ids)), encoding="utf-8")
    title = options.description or f"PPO {run.run_id}"
    if curves.draw(run.history, folder / CURVES, title=title, best_round=kept.best_round):
        assert run.tracker is not None
        run.tracker.artifact(folder / CURVES)


def _metrics(run: Run, chosen: int) -> dict[str, float]:
    """The metrics of the registered round, and which of how many it is."""
    points = dict(run.history)
    return points.get(chosen, {}) | {
        "round": float(chosen),
        "rounds": float(max(points, default=0)),
    }
