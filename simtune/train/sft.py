"""Supervised fine-tuning on TRL's SFTTrainer: imitate the better decisions, or the rewrites."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import torch
import transformers
from datasets import Dataset
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl import SFTTrainer

from simtune.data.decisions import read_decisions
from simtune.data.imitation import imitation_samples
from simtune.data.samples import Selection
from simtune.data.selection import select_episodes
from simtune.data.tokens import Tokenised, tokenise
from simtune.errors import OptionError, TrainingError
from simtune.policy.local import load_base
from simtune.registry import DataSeen, ModelRecord
from simtune.store import read
from simtune.train.announcement import Announcement
from simtune.train.checks import check_inputs
from simtune.train.lora import attach, parent_record
from simtune.train.options import SFTOptions
from simtune.train.reward_use import rewards_used
from simtune.train.saving import publish
from simtune.train.sft_arguments import sft_config
from simtune.train.tracking import Tracker

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase
    from trl import SFTConfig

METHOD = "sft"


def train_sft(
    options: SFTOptions, *, on_step: Callable[[int, int, dict[str, float]], None] | None = None
) -> ModelRecord:
    """Train an adapter on captured episodes or on a file of decisions, and register it.

    Args:
        options: of the run.
        on_step: called with (step, total, metrics) after each optimizer step.

    Returns:
        The record that was written to the registry.

    Raises:
        OptionError: an option or a training argument cannot be used.
        DataError: nothing is left to learn from.
        TrainingError: the loss is not finite, or memory does not suffice; nothing is registered.
    """
    check_inputs(options)
    parent = parent_record(options)
    selection = _select(options)
    tags = {"method": METHOD, "base_model": options.llm_path}
    with (
        tempfile.TemporaryDirectory(prefix="simtune-sft-") as scratch,
        Tracker(options.experiment_name, options.tracking_uri, tags=tags) as tracker,
        Announcement(METHOD, msgspec.to_builtins(options), tracker.run_id) as announcement,
    ):
        config = sft_config(options, scratch)
        tracker.params(msgspec.to_builtins(options))
        tracker.params({f"trl.{name}": value for name, value in config.to_dict().items()})
        base, tokenizer = load_base(options.llm_path)
        tokens = tokenise(
            tokenizer,
            selection.samples,
            max_length=options.max_length,
            excess_length=options.excess_length,
        )
        data = _data_seen(options, selection, tokens)
        transformers.set_seed(options.seed)
        model = attach(base, options)
        reporter = Reporter(tracker, announcement, on_step, options)
        fit(model, tokenizer, tokens, config, reporter)
        record = publish(
            model,
            tokenizer,
            method=METHOD,
            options=options,
            data=data,
            metrics=reporter.last,
            tracker=tracker,
            parent=parent.id if parent else None,
        )
        announcement.model_id = record.id
    return record


class Reporter(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Carries each step's numbers to the tracker, to plugins and to `on_step`.

    Args:
        tracker: of the run.
        announcement: of the run.
        on_step: the caller's.
        options: of the run, for advice.

    Attributes:
        last: the last value of every metric.
    """

    def __init__(
        self,
        tracker: Tracker,
        announcement: Announcement,
        on_step: Callable[[int, int, dict[str, float]], None] | None,
        options: SFTOptions,
    ) -> None:
        """Start with no metrics."""
        self.last: dict[str, float] = {}
        self._tracker = tracker
        self._announcement = announcement
        self._on_step = on_step
        self._options = options

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """Called by the trainer after each logged step, and once at the end.

        Raises:
            TrainingError: the loss is not finite.
        """
        numbers = {
            name: float(value)
            for name, value in (logs or {}).items()
            if isinstance(value, int | float)
        }
        self.last |= numbers
        self._tracker.metrics(numbers, state.global_step)
        self._announcement.metrics(state.global_step, numbers)
        check_loss(numbers.get("loss", 0.0), state.global_step, self._options)
        if self._on_step is not None and "loss" in numbers:
            self._on_step(state.global_step, state.max_steps, numbers)


def check_loss(loss: float, step: int, options: SFTOptions) -> None:
    """Refuse to go on from a loss that is not finite.

    Raises:
        TrainingError: it is not.
    """
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss is {loss} at step {step}; nothing was registered",
            expected="a finite loss",
            fix=f"lower --learning-rate (now {options.learning_rate:g}); "
            "check the data for empty or endless answers",
        )


def _select(options: SFTOptions) -> Selection:
    if options.dataset_path is None:
        return select_episodes(
            read(str(options.store)).episodes(),
            rewards=options.reward,
            top_fraction=options.top_fraction,
            min_score=options.min_score,
        )
    return imitation_samples(
        read_decisions(options.dataset_path),
        min_score=options.min_score,
        top_fraction=options.top_fraction,
    )


def _data_seen(options: SFTOptions, selection: Selection, tokens: Tokenised) -> DataSeen:
    long = {"samples over the length": tokens.dropped, "samples cut": tokens.truncated}
    stored = options.dataset_path is None
    return DataSeen(
        source="store" if stored else "file",
        root=str(options.store if stored else options.dataset_path),
        digest=selection.digest,
        episodes=selection.episodes,
        decisions=len(tokens.input_ids),
        rewards=rewards_used(options.reward) if stored else [],
        skipped=dict(+(selection.skipped + Counter(long))),
    )


def fit(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    tokens: Tokenised,
    config: SFTConfig,
    callback: TrainerCallback,
    *,
    optimizer: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run TRL's trainer over tokens made beforehand.

    Args:
        model: an adapter on its base.
        tokenizer: as served.
        tokens: what to learn.
        config: of the trainer.
        callback: of the trainer.
        optimizer: state to go on from; the learning rate and its schedule begin anew.

    Returns:
        The optimizer's state.

    Raises:
        OptionError: the trainer refuses its configuration.
        TrainingError: memory does not suffice.
    """
    dataset = Dataset.from_dict({"input_ids": tokens.input_ids, "labels": tokens.labels})
    try:
        trainer = SFTTrainer(
            model=model,
            args=config,
            train_dataset=dataset,
            processing_class=tokenizer,
            callbacks=[callback],
        )
    except ValueError as error:
        raise OptionError("TRL refuses the training arguments", got=error) from error
    trainer.remove_callback(PrinterCallback)
    if optimizer is not None:
        trainer.create_optimizer().load_state_dict(optimizer)
        for group in trainer.optimizer.param_groups:
            group["lr"] = config.learning_rate
            group.pop("initial_lr", None)
    try:
        trainer.train()
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            "the GPU's memory does not suffice; nothing was registered",
            got=str(error).splitlines()[0],
            fix="lower --batch-size, --max-length or --lora-r",
        ) from error
    state: dict[str, Any] = trainer.optimizer.state_dict()
    return state
