"""Chats that go on: the tokens that were sampled stand in the next prompt as they were."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from simtune.records import Messages
from simtune.reply import Reply

REMEMBERED = 16_384


class Conversations:
    """Remembers the tokens of answers by the chat that they ended.

    A client sends texts back. Where a chat goes on from an answer of this server, its text is
    taken for a `Reply` again, and the prompt begins with the very tokens of that answer.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, tuple[Sequence[int], Sequence[int]]] = OrderedDict()

    def recall(self, messages: Messages, episode: str | None) -> Messages:
        """The chat, with its latest answer as the `Reply` that it was."""
        for at in range(len(messages) - 1, -1, -1):
            if messages[at].get("role") == "assistant":
                known = self._known.get(_key(messages[: at + 1], episode))
                if known is None:
                    return messages
                reply = Reply(
                    messages[at]["content"], prompt_token_ids=known[0], token_ids=known[1]
                )
                return [*messages[:at], {**messages[at], "content": reply}, *messages[at + 1 :]]
        return messages

    def remember(
        self,
        messages: Messages,
        text: str,
        prompt: Sequence[int],
        token_ids: Sequence[int],
        episode: str | None,
    ) -> None:
        """An answer was given."""
        key = _key([*messages, {"role": "assistant", "content": text}], episode)
        self._known[key] = (prompt, token_ids)
        self._known.move_to_end(key)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)


def _key(messages: Messages, episode: str | None) -> bytes:
    said = [(message.get("role"), message.get("content")) for message in messages]
    return hashlib.blake2b(msgspec.json.encode((episode, said)), digest_size=16).digest()
