"""Tokens as OpenAI's log-probabilities show them: text, and the bytes that it stands for."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class TokenTexts:
    """Text and bytes of single tokens, each found once.

    Args:
        tokenizer: of the model.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, tuple[str, list[int]]] = {}

    def __call__(self, token: int) -> tuple[str, list[int]]:
        """A token's text and bytes; part of a character is shown as U+FFFD."""
        found = self._known.get(token)
        if found is None:
            found = self._known[token] = self._find(token)
        return found

    def _find(self, token: int) -> tuple[str, list[int]]:
        text: str = self._tokenizer.decode([token], skip_special_tokens=False)
        name: str = self._tokenizer.convert_ids_to_tokens(token) or ""
        if name.startswith("▁") and not text.startswith(" "):
            text = " " + text
        if _REPLACEMENT not in text:
            return text, list(text.encode())
        if one := _BYTE.fullmatch(name):
            return text, [int(one[1], 16)]
        alphabet = _byte_alphabet()
        if all(letter in alphabet for letter in name):
            return text, [alphabet[letter] for letter in name]
        return text, list(text.encode())


@lru_cache(maxsize=1)
def _byte_alphabet() -> dict[str, int]:
    """The letters that byte-level tokenizers write bytes with."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {letter: byte for byte, letter in bytes_to_unicode().items()}
