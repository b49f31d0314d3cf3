"""Decisions as token ids: what the policy saw, and what it chose."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Turn(msgspec.Struct, kw_only=True):
    """One decision, ready to be trained on.

    What the policy chose at once is a unit: each token of a generated answer, or a whole named
    option. Ratios, advantages and entropies belong to units.

    Attributes:
        prompt_ids: ids the policy was given, `[P]`, P >= 1.
        action_ids: ids of the answer, `[A]`: sampled ones, or those of the chosen option; empty
            for a state that only needs a value.
        behaviour_logprobs: of each unit under the policy that sampled it, `[U]`; empty where
            they are still to be recomputed.
        temperature: sampling temperature.
        options: ids of each named option, `[K][O_k]`; empty where the answer was generated.
        chosen: index of the option that was taken.
        length_normalised: an option's score is the mean, not the sum, of its log-probabilities.
        adapter: content hash of the adapter that sampled; None for the base or where unknown.
    """

    prompt_ids: Sequence[int]
    action_ids: Sequence[int] = ()
    behaviour_logprobs: Sequence[float] = ()
    temperature: float = 1.0
    options: Sequence[Sequence[int]] = ()
    chosen: int = 0
    length_normalised: bool = False
    adapter: str | None = None

    @property
    def units(self) -> int:
        """How many things the policy chose one after the other: U."""
        return 1 if self.options else len(self.action_ids)

    @property
    def needed_ids(self) -> Sequence[int]:
        """The ids a row must hold so that every unit can be predicted from it.

        The last token of a generated answer is predicted, and nothing is predicted from it.
        """
        if self.options or not self.action_ids:
            return self.prompt_ids
        return [*self.prompt_ids, *self.action_ids[:-1]]
