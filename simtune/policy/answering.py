"""How a model in this process answers: over a kept cache where its layers allow, else without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from simtune.policy.choices import Options, Scorer, distribution, score_one_by_one
from simtune.policy.generation import Sampled, Settings, sample
from simtune.policy.sampler import Sampler, See
from simtune.policy.slots import fits


class Answering:
    """Samples answers and chooses among options; see `Sampler` and `Scorer`.

    Args:
        model: a causal language model, with or without PEFT layers.
        pad_id: fills short rows; never attended to.
    """

    def __init__(self, model: Any, pad_id: int) -> None:
        self.model = model
        self.pad_id = pad_id
        self._sampler = Sampler(model, pad_id=pad_id) if fits(model) else None
        self._scorer = None if self._sampler is None else Scorer(self._sampler)

    def forget(self) -> None:
        """Compute everything anew from here on."""
        if self._sampler is not None and self._scorer is not None:
            self._sampler.forget()
            self._scorer.forget()

    @contextmanager
    def watched(self, see: See) -> Iterator[None]:
        """Show `see` what is computed inside this context; nothing without a kept cache."""
        if self._sampler is None:
            yield
            return
        self._sampler.see = see
        try:
            yield
        finally:
            self._sampler.see = None

    def sample(self, prompts: Sequence[Sequence[int]], settings: Settings) -> list[Sampled]:
        """One sampled answer to each prompt."""
        with self._without_dropout():
            if self._sampler is None:
                return sample(self.model, prompts, settings, pad_id=self.pad_id)
            return self._sampler.sample(prompts, settings)

    def choose(
        self,
        prompts: Sequence[Sequence[int]],
        options: Sequence[Options],
        settings: Settings,
        *,
        length_normalised: bool,
    ) -> list[tuple[int, list[float]]]:
        """One option for each prompt: its place, and the log-probabilities of all."""
        policies = distribution(
            self.score(prompts, options),
            options,
            temperature=settings.temperature,
            length_normalised=length_normalised,
        )
        if settings.greedy:
            taken = policies.argmax(-1)
        else:
            chances = policies.exp().to(self.model.device)
            taken = torch.multinomial(chances, 1, generator=settings.generator)[:, 0]
        return [
            (at, row[: len(each)])
            for at, row, each in zip(taken.tolist(), policies.tolist(), options, strict=True)
        ]

    def score(
        self, prompts: Sequence[Sequence[int]], options: Sequence[Options]
    ) -> list[list[float]]:
        """Summed log-probability of every option after its prompt, at temperature 1."""
        with self._without_dropout():
            if self._scorer is None:
                return score_one_by_one(self.model, prompts, options)
            return self._scorer.score(prompts, options)

    @contextmanager
    def _without_dropout(self) -> Iterator[None]:
        was_training = self.model.training
        if was_training:
            self.model.eval()
        try:
            yield
        finally:
            if was_training:
                self.model.train()
