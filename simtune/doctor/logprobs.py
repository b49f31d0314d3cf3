"""Whether the trainer gives captured answers the log-probabilities that the sampler gave them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from simtune.data.sampled import unusable
from simtune.doctor.chosen import chosen
from simtune.doctor.finding import Finding, note, of, ok, warning
from simtune.doctor.subject import Subject
from simtune.registry import Registry
from simtune.train.episode_turns import turn_of
from simtune.train.options import PPOOptions

if TYPE_CHECKING:
    from simtune.train.turns import Turn

MEAN: Final = PPOOptions().mismatch_tolerance
"""Mean absolute difference that is let pass, nats per unit: what PPO lets pass by default."""

MOST: Final = 1.0
"""Largest absolute difference of one unit that is let pass, nats."""

BASE: Final = "base"


class Difference(msgspec.Struct, frozen=True):
    """Captured and recomputed log-probabilities of some units.

    Attributes:
        units: how many: tokens, or whole named options.
        mean: mean absolute difference, nats.
        most: largest absolute difference, nats.
    """

    units: int
    mean: float
    most: float

    @property
    def passes(self) -> bool:
        """Whether it is within the tolerance."""
        return self.mean <= MEAN and self.most <= MOST

    def __str__(self) -> str:
        """Both numbers, with the tolerance."""
        return (
            f"mean {self.mean:.2g} and at most {self.most:.2g} nats over {self.units:,} units "
            f"(tolerance {MEAN:g} and {MOST:g})"
        )


def check(subject: Subject) -> Iterator[Finding]:
    """Compute captured answers anew under the base or adapter that they name."""
    if subject.llm_path is None:
        return
    decisions = [each for each in chosen(subject) if unusable(each) is None]
    turns = [turn for turn in map(turn_of, decisions) if turn.behaviour_logprobs]
    known: dict[str | None, str] = {None: BASE}
    known |= {each.weights_sha256: each.id for each in Registry(subject.models_dir).list()}
    strange = sum(turn.adapter not in known for turn in turns)
    if strange:
        yield note(
            "unknown-adapter",
            f"{of(strange, len(turns))} decisions are of adapters that {subject.models_dir} does "
            "not hold (such as those between two checkpoints), and cannot be computed anew",
            "--models-dir DIR names the registry of the adapter that was sampled from",
        )
    for adapter, name in known.items():
        of_one = [turn for turn in turns if turn.adapter == adapter]
        if of_one:
            yield _judged(subject, name, of_one)


def _judged(subject: Subject, name: str, turns: list[Turn]) -> Finding:
    found = measure(subject, name, turns)
    if found.passes:
        return ok("logprobs", f"{name}: captured and recomputed differ by {found}")
    plain = [msgspec.structs.replace(turn, temperature=1.0) for turn in turns]
    if plain != turns and measure(subject, name, plain).passes:
        return warning(
            "untempered-logprobs",
            f"{name}: captured and recomputed differ by {found}, and agree at temperature 1: the "
            "sampler reports log-probabilities before the temperature",
            "sample at temperature 1, or have the server report processed log-probabilities "
            "(vLLM: --logprobs-mode processed_logprobs)",
        )
    return warning(
        "logprob-drift",
        f"{name}: captured and recomputed differ by {found}",
        "give --llm-path of the model that was sampled from, in the same precision; PPO's "
        "--behaviour says what training does about it",
    )


def measure(subject: Subject, name: str, turns: Sequence[Turn]) -> Difference:
    """Compute turns anew, as PPO does, and compare.

    Args:
        subject: names the base model and the registry.
        name: id of the adapter in the registry, or `base`.
        turns: with captured log-probabilities; they are not changed.
    """
    from simtune.policy.local import LocalPolicy, load_base
    from simtune.train.actor_critic import ActorCritic
    from simtune.train.logged_source import recompute
    from simtune.train.lora import attach

    options = PPOOptions(llm_path=str(subject.llm_path), models_dir=str(subject.models_dir))
    options.adapter = None if name == BASE else name
    base, tokenizer = load_base(options.llm_path)
    model = ActorCritic(attach(base, options))
    again = [msgspec.structs.replace(turn) for turn in turns]
    recompute(again, model, LocalPolicy(model.policy, tokenizer, name=options.llm_path))
    differences = [
        abs(before - after)
        for turn, other in zip(turns, again, strict=True)
        for before, after in zip(turn.behaviour_logprobs, other.behaviour_logprobs, strict=True)
    ]
    return Difference(
        units=len(differences),
        mean=sum(differences) / len(differences),
        most=max(differences),
    )
