"""Episodes and rated rows as turns with advantages: where rewards become credit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import msgspec
import torch

from simtune.records import Decision, Episode, Messages
from simtune.train.advantages import turn_gae, whiten
from simtune.train.turns import Turn

UNTRAINABLE_SAMPLING = ("top_p", "top_k", "min_p")


class EpisodeTurns(msgspec.Struct, kw_only=True):
    """The turns of one episode that PPO can use.

    Attributes:
        turns: one per decision, `[T]`.
        rewards: of each decision, `[T]`.
        episode_id: of the captured episode; empty for a row of a file.
        final: the state after the last decision where the episode was truncated and its tokens
            are known; None where nothing is left to bootstrap from.
    """

    turns: list[Turn]
    rewards: list[float]
    episode_id: str = ""
    final: Turn | None = None


def unusable(decision: Decision) -> str | None:
    """Why PPO cannot learn from a decision, or None where it can."""
    if not decision.token_ids or not decision.prompt_token_ids:
        return "no token ids"
    if len(decision.logprobs) != len(decision.token_ids) or any(
        value != value for value in decision.logprobs
    ):
        return "no log-probabilities"
    sampling = decision.sampling
    if sampling.get("temperature", 1.0) <= 0:
        return "sampled greedily"
    if any(sampling.get(name) not in (None, 0, 1, 1.0) for name in UNTRAINABLE_SAMPLING):
        return "sampled with top_p, top_k or min_p"
    return None


def episode_turns(
    episode: Episode,
    rewards: Sequence[float],
    encode: Callable[[Sequence[Messages]], list[list[int]]],
    skipped: Counter[str],
) -> EpisodeTurns | None:
    """Turn an episode into rows of the ids that were sampled; None where a decision lacks them.

    An episode is taken whole or not at all: credit flows through every decision.

    Args:
        episode: a captured episode.
        rewards: of each decision, `[T]`.
        encode: prompts to token ids; only for the state after a truncated episode, which was
            never sampled from, where its ids were not captured.
        skipped: counts skipped episodes by reason; changed in place.
    """
    reasons = {reason for decision in episode.decisions if (reason := unusable(decision))}
    if not episode.decisions or reasons:
        skipped[", ".join(sorted(reasons)) or "no decisions"] += 1
        return None
    turns = [
        Turn(
            prompt_ids=decision.prompt_token_ids,
            action_ids=decision.token_ids,
            behaviour_logprobs=decision.logprobs,
            temperature=decision.sampling.get("temperature", 1.0),
        )
        for decision in episode.decisions
    ]
    return EpisodeTurns(
        turns=turns,
        rewards=list(rewards),
        episode_id=episode.episode_id,
        final=_final(episode, encode),
    )


def _final(
    episode: Episode, encode: Callable[[Sequence[Messages]], list[list[int]]]
) -> Turn | None:
    """The state whose value a truncated episode bootstraps from; terminated wins over truncated."""
    if episode.terminated or not episode.truncated:
        return None
    if episode.final_prompt_token_ids:
        return Turn(prompt_ids=episode.final_prompt_token_ids)
    if episode.final_prompt:
        return Turn(prompt_ids=encode([episode.final_prompt])[0])
    return None


def assign_credit(
    episodes: Sequence[EpisodeTurns],
    estimate: Callable[[Sequence[Turn]], torch.Tensor],
    *,
    gamma: float,
    gae_lambda: float,
) -> list[float]:
    """Set the advantage and the return of every turn; advantages are whitened over all of them.

    Args:
        episodes: the global batch; its turns are changed in place.
        estimate: the critic: turns -> values `[D]`.
        gamma: discount per decision.
        gae_lambda: lambda per decision.

    Returns:
        The critic's value of each turn, in order, for explained variance.
    """
    states = [turn for episode in episodes for turn in episode.turns]
    finals = [episode.final for episode in episodes if episode.final is not None]
    values = estimate([*states, *finals]).tolist()
    state_values, final_values = iter(values[: len(states)]), iter(values[len(states) :])
    for episode in episodes:
        own = [next(state_values) for _ in episode.turns]
        advantages, returns = turn_gae(
            episode.rewards,
            own,
            final_value=0.0 if episode.final is None else next(final_values),
            gamma=gamma,
            gae_lambda=gae_lambda,
        )
        for turn, advantage, return_ in zip(episode.turns, advantages, returns, strict=True):
            turn.advantage, turn.return_ = advantage, return_
    whitened = whiten(torch.tensor([turn.advantage for turn in states], dtype=torch.float64))
    for turn, advantage in zip(states, whitened.tolist(), strict=True):
        turn.advantage = advantage
    return values[: len(states)]
