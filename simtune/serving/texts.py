"""The text of an answer while its tokens come: what can be shown already, and stop texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import DecodeStream


class TextSoFar:
    """Decodes token by token; characters come out whole, and never a part of a stop text.

    Args:
        tokenizer: a fast tokenizer.
        stop: texts that end the answer; it is cut before the first of them.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._longest = max(map(len, self._stop), default=0)
        self._stream = DecodeStream(skip_special_tokens=True)
        self._text = ""
        self._ended = False
        self._shown = 0

    def add(self, token: int) -> bool:
        """One more token; whether the text now holds a stop text."""
        more = self._stream.step(self._tokenizer.backend_tokenizer, token)
        if more:
            seen = max(0, len(self._text) - self._longest + 1)
            self._text += more
            found = [at for stop in self._stop if (at := self._text.find(stop, seen)) >= 0]
            if found:
                self._text = self._text[: min(found)]
                self._ended = True
        return self._ended

    def news(self) -> str:
        """What can be shown since the last call."""
        held = 0 if self._ended else max(0, self._longest - 1)
        until = max(self._shown, len(self._text) - held)
        piece = self._text[self._shown : until]
        self._shown = until
        return piece

    def rest(self, token_ids: Sequence[int]) -> str:
        """What is left to show when the answer has ended."""
        whole = self.whole(token_ids)
        piece = whole[self._shown :] if whole.startswith(self._text[: self._shown]) else ""
        self._shown += len(piece)
        return piece

    def whole(self, token_ids: Sequence[int]) -> str:
        """The whole answer, before the first stop text."""
        if self._ended:
            return self._text
        return decoded(self._tokenizer, token_ids)


def decoded(tokenizer: Any, token_ids: Sequence[int]) -> str:
    """The text of an answer, special tokens left out."""
    text: str = tokenizer.decode(token_ids, skip_special_tokens=True)
    return text
