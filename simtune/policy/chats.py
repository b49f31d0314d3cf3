"""Chats as token ids, token in and token out: what was sampled is never tokenised again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from simtune.records import Messages
from simtune.reply import Reply

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

REMEMBERED = 8_192
"""Prompts whose ids or text are kept; then all are forgotten at once."""


class ChatEncoder:
    """Turns chats into prompts, up to where the assistant's turn begins.

    Where the latest answer in a chat is a `simtune.Reply`, the prompt goes on from the reply's own
    `prompt_token_ids + token_ids`, provided that the template renders the chat as exactly that
    text and more. Where it does not, because the template drops or changes something or the chat
    was cut, the whole chat is tokenised.

    Args:
        tokenizer: its chat template is used.
        ends: ids that end an answer where they are sampled, and leave no text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, ends: Collection[int]) -> None:
        self.tokenizer = tokenizer
        self._ends = {one: tokenizer.decode([one], skip_special_tokens=False) for one in ends}
        self._ids: dict[tuple[Any, ...], list[int]] = {}
        self._texts: dict[tuple[int, ...], str] = {}

    def __call__(self, prompts: Sequence[Messages]) -> list[list[int]]:
        """Token ids of each prompt, `[batch][prompt_len]`."""
        made: list[list[int] | None] = [None] * len(prompts)
        rest: dict[str, list[int]] = {}
        for place, messages in enumerate(prompts):
            at = _latest_reply(messages)
            if at is None:
                key = _key(messages)
                known = self._ids.get(key)
                if known is not None:
                    made[place] = known
                    continue
            text = self._render(messages)
            if at is not None:
                made[place] = self._go_on(messages[at]["content"], text)
            if made[place] is None:
                rest.setdefault(text, []).append(place)
        if rest:
            encoded = self.tokenizer(list(rest), add_special_tokens=False)["input_ids"]
            for (text, places), ids in zip(rest.items(), encoded, strict=True):
                for place in places:
                    self._remember(prompts[place], ids, text)
                    made[place] = ids
        return [list(ids) for ids in made if ids is not None]

    def _render(self, messages: Messages) -> str:
        text: str = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        return text

    def _remember(self, messages: Messages, ids: list[int], text: str) -> None:
        if len(self._ids) >= REMEMBERED:
            self._ids.clear()
        if len(self._texts) >= REMEMBERED:
            self._texts.clear()
        if _latest_reply(messages) is None:
            self._ids[_key(messages)] = ids
        self._texts[tuple(ids)] = text

    def _go_on(self, reply: Reply, text: str) -> list[int] | None:
        """The prompt as a continuation of the reply's tokens; None where it is none."""
        head = self._texts.get(reply.prompt_token_ids)
        if head is None:
            head = self.tokenizer.decode(reply.prompt_token_ids, skip_special_tokens=False)
        said = head + str(reply)
        if not text.startswith(said):
            return None
        tail = text[len(said) :]
        # The end of the turn is not said twice where it was sampled.
        end = self._ends.get(reply.token_ids[-1], "")
        if not tail.startswith(end):
            return None
        ids = [*reply.prompt_token_ids, *reply.token_ids]
        ids += self.tokenizer(tail[len(end) :], add_special_tokens=False)["input_ids"]
        if len(self._texts) >= REMEMBERED:
            self._texts.clear()
        self._texts[tuple(ids)] = text
        return ids


def _latest_reply(messages: Messages) -> int | None:
    """Where the latest answer stands, if it knows its tokens."""
    for at in range(len(messages) - 1, -1, -1):
        if messages[at].get("role") == "assistant":
            content = messages[at].get("content")
            known = isinstance(content, Reply) and content.token_ids and content.prompt_token_ids
            return at if known else None
    return None


def _key(messages: Messages) -> tuple[Any, ...]:
    return tuple(
        (name, value if isinstance(value, str) else repr(value))
        for message in messages
        for name, value in message.items()
    )
