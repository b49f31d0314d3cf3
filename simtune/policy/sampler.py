"""Sampling over a cache that is kept from turn to turn, as long as the weights are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

import torch

from simtune.policy.generation import Sampled, Settings
from simtune.policy.rows import Row, RowIds, packed
from simtune.policy.slots import SlotCache, Write
from simtune.policy.weights import KEEP_AT_MOST, Weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PASS_TOKENS = 16_384
"""Prompt tokens of one forward pass, padding included."""

UNEVEN = 2
"""Prompts of one pass differ by at most this factor in new tokens; padding costs as much."""


See: TypeAlias = Callable[[Sequence[Sequence[int]], torch.Tensor], None]
"""Given prompts that were computed, and the last hidden state after each, `[b, hidden]`."""


class Sampler:
    """Answers batches of prompts with a model, and keeps what it computed for the next batch.

    A prompt that begins with what a row holds (the prompt before it, the answer, and more) only
    computes what is new. Equal prompts of a batch are computed once. The log-probabilities are
    those of a fresh full pass within float rounding.

    Args:
        model: a causal language model that `slots.fits`.
        pad_id: fills short rows of a pass; never attended to.

    Attributes:
        see: called after each prefill pass, in inference mode; None for nobody.
    """

    def __init__(self, model: PreTrainedModel, *, pad_id: int) -> None:
        self.see: See | None = None
        self.model = model
        self.pad_id = pad_id
        self._weights = Weights(model)
        self._cache: SlotCache | None = None
        self._ids = RowIds()
        self._seen = 0
        self._additive = model.config.get_text_config(decoder=True)._attn_implementation == "eager"

    def forget(self) -> None:
        """Compute everything anew from here on, and give the memory of what was large back.

        The weights are taken for changed, whatever their versions say.
        """
        self._weights.distrust()
        self._drop()

    def _drop(self) -> None:
        if self._cache is not None and self._cache.nbytes() > KEEP_AT_MOST:
            # The layers know their cache: without this they would wait for the garbage collector.
            self._cache.layers.clear()
            self._cache = None
        self._ids = RowIds()

    def weights_seen(self) -> int:
        """How many different weights were answered with; forgets what the last ones computed."""
        if self._weights.changed():
            self._seen += 1
            self._drop()
        return self._seen

    def sample(self, prompts: Sequence[Sequence[int]], settings: Settings) -> list[Sampled]:
        """Sample one answer to each prompt; see `generation.sample`."""
        with torch.inference_mode():
            rows, logits = self.prefill(prompts, room=settings.max_new_tokens)
            answers = [Sampled() for _ in prompts]
            order = sorted(range(len(prompts)), key=rows.__getitem__)
            self._decode(prompts, order, logits[order], answers, settings)
        return answers

    def prefill(
        self, prompts: Sequence[Sequence[int]], *, room: int
    ) -> tuple[list[int], torch.Tensor]:
        """Compute what is new in each prompt.

        Args:
            prompts: token ids, `[batch][prompt_len]`.
            room: columns that will be written after the longest prompt.

        Returns:
            The row of each prompt, which are the first `batch` ones, and the logits after its
            last token, `[batch, vocabulary]`.
        """
        self.weights_seen()
        longest = max(map(len, prompts))
        if self._cache is None:
            layers = self.model.config.get_text_config(decoder=True).num_hidden_layers
            self._cache = SlotCache(layers, rows=len(prompts), columns=0)
        self._cache.grow(len(prompts), longest + room)
        places = self._in_front(self._ids.place(prompts))
        first: dict[bytes, int] = {}
        leaders = [first.setdefault(packed(ids), at) for at, ids in enumerate(prompts)]
        logits: torch.Tensor | None = None
        for group in _groups(prompts, places, sorted(set(leaders))):
            some = [prompts[at] for at in group]
            with self._seen_by(self.see, some):
                found = self._pass(some, [places[at] for at in group])
            if logits is None:
                logits = found.new_empty(len(prompts), found.shape[-1])
            logits[group] = found
        assert logits is not None
        self._copy([at for at, lead in enumerate(leaders) if at != lead], leaders, places, prompts)
        for place, ids in zip(places, prompts, strict=True):
            self._ids.hold(place.at, ids)
        return [place.at for place in places], logits[leaders]

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        write: Write,
        *,
        mask: torch.Tensor | None = None,
        keep: int = 1,
    ) -> torch.Tensor:
        """One pass of the model over the cache.

        Args:
            tokens: `[b, n]`.
            positions: of each token, `[b, n]`.
            write: where it goes.
            mask: `[b, n, limit]`, True where a token may look; by default up to its position.
            keep: last positions whose logits are wanted.

        Returns:
            Logits, `[b, keep, vocabulary]`.
        """
        assert self._cache is not None
        if mask is None:
            mask = torch.arange(write.limit, device=tokens.device) <= positions[..., None]
        mask = mask[:, None]
        if self._additive:
            dtype = self.model.dtype
            mask = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(
                ~mask, torch.finfo(dtype).min
            )
        self._cache.write = write
        logits: torch.Tensor = self._weights.forward()(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=keep,
        ).logits
        return logits

    @contextmanager
    def _seen_by(self, see: See | None, prompts: Sequence[Sequence[int]]) -> Iterator[None]:
        """Show the states of the one pass that is made inside."""
        if see is None:
            yield
            return
        model = self._weights.forward()
        causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        decoder = getattr(causal, causal.base_model_prefix)
        states: list[torch.Tensor] = []
        hook = decoder.register_forward_hook(
            lambda module, given, out: states.append(out.last_hidden_state[:, -1].clone())
        )
        try:
            yield
        finally:
            hook.remove()
        see(prompts, states[0])

    def _in_front(self, places: list[Row]) -> list[Row]:
        """Move the rows in use to the front of the cache, so that a pass reads them as a slice."""
        assert self._cache is not None
        count = len(places)
        used = {place.at for place in places}
        behind = sorted(row for row in used if row >= count)
        spare = sorted(set(range(count)) - used)
        if not behind:
            return places
        limit = max(place.kept for place in places)
        self._cache.copy(behind, spare, limit)
        moved = dict(zip(behind, spare, strict=True))
        for source, target in moved.items():
            self._ids.move(source, target)
        return [Row(moved.get(place.at, place.at), place.kept) for place in places]

    def _copy(
        self,
        followers: list[int],
        leaders: list[int],
        places: Sequence[Row],
        prompts: Sequence[Sequence[int]],
    ) -> None:
        """Give prompts that are equal to another one its keys and values."""
        assert self._cache is not None
        if followers:
            self._cache.copy(
                [places[leaders[at]].at for at in followers],
                [places[at].at for at in followers],
                max(len(prompts[at]) for at in followers),
            )

    def _pass(self, prompts: Sequence[Sequence[int]], places: Sequence[Row]) -> torch.Tensor:
        """Compute the new tokens of some prompts; gives their last logits, `[b, vocabulary]`."""
        assert self._cache is not None
        device = self.model.device
        new = [list(ids[place.kept :]) for ids, place in zip(prompts, places, strict=True)]
        width = max(map(len, new))
        even = all(len(ids) == width for ids in new)
        tokens = torch.tensor([[self.pad_id] * (width - len(ids)) + ids for ids in new])
        ends = torch.tensor([[len(ids)] for ids in prompts])
        positions = ends - width + torch.arange(width)
        columns: torch.Tensor | int = positions.to(device)
        if not even:
            # Padding stands before a row's new tokens: it looks at column 0 and is written where
            # nothing reads.
            padding = torch.arange(width) < torch.tensor([[width - len(ids)] for ids in new])
            columns = positions.masked_fill(padding, self._cache.spare).to(device)
            positions = positions.masked_fill(padding, 0)
        elif len({place.kept for place in places}) == 1:
            columns = places[0].kept
        indices = [place.at for place in places]
        write = Write(self._rows(indices), columns, max(map(len, prompts)))
        return self.forward(tokens.to(device), positions.to(device), write)[:, -1]

    def _rows(self, indices: list[int]) -> slice | torch.Tensor:
        """The rows of a pass: a slice, read without a copy, where they are the first ones."""
        if indices == list(range(len(indices))):
            return slice(0, len(indices))
        return torch.tensor(indices, device=self.model.device)

    def _decode(
        self,
        prompts: Sequence[Sequence[int]],
        order: list[int],
        logits: torch.Tensor,
        answers: list[Sampled],
        settings: Settings,
    ) -> None:
        """Sample until every answer has ended.

        Args:
            prompts: the batch.
            order: the prompt in each row.
            logits: after each row's prompt, `[batch, vocabulary]`, in row order.
            answers: of each prompt; filled in place.
            settings: of the sampling.
        """
        assert self._cache is not None
        device = logits.device
        lengths = torch.tensor([[len(prompts[at])] for at in order], device=device)
        longest = int(lengths.max())
        same = bool((lengths == longest).all())
        running = list(range(len(order)))
        for step in range(settings.max_new_tokens):
            chosen, logprobs = settings.draw(logits)
            going = []
            for place, (token, logprob) in enumerate(
                zip(chosen.tolist(), logprobs.tolist(), strict=True)
            ):
                answer = answers[order[running[place]]]
                if not answer.ended:
                    settings.take(answer, token, logprob)
                    if not answer.ended:
                        going.append(place)
            if not going:
                break
            if 2 * len(going) <= len(running):
                # Answers that ended are dropped by halves: rows apart are read through a copy.
                running = [running[place] for place in going]
                chosen = chosen[going]
            positions = lengths[running] + step
            write = Write(
                self._rows(running), longest + step if same else positions, longest + step + 1
            )
            logits = self.forward(chosen[:, None], positions, write)[:, -1]
        for row, at in enumerate(order):
            self._ids.hold(row, [*prompts[at], *answers[at].token_ids[:-1]])


def _groups(
    prompts: Sequence[Sequence[int]], places: Sequence[Row], wanted: Sequence[int]
) -> Iterator[list[int]]:
    """Prompts that share a pass: alike in new tokens, and not too many together."""
    by_work = sorted(wanted, key=lambda at: (places[at].kept - len(prompts[at]), places[at].at))
    group: list[int] = []
    widest = 0
    for at in by_work:
        work = len(prompts[at]) - places[at].kept
        if group and (work * UNEVEN < widest or (len(group) + 1) * widest > PASS_TOKENS):
            yield sorted(group, key=lambda at: places[at].at)
            group = []
        if not group:
            widest = work
        group.append(at)
    yield sorted(group, key=lambda at: places[at].at)
