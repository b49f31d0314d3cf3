"""From what a request says to token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from simtune.errors import OptionError
from simtune.policy.chats import ChatEncoder
from simtune.policy.choices import OptionIds, Options
from simtune.records import Messages
from simtune.serving.conversations import Conversations
from simtune.serving.refusals import unusable
from simtune.serving.requests import TextAsked

ROLES = ("system", "developer", "user", "assistant", "tool")


class Prompts:
    """Encodes chats, texts and options.

    Args:
        tokenizer: of the model.
        ends: ids that end an answer.
        context: tokens that prompt and answer may have together.
        vocabulary: ids there are.
    """

    def __init__(
        self, tokenizer: Any, ends: frozenset[int], *, context: int, vocabulary: int
    ) -> None:
        self._tokenizer = tokenizer
        self._encode = ChatEncoder(tokenizer, ends)
        self._options = OptionIds(tokenizer)
        self._context = context
        self._vocabulary = vocabulary
        self.conversations = Conversations()

    def chat(self, messages: Messages, episode: str | None) -> list[int]:
        """Ids of a chat, up to where the assistant's turn begins.

        Raises:
            Refusal: it is no chat, or the template refuses it.
        """
        plain = [_checked(at, message) for at, message in enumerate(messages)]
        if not plain:
            raise unusable("messages is empty", "messages")
        try:
            return self._encode([self.conversations.recall(plain, episode)])[0]
        except (TemplateError, TypeError, KeyError) as error:
            raise unusable(
                f"the model's chat template refuses these messages: {error}", "messages"
            ) from error

    def texts(self, asked: TextAsked) -> list[list[int]]:
        """Ids of the prompts of a text completion.

        Raises:
            Refusal: there are none, or ids that the model does not have.
        """
        prompt = asked.prompt
        if isinstance(prompt, str):
            prompt = [prompt]
        ids = [one for one in prompt if isinstance(one, int)]
        texts = [one for one in prompt if isinstance(one, str)]
        lists = [one for one in prompt if isinstance(one, list)]
        if len(prompt) not in (len(ids), len(texts), len(lists)):
            raise unusable("a prompt is text, token ids, or a list of either", "prompt")
        if texts:
            lists = [list(one) for one in self._tokenizer(texts)["input_ids"]]
        elif ids:
            lists = [ids]
        if not lists or not all(lists):
            raise unusable("a prompt is empty", "prompt")
        if any(not 0 <= one < self._vocabulary for each in lists for one in each):
            raise unusable(f"token ids are from 0 to {self._vocabulary - 1}", "prompt")
        return lists

    def options(self, names: Sequence[str]) -> Options:
        """Ids of the options that are chosen among.

        Raises:
            Refusal: they cannot be chosen among.
        """
        try:
            return self._options(names)
        except OptionError as error:
            raise unusable(str(error), "choices") from error

    def room(self, prompt: Sequence[int], wanted: int | None, otherwise: int) -> int:
        """How many tokens the answer may have.

        Raises:
            Refusal: prompt and answer do not fit the model.
        """
        left = self._context - len(prompt)
        if left < 1 or (wanted is not None and wanted > left):
            raise unusable(
                f"this model's context is {self._context} tokens; the prompt has {len(prompt)}"
                + (f" and the answer may have {wanted}" if wanted is not None else ""),
                "messages" if wanted is None else "max_tokens",
                "context_length_exceeded",
            )
        return min(left, otherwise) if wanted is None else wanted


def _checked(at: int, message: dict[str, Any]) -> dict[str, Any]:
    """A message with its content as one text."""
    if message.get("role") not in ROLES:
        raise unusable(f"a role is one of {', '.join(ROLES)}", f"messages[{at}].role")
    content = message.get("content")
    if isinstance(content, list):
        parts = [part if isinstance(part, dict) else {} for part in content]
        if not all(part.get("type") == "text" for part in parts):
            raise unusable("only text can be read", f"messages[{at}].content")
        content = "".join(str(part.get("text", "")) for part in parts)
    if not isinstance(content, str):
        raise unusable("content is a text", f"messages[{at}].content", "invalid_type")
    return {**message, "content": content}
