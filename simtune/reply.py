"""The text that a policy answered, together with the tokens it sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class Reply(str):
    """A `str` that carries what training needs, so that capture finds it without being told.

    Use it as the plain answer; `@simtune.capture` and `simtune.gym.rollout` read the rest.

    Args:
        text: the decoded answer, special tokens removed.
        prompt_token_ids: ids the model was given, `[prompt_len]`.
        token_ids: ids the model sampled, EOS included where it was sampled, `[response_len]`.
        logprobs: natural-log probability of each sampled id under the sampling distribution
            (temperature applied), `[response_len]`.
        sampling: temperature, top_p, top_k, max_tokens, seed, stop: whatever was set.
        model: name or path of the base model.
        adapter: content hash of the LoRA adapter, or None for the base model alone.
        choices: the named options, where the answer is a decision among them.
        choice_logprobs: natural-log probability of each option under the policy's softmax over
            the options (temperature applied), `[n_choices]`.
    """

    __slots__ = (
        "adapter",
        "choice_logprobs",
        "choices",
        "logprobs",
        "model",
        "prompt_token_ids",
        "sampling",
        "token_ids",
    )

    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    sampling: dict[str, Any] | None
    model: str | None
    adapter: str | None
    choices: tuple[str, ...]
    choice_logprobs: tuple[float, ...]

    def __new__(
        cls,
        text: str,
        *,
        prompt_token_ids: Sequence[int] = (),
        token_ids: Sequence[int] = (),
        logprobs: Sequence[float] = (),
        sampling: Mapping[str, Any] | None = None,
        model: str | None = None,
        adapter: str | None = None,
        choices: Sequence[str] = (),
        choice_logprobs: Sequence[float] = (),
    ) -> Reply:
        """Make a reply; raises ValueError where lists that belong together differ in length."""
        if logprobs and len(logprobs) != len(token_ids):
            raise ValueError(
                f"a Reply needs one log-probability per token id: "
                f"{len(token_ids)} token ids, {len(logprobs)} logprobs"
            )
        if len(choice_logprobs) != len(choices):
            raise ValueError(
                f"a Reply needs one log-probability per choice: "
                f"{len(choices)} choices, {len(choice_logprobs)} choice_logprobs"
            )
        self = super().__new__(cls, text)
        self.prompt_token_ids = tuple(prompt_token_ids)
        self.token_ids = tuple(token_ids)
        self.logprobs = tuple(logprobs)
        self.sampling = dict(sampling) if sampling is not None else None
        self.model = model
        self.adapter = adapter
        self.choices = tuple(choices)
        self.choice_logprobs = tuple(choice_logprobs)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with everything carried."""
        return _rebuild, (str(self), {name: getattr(self, name) for name in self.__slots__})


def _rebuild(text: str, carried: dict[str, Any]) -> Reply:
    return Reply(text, **carried)
