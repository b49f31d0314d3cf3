"""Answers in OpenAI's shapes: whole, and piece by piece."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

from simtune.serving.asks import Ask
from simtune.serving.models import Served
from simtune.serving.requests import Asked, ChatAsked
from simtune.serving.texts import TextSoFar, decoded
from simtune.serving.tokens import TokenTexts

LEAST = -9999.0
"""What OpenAI writes for a probability of zero."""


class Form:
    """Writes the bodies of one request's response.

    Args:
        asked: the request.
        served: what answers.
        tokenizer: of the model.
        tokens: texts of single tokens.
    """

    def __init__(self, asked: Asked, served: Served, tokenizer: Any, tokens: TokenTexts) -> None:
        self.chat = isinstance(asked, ChatAsked)
        self._asked = asked
        self._tokenizer = tokenizer
        self._tokens = tokens
        self._kind = "chat.completion" if self.chat else "text_completion"
        self.id = ("chatcmpl-" if self.chat else "cmpl-") + secrets.token_hex(12)
        self._envelope: dict[str, Any] = {
            "id": self.id,
            "created": int(time.time()),
            "model": served.id,
            "system_fingerprint": served.adapter or "base",
            "adapter": served.adapter,
        }

    def whole(self, asks: Sequence[Ask], texts: Sequence[str], said: dict[str, Any]) -> Any:
        """The body of a response in one piece.

        Args:
            asks: the answers, all ended.
            texts: of each.
            said: further fields.
        """
        body = {
            **self._envelope,
            "object": self._kind,
            "choices": [
                self._choice(at, *each) for at, each in enumerate(zip(asks, texts, strict=True))
            ],
            "usage": usage(asks),
            "sampling": self.sampling(asks[0]),
            **said,
        }
        if self.chat and self._asked.return_token_ids:
            body["prompt_token_ids"] = asks[0].prompt
        return body

    def opening(self, asks: Sequence[Ask]) -> Any:
        """The first chunk of a stream."""
        choices = [self._delta(at, {"role": "assistant", "content": ""}) for at in range(len(asks))]
        chunk = self._chunk(choices if self.chat else [])
        if self.chat and self._asked.return_token_ids:
            chunk["prompt_token_ids"] = asks[0].prompt
        return chunk

    def piece(self, at: int, ask: Ask, text: str, begin: int, end: int, offset: int) -> Any:
        """A chunk: text, and the tokens from `begin` to `end` where they are wanted."""
        choice = self._delta(at, {"content": text}) if self.chat else self._text(at, text)
        self._add_tokens(choice, ask, begin, end, offset)
        if not self.chat and self._asked.return_token_ids and begin == 0:
            choice["prompt_token_ids"] = ask.prompt
        return self._chunk([choice])

    def ending(self, at: int, ask: Ask, said: dict[str, Any]) -> Any:
        """The chunk that says why an answer ended."""
        choice = self._delta(at, {}) if self.chat else self._text(at, "")
        choice["finish_reason"] = ask.finish
        _add_options(choice, ask)
        return {**self._chunk([choice]), "sampling": self.sampling(ask), **said}

    def count(self, asks: Sequence[Ask]) -> Any:
        """The chunk that counts tokens."""
        return {**self._chunk([]), "usage": usage(asks)}

    def sampling(self, ask: Ask) -> dict[str, Any]:
        """How an answer was drawn, as decisions record it."""
        wanted = ask.wanted
        said: dict[str, Any] = {"temperature": wanted.temperature}
        if wanted.seed is not None:
            said["seed"] = wanted.seed
        if wanted.options is not None:
            return said | {
                "decision": "choose",
                "length_normalised": wanted.length_normalised,
                "choice_token_ids": [list(option) for option in wanted.options],
            }
        said["max_tokens"] = wanted.max_tokens
        if self._asked.stops():
            said["stop"] = list(self._asked.stops())
        return said

    def text(self, ask: Ask) -> str:
        """The whole text of an answer."""
        if ask.choice_logprobs:
            return (self._asked.choices or [])[ask.chosen]
        if ask.text is not None:
            return ask.text.whole(ask.token_ids)
        return decoded(self._tokenizer, ask.token_ids)

    def follows(self, stops: Sequence[str]) -> TextSoFar | None:
        """What follows an answer's text on its way, where that is needed."""
        if stops or self._asked.stream:
            return TextSoFar(self._tokenizer, stops)
        return None

    def _choice(self, at: int, ask: Ask, text: str) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": at, "finish_reason": ask.finish, "logprobs": None}
        if self.chat:
            choice["message"] = {"role": "assistant", "content": text, "refusal": None}
        else:
            choice["text"] = text
            if self._asked.return_token_ids:
                choice["prompt_token_ids"] = ask.prompt
        _add_options(choice, ask)
        self._add_tokens(choice, ask, 0, len(ask.token_ids), 0)
        return choice

    def _add_tokens(
        self, choice: dict[str, Any], ask: Ask, begin: int, end: int, offset: int
    ) -> None:
        if self._asked.return_token_ids:
            choice["token_ids"] = ask.token_ids[begin:end]
        if self._asked.tells_logprobs() and ask.logprobs:
            told = self._chat_logprobs if self.chat else self._text_logprobs
            choice["logprobs"] = told(ask, begin, end, offset)

    def _chat_logprobs(self, ask: Ask, begin: int, end: int, offset: int) -> Any:
        content = []
        for at in range(begin, end):
            entry = self._entry(ask.token_ids[at], ask.logprobs[at])
            entry["top_logprobs"] = [self._entry(*other) for other in ask.alternatives[at]]
            content.append(entry)
        return {"content": content, "refusal": None}

    def _text_logprobs(self, ask: Ask, begin: int, end: int, offset: int) -> Any:
        names, offsets = [], []
        for token in ask.token_ids[begin:end]:
            offsets.append(offset)
            offset += len(self._tokens(token)[0])
            names.append(self._name(token))
        tops = [
            {self._name(token): max(logprob, LEAST) for token, logprob in others}
            for others in ask.alternatives[begin:end]
        ]
        return {
            "tokens": names,
            "token_logprobs": [max(one, LEAST) for one in ask.logprobs[begin:end]],
            "top_logprobs": tops if self._asked.alternatives() else None,
            "text_offset": offsets,
        }

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        _, spelt = self._tokens(token)
        return {"token": self._name(token), "logprob": max(logprob, LEAST), "bytes": spelt}

    def _name(self, token: int) -> str:
        if self._asked.return_tokens_as_token_ids:
            return f"token_id:{token}"
        return self._tokens(token)[0]

    def _delta(self, at: int, delta: dict[str, Any]) -> dict[str, Any]:
        return {"index": at, "delta": delta, "logprobs": None, "finish_reason": None}

    def _text(self, at: int, text: str) -> dict[str, Any]:
        return {"index": at, "text": text, "logprobs": None, "finish_reason": None}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return {**self._envelope, "object": kind, "choices": choices}


def _add_options(choice: dict[str, Any], ask: Ask) -> None:
    """What was chosen among, in the order of the request."""
    if ask.choice_logprobs:
        choice["choice_logprobs"] = ask.choice_logprobs
        choice["choice_token_ids"] = ask.wanted.options


def usage(asks: Sequence[Ask]) -> dict[str, Any]:
    """How many tokens were read and written; equal prompts of one request count once."""
    prompts = {ask.packed: len(ask.prompt) for ask in asks}
    prompt, written = sum(prompts.values()), sum(len(ask.token_ids) for ask in asks)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
        "prompt_tokens_details": {"cached_tokens": max(ask.reused for ask in asks)},
    }
