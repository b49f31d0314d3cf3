"""PPO over simulated decisions, from top to bottom.

Each round: gather episodes (roll-outs of the policy as it is, or logged data), give every
decision its advantage, and take a few passes over them with the clipped loss. The token ids and
log-probabilities that the loss sees are the captured ones; nothing is tokenised again.
"""

from __future__ import annotations

import msgspec
import torch

from simtune.errors import TrainingError
from simtune.policy.local import LocalPolicy, load_base
from simtune.registry import ModelRecord
from simtune.train.actor_critic import ActorCritic
from simtune.train.announcement import Announcement
from simtune.train.checks import check_inputs
from simtune.train.env_source import EnvSource
from simtune.train.logged_source import ratings_source, store_source
from simtune.train.lora import adapter_sha256, attach, parent_record
from simtune.train.options import OnStep, PPOOptions
from simtune.train.parallel import Processes
from simtune.train.saving import publish
from simtune.train.sources import Source
from simtune.train.tracking import Tracker
from simtune.train.update import PPO

METHOD = "ppo"


def train_ppo(options: PPOOptions, *, on_step: OnStep | None = None) -> ModelRecord:
    """Train an adapter with PPO and register it.

    Args:
        options: of the run; exactly one of env, store and dataset_path is set.
        on_step: called with (round, rounds, metrics) after each round.

    Returns:
        The record that was written to the registry.

    Raises:
        OptionError: an option cannot be used.
        DataError: there is nothing to learn from.
        TrainingError: the loss stopped being finite; the adapter as it last was is registered
            with the tag `stopped`, and the error names it.
    """
    check_inputs(options)
    parent = parent_record(options)
    tags = {"method": METHOD, "base_model": options.llm_path}
    values = msgspec.to_builtins(options)
    with (
        Tracker(options.experiment_name, options.tracking_uri, tags=tags) as tracker,
        Announcement(METHOD, values, tracker.run_id) as announcement,
    ):
        tracker.params(values)
        torch.manual_seed(options.seed)
        base, tokenizer = load_base(options.llm_path)
        model = ActorCritic(attach(base, options))
        policy = LocalPolicy(
            model.policy,
            tokenizer,
            temperature=options.temperature,
            max_new_tokens=options.max_new_tokens,
            seed=options.seed,
            name=options.llm_path,
        )
        source = _source(options, policy, model, tracker)
        ppo = PPO(model, options, pad_id=policy.pad_id)
        last, failure = _rounds(ppo, policy, source, tracker, announcement, on_step)
        record = publish(
            model.policy,
            tokenizer,
            method=METHOD,
            options=options,
            data=source.seen(),
            metrics=last,
            tracker=tracker,
            parent=parent.id if parent else None,
            tags={"stopped": str(failure).splitlines()[0]} if failure else {},
        )
        announcement.model_id = record.id
        if failure is not None:
            raise TrainingError(
                str(failure), fix=f"the adapter as it last was is registered as {record.id}"
            ) from failure
    return record


def _source(
    options: PPOOptions, policy: LocalPolicy, model: ActorCritic, tracker: Tracker
) -> Source:
    if options.env is not None:
        return EnvSource(options, policy, tracker.run_id, Processes())
    if options.store is not None:
        return store_source(options, policy)
    tracker.params({"behaviour_policy": "recomputed under the model training starts from"})
    return ratings_source(options, policy, model)


def _rounds(
    ppo: PPO,
    policy: LocalPolicy,
    source: Source,
    tracker: Tracker,
    announcement: Announcement,
    on_step: OnStep | None,
) -> tuple[dict[str, float], TrainingError | None]:
    """Gather and learn, round after round; gives the last metrics, and why it stopped early."""
    metrics: dict[str, float] = {}
    total = ppo.options.iterations
    for index in range(total):
        policy.adapter = adapter_sha256(ppo.model.policy)
        gathered = source.gather(index)
        try:
            metrics = gathered.metrics | ppo.round(index, gathered.episodes)
        except TrainingError as error:
            return metrics, error
        tracker.metrics(metrics, index + 1)
        announcement.metrics(index + 1, metrics)
        if on_step is not None:
            on_step(index + 1, total, metrics)
    return metrics, None
