"""One set of weights, its cache, and the answers that are being written with it."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch

from simtune.policy.choices import distribution
from simtune.policy.rows import WIDTH, common, packed
from simtune.serving.asks import Ask
from simtune.serving.drawing import draw, seeded
from simtune.serving.passes import Passes
from simtune.serving.places import Copy, Places

CHUNK = 512
"""Tokens of one prompt that a pass computes at most: other answers go on in between."""

PASS_TOKENS = 4096
"""Prompt tokens of one pass, padding included."""

UNEVEN = 2
"""Prompts of one pass differ by at most this factor in new tokens; padding costs as much."""

WAIT_FOR = 32
"""A prompt waits for one before it where that computes this many tokens that both begin with."""

ROOM = 64
"""Columns that are added beyond what is needed now."""


class Lane:
    """Writes answers with one model; whoever comes joins at the next token.

    Each `step` computes new prompt tokens in one pass, and one token of every answer that is
    being written in another. Weights never change, so nothing in the cache is ever stale: another
    adapter is another lane.

    Args:
        model: a causal language model that `slots.fits`, with or without PEFT layers.
        adapter: content hash of its adapter; None: the base model.
        ends: ids that end an answer.
        pad_id: fills short rows; never attended to.
        limit: answers that are written at a time.
        budget: bytes of cache above which an answer waits for others to end.
    """

    def __init__(
        self,
        model: Any,
        *,
        adapter: str | None,
        ends: frozenset[int],
        pad_id: int,
        limit: int,
        budget: int,
    ) -> None:
        self.adapter = adapter
        self._passes = Passes(model, pad_id=pad_id)
        self._ends = ends
        self._limit = limit
        self._budget = budget
        self._places = Places()
        self.waiting: deque[Ask] = deque()
        self._filling: list[Ask] = []
        self._writing: list[Ask] = []

    @property
    def busy(self) -> bool:
        """Whether any answer is wanted."""
        return bool(self.waiting or self._filling or self._writing)

    @property
    def cache_bytes(self) -> int:
        """Bytes of keys and values."""
        return self._passes.nbytes

    def step(self) -> list[Ask]:
        """Two passes at most; returns the answers that have news."""
        self._drop_cancelled()
        self._admit()
        changed = []
        if self._filling:
            changed += self._fill(self._together())
        if self._writing:
            changed += self._write()
        return changed

    def fail(self, error: str) -> list[Ask]:
        """Give up all answers and forget the cache; returns them."""
        asks = [*self.waiting, *self._filling, *self._writing]
        for ask in asks:
            ask.fail(error)
        self.waiting.clear()
        self._filling, self._writing = [], []
        self._passes.forget()
        self._places = Places()
        return asks

    # Who is in

    def _drop_cancelled(self) -> None:
        self.waiting = deque(ask for ask in self.waiting if not ask.cancelled)
        for ask in [*self._filling, *self._writing]:
            if ask.cancelled:
                ask.finish = "cancelled"
                self._leave(ask)
        self._filling = [ask for ask in self._filling if not ask.cancelled]
        self._writing = [ask for ask in self._writing if not ask.cancelled]

    def _leave(self, ask: Ask) -> None:
        held = [*ask.prompt, *ask.token_ids[:-1]] if ask.computed >= len(ask.prompt) else []
        if ask.choice_logprobs:
            held = ask.prompt
        self._places.free(ask.row, packed(held) if held else ask.packed[: ask.computed * WIDTH])

    def _admit(self) -> None:
        """Let in who fits; who shares a beginning with one who is computing it waits for that."""
        put_off: list[Ask] = []
        while self.waiting and len(self._filling) + len(self._writing) < self._limit:
            ask = self.waiting.popleft()
            if not self._affordable(ask):
                self.waiting.appendleft(ask)
                break
            _, kept = self._places.shared(ask.packed)
            if any(self._worth_waiting(ask, kept, other) for other in self._filling):
                put_off.append(ask)
                continue
            self._place(ask)
        self.waiting.extendleft(reversed(put_off))

    def _worth_waiting(self, ask: Ask, kept: int, other: Ask) -> bool:
        both = min(common(ask.packed, other.packed), len(ask.prompt) - 1)
        return both >= kept + WAIT_FOR and both > other.computed

    def _affordable(self, ask: Ask) -> bool:
        """Whether the rows in use, with this one, stay within the budget of the cache."""
        rows = len(self._filling) + len(self._writing) + 1
        columns = self._passes.columns_for(len(ask.prompt) + ROOM)
        return rows == 1 or rows * columns * self._passes.column_bytes <= self._budget

    def _place(self, ask: Ask) -> None:
        passes = self._passes
        columns = passes.columns_for(len(ask.prompt) + ROOM)
        affordable = self._budget // (columns * passes.column_bytes)
        most = max(1, self._places.front, min(2 * self._limit, affordable))
        # Rows that only remember go where the cache would outgrow its budget.
        self._places.cut(most)
        passes.cut(most)
        place = self._places.take(ask.packed, most=most)
        passes.grow(self._places.count, len(ask.prompt) + ROOM, most=most)
        for copy in place.copies:
            passes.copy(copy)
        ask.row, ask.computed, ask.reused = place.row, place.kept, place.kept
        self._filling.append(ask)

    # Prompts

    def _together(self) -> list[Ask]:
        """Prompts that share a pass: alike in new tokens with the first one, not too many."""
        first = self._left(self._filling[0])
        group: list[Ask] = []
        widest = 0
        for ask in self._filling:
            left = self._left(ask)
            wide = max(widest, left)
            alike = left <= UNEVEN * first and first <= UNEVEN * left
            if alike and (not group or (len(group) + 1) * wide <= PASS_TOKENS):
                group.append(ask)
                widest = wide
        return group

    def _left(self, ask: Ask) -> int:
        return min(CHUNK, len(ask.prompt) - ask.computed)

    def _fill(self, group: list[Ask]) -> list[Ask]:
        """Compute new tokens of some prompts; whose prompt is done draws its first token."""
        ends = [ask.computed + self._left(ask) for ask in group]
        logits = self._passes.fill(
            [ask.row for ask in group],
            [ask.prompt[ask.computed : end] for ask, end in zip(group, ends, strict=True)],
            ends,
        )
        done = []
        for at, (ask, end) in enumerate(zip(group, ends, strict=True)):
            ask.computed = end
            self._places.hold(ask.row, ask.packed[: end * WIDTH])
            if end == len(ask.prompt):
                done.append(at)
        finished = [group[at] for at in done]
        self._filling = [ask for ask in self._filling if ask not in finished]
        return self._answer(logits[done], finished) if done else []

    def _answer(self, logits: torch.Tensor, asks: list[Ask]) -> list[Ask]:
        """Draw the next token of each answer, or take its option; returns who has news."""
        drawing = [at for at, ask in enumerate(asks) if ask.wanted.options is None]
        for at, ask in enumerate(asks):
            if ask.wanted.options is not None:
                self._choose(logits[at], ask)
        if drawing:
            rows = logits if len(drawing) == len(asks) else logits[drawing]
            draw(rows, [asks[at] for at in drawing], self._ends)
        for ask in asks:
            if ask.finish is not None:
                self._leave(ask)
                if ask in self._writing:
                    self._writing.remove(ask)
            elif len(ask.token_ids) == 1:
                self._writing.append(ask)
        return [ask for ask in asks if ask.finish is not None or ask.streams]

    # Answers

    def _write(self) -> list[Ask]:
        """One token of every answer."""
        self._close_up()
        asks = list(self._writing)
        rows = [ask.row for ask in asks]
        tokens, positions = [0] * (max(rows) + 1), [-1] * (max(rows) + 1)
        for ask in asks:
            tokens[ask.row] = ask.token_ids[-1]
            positions[ask.row] = len(ask.prompt) + len(ask.token_ids) - 1
        if max(positions) + 1 >= self._passes.columns:
            self._passes.grow(0, max(positions) + ROOM)
        logits = self._passes.write(tokens, positions)
        return self._answer(logits if rows == list(range(len(tokens))) else logits[rows], asks)

    def _close_up(self) -> None:
        """Bring an answer forward where less than half of the rows that a pass reads are in use."""
        found = self._places.closer()
        if found is not None:
            ask = next(one for one in self._writing + self._filling if one.row == found[0])
            self._passes.copy(Copy(*found, len(ask.prompt) + len(ask.token_ids)))
            ask.row = found[1]

    def _choose(self, first: torch.Tensor, ask: Ask) -> None:
        """Score the options behind a prompt that has been computed, and take one."""
        options = ask.wanted.options
        assert options is not None
        start = torch.log_softmax(first.float(), dim=-1)
        scores = [float(start[option[0]]) for option in options]
        width = sum(len(option) - 1 for option in options)
        if width:
            later = self._passes.branches(ask.row, len(ask.prompt), options)
            at = 0
            for place, option in enumerate(options):
                scores[place] += sum(later[at : at + len(option) - 1])
                at += len(option) - 1
        policy = distribution(
            [scores],
            [options],
            temperature=ask.wanted.temperature or 1.0,
            length_normalised=ask.wanted.length_normalised,
        )[0]
        if ask.wanted.temperature == 0:
            taken = policy.argmax()
        elif ask.wanted.seed is None:
            taken = torch.multinomial(policy.exp(), 1)[0]
        else:
            taken = seeded(policy.exp().float(), ask)
        ask.choose(int(taken), policy.tolist())
