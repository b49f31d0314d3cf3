"""Which decisions share a row of a batch: those whose tokens are the beginning of another's.

Attention looks back only, so the hidden states of a sequence are those of any longer sequence
that begins with it. A growing chat is therefore one row for all of its decisions, and decisions
that saw the same tokens, in one episode or in several, are computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

WIDTH = 4
"""Bytes of one token id in a key."""


def key(ids: Sequence[int]) -> bytes:
    """Token ids as bytes that sort, and begin with one another, as the ids do."""
    return np.asarray(ids, dtype=">u4").tobytes()


def ids_of(row: bytes) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The token ids of a key, int64."""
    return np.frombuffer(row, dtype=">u4").astype(np.int64)


def length(row: bytes) -> int:
    """How many tokens a key has."""
    return len(row) // WIDTH


def share(keys: Sequence[bytes]) -> tuple[list[bytes], list[int]]:
    """The fewest rows that hold every sequence as a row's beginning.

    In sorted order a sequence that begins another one begins its own successor: one comparison
    each is enough.

    Args:
        keys: of the sequences, any order.

    Returns:
        The rows, and for each sequence the index of its row.
    """
    rows: list[bytes] = []
    row_of = [0] * len(keys)
    for index in sorted(range(len(keys)), key=keys.__getitem__, reverse=True):
        if not rows or not rows[-1].startswith(keys[index]):
            rows.append(keys[index])
        row_of[index] = len(rows) - 1
    return rows, row_of


def chains(prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> list[range]:
    """Cut an episode where a prompt does not go on from the prompt and answer before it.

    Args:
        prompts: ids of each decision's prompt, `[T]`.
        answers: ids of each decision's answer, `[T]`.

    Returns:
        Ranges of decisions that share a row, in order.
    """
    starts = [0] if prompts else []
    for t in range(1, len(prompts)):
        before = len(prompts[t - 1])
        end = before + len(answers[t - 1])
        goes_on = (
            len(prompts[t]) >= end
            and list(prompts[t][before:end]) == list(answers[t - 1])
            and list(prompts[t][:before]) == list(prompts[t - 1])
        )
        if not goes_on:
            starts.append(t)
    return [range(a, b) for a, b in pairwise([*starts, len(prompts)])]


def cut(lengths: Sequence[int], budget: int, *, padded: bool) -> list[list[int]]:
    """Cut rows into micro-batches of at most `budget` tokens, the longest rows first.

    Args:
        lengths: of the rows, tokens.
        budget: tokens of a micro-batch; a longer row is a micro-batch by itself.
        padded: every row of a micro-batch counts as long as its longest.

    Returns:
        Indices of the rows of each micro-batch.
    """
    batches: list[list[int]] = []
    width = used = 0
    for index in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        cost = width if padded and batches else lengths[index]
        if not batches or used + cost > budget:
            batches.append([])
            width = cost = lengths[index]
            used = 0
        batches[-1].append(index)
        used += cost
    return batches
