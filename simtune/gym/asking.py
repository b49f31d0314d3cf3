"""Asking a policy: the messages for an observation, and one batched call per step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

from gymnasium import Env

from simtune.errors import EnvironmentSpecError, OptionError
from simtune.records import Messages


@runtime_checkable
class BatchPolicy(Protocol):
    """A policy that answers many prompts at once, such as simtune's own."""

    def act(self, prompts: Sequence[Messages]) -> Sequence[str]:
        """Answer each prompt, in order; a `simtune.Reply` carries the tokens it sampled."""


Policy: TypeAlias = Callable[[Messages], str] | BatchPolicy
"""`(messages) -> answer`, or an object with `act(prompts) -> answers`, which is preferred.

Where its attribute `decision` is "choose", it is asked with `act(prompts, choices=...)`: the names
of the legal actions, for each prompt.
"""

Choices: TypeAlias = tuple[str, ...]
Act: TypeAlias = Callable[[list[Messages], list[Choices]], Sequence[str]]


def messages_for(env: Env[Any, Any], observation: str) -> Messages:
    """The chat for an observation: the environment's own `messages`, else one user turn."""
    if env.has_wrapper_attr("messages"):
        made: Messages = env.get_wrapper_attr("messages")(observation)
        return made
    return [{"role": "user", "content": observation}]


def choices_for(env: Env[Any, Any]) -> Choices:
    """The names of the actions that are legal now; none where the environment does not say."""
    return tuple(env.get_wrapper_attr("choices")) if env.has_wrapper_attr("choices") else ()


def _acting(policy: Any) -> Act:
    if getattr(policy, "decision", "generate") != "choose":
        return lambda prompts, choices: policy.act(prompts)

    def choose(prompts: list[Messages], choices: list[Choices]) -> Sequence[str]:
        if not all(choices):
            raise EnvironmentSpecError(
                "the policy chooses among named options, but the environment names none",
                expected="a TextEnv, or an environment with an attribute `choices`",
                fix="wrap it in simtune.gym.TextEnv(env, actions=[...]); or decision: generate",
            )
        answers: Sequence[str] = policy.act(prompts, choices=choices)
        return answers

    return choose


def batched(policy: Policy) -> Act:
    """The policy as one call for many prompts, its answers checked.

    Raises:
        OptionError: now, where it is no policy; later, where its answers are no text or too few.
    """
    if isinstance(policy, BatchPolicy):
        answer = _acting(policy)
    elif callable(policy):
        single = policy

        def answer(prompts: list[Messages], choices: list[Choices]) -> Sequence[str]:
            return [single(prompt) for prompt in prompts]

    else:
        raise OptionError(
            "the policy cannot be asked",
            expected="a callable from messages to text, or an object with act(prompts)",
            got=type(policy).__name__,
        )

    def checked(prompts: list[Messages], choices: list[Choices]) -> Sequence[str]:
        answers = answer(prompts, choices)
        if len(answers) != len(prompts) or not all(isinstance(text, str) for text in answers):
            raise OptionError(
                "the policy's answers do not fit its prompts",
                expected=f"{len(prompts)} answers, each a str or simtune.Reply",
                got=f"{len(answers)} of {sorted({type(text).__name__ for text in answers})}",
            )
        return answers

    return checked
