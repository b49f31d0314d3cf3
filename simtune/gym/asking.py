"""Asking a policy: the messages for an observation, and one batched call per step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

from gymnasium import Env

from simtune.errors import OptionError
from simtune.records import Messages


@runtime_checkable
class BatchPolicy(Protocol):
    """A policy that answers many prompts at once, such as simtune's own."""

    def act(self, prompts: Sequence[Messages]) -> Sequence[str]:
        """Answer each prompt, in order; a `simtune.Reply` carries the tokens it sampled."""


Policy: TypeAlias = Callable[[Messages], str] | BatchPolicy
"""`(messages) -> answer`, or an object with `act(prompts) -> answers`, which is preferred."""

Act: TypeAlias = Callable[[list[Messages]], Sequence[str]]


def messages_for(env: Env[Any, Any], observation: str) -> Messages:
    """The chat for an observation: the environment's own `messages`, else one user turn."""
    if env.has_wrapper_attr("messages"):
        made: Messages = env.get_wrapper_attr("messages")(observation)
        return made
    return [{"role": "user", "content": observation}]


def batched(policy: Policy) -> Act:
    """The policy as one call for many prompts, its answers checked.

    Raises:
        OptionError: now, where it is no policy; later, where its answers are no text or too few.
    """
    if isinstance(policy, BatchPolicy):
        answer: Act = policy.act
    elif callable(policy):
        single = policy

        def answer(prompts: list[Messages]) -> Sequence[str]:
            return [single(prompt) for prompt in prompts]

    else:
        raise OptionError(
            "the policy cannot be asked",
            expected="a callable from messages to text, or an object with act(prompts)",
            got=type(policy).__name__,
        )

    def checked(prompts: list[Messages]) -> Sequence[str]:
        answers = answer(prompts)
        if len(answers) != len(prompts) or not all(isinstance(text, str) for text in answers):
            raise OptionError(
                "the policy's answers do not fit its prompts",
                expected=f"{len(prompts)} answers, each a str or simtune.Reply",
                got=f"{len(answers)} of {sorted({type(text).__name__ for text in answers})}",
            )
        return answers

    return checked
