"""Decisions among named options: exact log-probabilities of all of them behind one prefill.

The policy is the softmax, over the options, of each option's summed log-probability (divided by
its number of tokens where `length_normalised`) divided by the temperature. An option is scored by
its own tokens, without the end-of-turn token: most options are one token then, and cost nothing
beyond the prompt. The scored ids are recorded, and training scores those same ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from simtune.errors import OptionError
from simtune.policy.slots import Write

if TYPE_CHECKING:
    from simtune.policy.sampler import Sampler

Options = tuple[tuple[int, ...], ...]
"""Token ids of each option of a decision."""

REMEMBERED = 65_536
"""Prompts whose scores are kept while the weights stay; then all are forgotten at once."""


class OptionIds:
    """Token ids of options, each tokenised once as the text that an assistant's turn starts with.

    Args:
        tokenizer: of the model.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[tuple[str, ...], Options] = {}

    def __call__(self, names: Sequence[str]) -> Options:
        """The ids of each option.

        Raises:
            OptionError: no options, one without a token, or two with the same tokens.
        """
        key = tuple(names)
        found = self._known.get(key)
        if found is None:
            ids = self._tokenizer(list(key), add_special_tokens=False)["input_ids"] if key else []
            found = self._known[key] = tuple(map(tuple, ids))
            if not found or () in found or len(set(found)) != len(found):
                del self._known[key]
                raise OptionError(
                    "these options cannot be chosen among",
                    expected="at least one option, none empty, none equal to another in tokens",
                    got=list(key),
                )
        return found


class Scorer:
    """Scores the options of many prompts, and remembers scores while the weights stay.

    Args:
        sampler: holds the model and the cache.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._known: dict[tuple[tuple[int, ...], Options], list[float]] = {}
        self._of = 0

    def forget(self) -> None:
        """Compute everything anew from here on."""
        self._known.clear()

    def score(
        self, prompts: Sequence[Sequence[int]], options: Sequence[Options]
    ) -> list[list[float]]:
        """Summed log-probability of every option after its prompt, at temperature 1.

        Args:
            prompts: token ids, `[batch][prompt_len]`.
            options: of each prompt, `[batch][n_options][option_len]`.

        Returns:
            `[batch][n_options]`.
        """
        weights = self._sampler.weights_seen()
        if weights != self._of or len(self._known) >= REMEMBERED:
            self._known.clear()
            self._of = weights
        keys = [(tuple(ids), each) for ids, each in zip(prompts, options, strict=True)]
        new = [key for key in dict.fromkeys(keys) if key not in self._known]
        if new:
            with torch.inference_mode():
                self._known.update(zip(new, self._compute(new), strict=True))
        return [self._known[key] for key in keys]

    def _compute(self, wanted: Sequence[tuple[tuple[int, ...], Options]]) -> list[list[float]]:
        widths = [sum(len(option) - 1 for option in options) for _, options in wanted]
        rows, logits = self._sampler.prefill([ids for ids, _ in wanted], room=max(widths))
        first = torch.log_softmax(logits.float(), dim=-1)
        later = self._branches(wanted, rows, max(widths)) if any(widths) else None
        scores = []
        for place, (_, options) in enumerate(wanted):
            begun = first[place, [option[0] for option in options]].tolist()
            if later is not None:
                added = iter(later[place])
                begun = [
                    start + sum(next(added) for _ in option[1:])
                    for start, option in zip(begun, options, strict=True)
                ]
            scores.append(begun)
        return scores

    def _branches(
        self, wanted: Sequence[tuple[tuple[int, ...], Options]], rows: list[int], width: int
    ) -> list[list[float]]:
        """Log-probabilities of all option tokens but the first ones, behind the cached prompts.

        All options of a prompt lie in one row, one behind the other; positions begin anew at the
        prompt's end for each, and each sees the prompt and itself only.
        """
        size = len(wanted)
        lengths = torch.tensor([[len(ids)] for ids, _ in wanted])
        tokens = torch.zeros(size, width, dtype=torch.long)
        targets = torch.zeros(size, width, dtype=torch.long)
        positions = lengths.repeat(1, width)
        limit = int(lengths.max()) + width
        mask = (torch.arange(limit) < lengths)[:, None].repeat(1, width, 1)
        for place, (ids, options) in enumerate(wanted):
            at = 0
            for option in options:
                count = len(option) - 1
                tokens[place, at : at + count] = torch.tensor(option[:-1])
                targets[place, at : at + count] = torch.tensor(option[1:])
                positions[place, at : at + count] += torch.arange(count)
                own = slice(len(ids) + at, len(ids) + at + count)
                mask[place, at : at + count, own] = torch.ones(count, count).tril().bool()
                at += count
        order = sorted(range(size), key=rows.__getitem__)
        columns = lengths + torch.arange(width)
        device = self._sampler.model.device
        write = Write(slice(0, size), columns[order].to(device), limit)
        logits = self._sampler.forward(
            tokens[order].to(device),
            positions[order].to(device),
            write,
            mask=mask[order].to(device),
            keep=width,
        )
        picked = torch.log_softmax(logits.float(), dim=-1).gather(
            2, targets[order, :, None].to(device)
        )[..., 0]
        by_row = picked.tolist()
        return [by_row[order.index(place)] for place in range(size)]


def score_one_by_one(
    model: Any, prompts: Sequence[Sequence[int]], options: Sequence[Options]
) -> list[list[float]]:
    """What `Scorer.score` gives, a full pass for every option: for models with other caches."""
    scores = []
    with torch.inference_mode():
        for ids, each in zip(prompts, options, strict=True):
            row = []
            for option in each:
                whole = torch.tensor([[*ids, *option]], device=model.device)
                steps = model(whole).logits[0, len(ids) - 1 : -1].float().log_softmax(-1)
                row.append(float(steps.gather(1, whole[0, len(ids) :, None]).sum()))
            scores.append(row)
    return scores


def distribution(
    scores: Sequence[Sequence[float]],
    options: Sequence[Options],
    *,
    temperature: float,
    length_normalised: bool,
) -> torch.Tensor:
    """Log-probabilities of the policy over the options of each prompt.

    Args:
        scores: summed log-probability of each option, `[batch][n_options]`.
        options: their token ids.
        temperature: divides the scores.
        length_normalised: divide each score by the option's number of tokens first.

    Returns:
        `[batch, most options]` float64, -inf where a prompt has fewer.
    """
    most = max(map(len, scores))
    values = torch.full((len(scores), most), -torch.inf, dtype=torch.float64)
    for place, (row, each) in enumerate(zip(scores, options, strict=True)):
        if length_normalised:
            row = [score / len(option) for score, option in zip(row, each, strict=True)]
        values[place, : len(row)] = torch.tensor(row, dtype=torch.float64)
    return torch.log_softmax(values / temperature, dim=-1)
