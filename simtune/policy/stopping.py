"""Texts that end an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Stops:
    """Whether an answer holds one of some texts; all tokens of it were sampled, and are kept.

    Args:
        tokenizer: decodes the answer so far.
        texts: any of these ends the answer.
    """

    def __init__(self, tokenizer: Any, texts: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._texts = tuple(texts)

    def __call__(self, token_ids: Sequence[int]) -> bool:
        """Whether these tokens hold a stop text."""
        text = self._tokenizer.decode(token_ids, skip_special_tokens=True)
        return any(stop in text for stop in self._texts)

    def before(self, text: str) -> str:
        """The answer up to the first stop text."""
        found = [at for at in map(text.find, self._texts) if at >= 0]
        return text[: min(found)] if found else text
