"""How probable decisions that were made are under a policy in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from simtune.data.sampled import chosen_option
from simtune.policy.answering import Answering
from simtune.policy.choices import distribution
from simtune.records import Decision

if TYPE_CHECKING:
    from simtune.policy.local import LocalPolicy

TOKENS_AT_ONCE = 4096
"""Padded tokens of one pass."""


def decision_logprobs(policy: LocalPolicy, decisions: Sequence[Decision]) -> list[float]:
    """Log-probability of each decision under the weights of a policy, nats.

    At the temperature that the decision was sampled with, from the captured token ids: of a
    generated answer the sum over its tokens, of a choice that of the option taken.

    Args:
        policy: its weights are used; its own temperature and way to decide are not.
        decisions: usable ones, see `simtune.data.sampled.unusable`; `[n]`.

    Returns:
        `[n]`.
    """
    found = [0.0] * len(decisions)
    generated: list[int] = []
    chosen: list[int] = []
    for place, decision in enumerate(decisions):
        choice = decision.sampling.get("decision") == "choose"
        (chosen if choice else generated).append(place)
    was_training = policy.model.training
    policy.model.eval()
    try:
        answers = _generated(policy, [decisions[place] for place in generated])
        for place, value in zip(generated, answers, strict=True):
            found[place] = value
        for place, value in zip(
            chosen, _chosen(policy, [decisions[place] for place in chosen]), strict=True
        ):
            found[place] = value
    finally:
        policy.model.train(was_training)
    return found


def _chosen(policy: LocalPolicy, decisions: Sequence[Decision]) -> list[float]:
    answering = Answering(policy.model, policy.pad_id)
    found: list[float] = []
    for start in range(0, len(decisions), 64):
        batch = decisions[start : start + 64]
        options = [
            tuple(tuple(option) for option in one.sampling["choice_token_ids"]) for one in batch
        ]
        scores = answering.score([one.prompt_token_ids for one in batch], options)
        for decision, own, values in zip(batch, options, scores, strict=True):
            policies = distribution(
                [values],
                [own],
                temperature=decision.sampling.get("temperature", 1.0),
                length_normalised=bool(decision.sampling.get("length_normalised", False)),
            )
            found.append(float(policies[0, chosen_option(decision) or 0]))
    return found


@torch.inference_mode()
def _generated(policy: LocalPolicy, decisions: Sequence[Decision]) -> list[float]:
    found = [0.0] * len(decisions)
    for places in _batches(decisions):
        batch = [decisions[place] for place in places]
        for place, value in zip(places, _pass(policy, batch), strict=True):
            found[place] = value
    return found


def _pass(policy: LocalPolicy, batch: Sequence[Decision]) -> list[float]:
    """One forward pass over rows padded on the left, so that all answers end in one column."""
    rows = [[*one.prompt_token_ids, *one.token_ids] for one in batch]
    width = max(map(len, rows))
    answer = max(len(one.token_ids) for one in batch)
    ids = torch.tensor([[policy.pad_id] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    device = policy.model.device
    logits = policy.model(
        ids.to(device),
        attention_mask=mask.to(device),
        position_ids=(mask.cumsum(-1) - 1).clamp(min=0).to(device),
        logits_to_keep=answer + 1,
        use_cache=False,
    ).logits[:, :-1]
    temperature = torch.tensor([one.sampling.get("temperature", 1.0) for one in batch])
    scores = (logits.float() / temperature[:, None, None].to(device)).log_softmax(-1)
    picked = scores.gather(2, ids[:, -answer:, None].to(device))[..., 0].double().cpu()
    # True where a column is of the row's answer, bool [rows, answer].
    lengths = torch.tensor([len(one.token_ids) for one in batch])
    is_answer = torch.arange(answer) >= answer - lengths[:, None]
    return [float(value) for value in (picked * is_answer).sum(-1)]


def _batches(decisions: Sequence[Decision]) -> Iterator[list[int]]:
    """Places of decisions of about equal length, few enough for one pass."""

    def length(place: int) -> int:
        return len(decisions[place].prompt_token_ids) + len(decisions[place].token_ids)

    batch: list[int] = []
    for place in sorted(range(len(decisions)), key=length):
        if batch and length(place) * (len(batch) + 1) > TOKENS_AT_ONCE:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
