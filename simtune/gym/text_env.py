"""`TextEnv`: an environment with named actions as text in, text out."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, SupportsFloat

from gymnasium import Env, Wrapper, spaces
from gymnasium.utils import RecordConstructorArgs

from simtune.errors import OptionError
from simtune.gym.actions import name_actions
from simtune.gym.history import History, checked_history
from simtune.gym.render import Render, default_view, environment_name, generic_text
from simtune.gym.space_text import check_readable
from simtune.records import Messages

_UNICODE_BLOCKS = (
    range(0xA0, 0x180),  # Latin with accents
    range(0x2010, 0x2060),  # dashes, quotes, ellipsis
    range(0x2190, 0x2200),  # arrows
    range(0x2500, 0x2700),  # box drawing, blocks, shapes, chess and card symbols
)
CHARSET = frozenset(string.printable) | {chr(code) for block in _UNICODE_BLOCKS for code in block}
"""Characters of the observation space, besides those of the action names."""

LONGEST_OBSERVATION = 65_536
LONGEST_ANSWER = 4_096


class TextEnv(Wrapper[str, str, Any, Any], RecordConstructorArgs):
    """A gymnasium environment whose observations and actions are text.

    An answer that names no action, or several, does not move the environment: the reward is 0,
    the observation is repeated with a sentence that says what was wrong, and `info["valid"]` is
    False. The `max_invalid`-th such answer in a row terminates the episode without success. It
    does not truncate it: a truncated episode is worth what its last state is worth, and a learner
    would find that talking nonsense is a way out of every bad state.

    With `history`, the chat for an observation begins with earlier turns: observations as the
    user's, answers as the assistant's, exactly as they were given to `step`. A `simtune.Reply`
    among them lets a policy go on from the tokens it sampled.

    `info` has, besides the environment's own: `valid`, `action` (the name the answer was read as,
    or None), `error` (why there is none, or None), `raw_observation`.

    Args:
        env: the environment to wrap.
        render: `(observation, unwrapped environment) -> text`; by default words for gymnasium's
            toy-text environments, and the numbers of the observation elsewhere.
        actions: names with their actions, or names in action order for a Discrete space. By
            default the names of the environment's documentation, else the actions' numbers.
        instructions: what is to be done; the list of legal answers is added to it.
        max_invalid: how many unusable answers in a row end the episode.
        charset: characters that the observations may hold besides `CHARSET`.
        history: earlier turns in the chat: none, the last n, or all ("full").

    Raises:
        OptionError: `max_invalid` or `history` cannot be used.
        EnvironmentSpecError: the actions have no names, or the observations no default text.
    """

    def __init__(
        self,
        env: Env[Any, Any],
        render: Render | None = None,
        actions: Mapping[str, Any] | Sequence[str] | None = None,
        instructions: str | None = None,
        *,
        max_invalid: int = 3,
        charset: str = "",
        history: History = 0,
    ) -> None:
        RecordConstructorArgs.__init__(
            self,
            _disable_deepcopy=True,
            render=render,
            actions=actions,
            instructions=instructions,
            max_invalid=max_invalid,
            charset=charset,
            history=history,
        )
        super().__init__(env)
        if max_invalid < 1:
            raise OptionError("max_invalid is too small", expected="at least 1", got=max_invalid)
        self.history = checked_history(history)
        view = default_view(env)
        self._base = env.unwrapped
        self._render = render or view.render
        if self._render is generic_text:
            check_readable(env.observation_space, environment_name(env))
        self._names = name_actions(
            env.action_space, view.actions if actions is None else actions, environment_name(env)
        )
        self._ask = f"Answer with one of: {self._names.listed}"
        task = view.task if instructions is None else instructions
        self.instructions = f"{task}\n{self._ask}" if task else self._ask
        self.max_invalid = max_invalid
        spoken = frozenset(string.printable) | set(self._names.listed)
        shown = CHARSET | set(self._ask) | set(charset)
        self.observation_space = spaces.Text(LONGEST_OBSERVATION, min_length=0, charset=shown)
        self.action_space = spaces.Text(LONGEST_ANSWER, min_length=0, charset=spoken)
        self._text = ""
        self._raw: Any = None
        self._info: dict[str, Any] = {}
        self._invalid_in_a_row = 0
        self._shown = ""
        self._turns: list[tuple[str, str]] = []

    @property
    def action_names(self) -> tuple[str, ...]:
        """The names of all actions, in action order."""
        return self._names.names

    @property
    def choices(self) -> tuple[str, ...]:
        """The names of the actions that are legal now, in action order.

        All of them, but where the environment gives an `info["action_mask"]` of a Discrete space.
        """
        return self._names.legal(self._info.get("action_mask"), self.env.action_space)

    def read(self, answer: str) -> Any:
        """The action that an answer stands for, or None."""
        name, _ = self._names.parse(answer)
        return None if name is None else self._names.actions[name]

    def messages(self, observation: str) -> Messages:
        """The chat that asks a model for its answer to an observation."""
        shown = self._turns if self.history == "full" else self._turns[-self.history or None :]
        chat = [{"role": "system", "content": self.instructions}]
        for seen, said in shown if self.history else ():
            chat += [{"role": "user", "content": seen}, {"role": "assistant", "content": said}]
        return [*chat, {"role": "user", "content": observation}]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start an episode; see `gymnasium.Env.reset`."""
        raw, info = self.env.reset(seed=seed, options=options)
        self._invalid_in_a_row = 0
        self._turns.clear()
        self._show(raw, info)
        return self._text, {
            **info,
            "valid": True,
            "action": None,
            "error": None,
            "raw_observation": raw,
        }

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take an answer; see the class for what happens to one that cannot be used."""
        if self.history:
            self._turns.append((self._shown, action))
        name, problem = self._names.parse(action)
        if name is None:
            return self._refuse(problem)
        self._invalid_in_a_row = 0
        raw, reward, terminated, truncated, info = self.env.step(self._names.actions[name])
        self._show(raw, info)
        info = {**info, "valid": True, "action": name, "error": None, "raw_observation": raw}
        return self._text, reward, terminated, truncated, info

    def _show(self, raw: Any, info: dict[str, Any]) -> None:
        self._raw, self._info = raw, info
        self._text = self._shown = self._render(raw, self._base)

    def _refuse(self, problem: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        self._invalid_in_a_row += 1
        # Copies: what an earlier call returned belongs to its caller.
        info = {
            **deepcopy(self._info),
            "valid": False,
            "action": None,
            "error": problem,
            "raw_observation": deepcopy(self._raw),
        }
        ended = self._invalid_in_a_row >= self.max_invalid
        if ended:
            info["is_success"] = False
        self._shown = f"{self._text}\n{problem[0].upper()}{problem[1:]}. {self._ask}"
        return self._shown, 0.0, ended, False, info
