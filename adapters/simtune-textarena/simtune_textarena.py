"""TextArena's games, played by policies and captured as simtune episodes.

One game is one episode per player, because each player sees its own prompts and gets its own
reward. The episodes of a game share `game_id` in their metadata.
"""

from __future__ import annotations

import contextlib
import difflib
import random
import time
import uuid
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import textarena

from simtune import Decision, Episode, Reply
from simtune.errors import EnvironmentSpecError, OptionError
from simtune.recording import EpisodeLog, open_episode
from simtune.records import Messages

__all__ = ["play"]

DECISION_POINT = "move"


@runtime_checkable
class BatchPolicy(Protocol):
    """A policy that answers many prompts at once, such as simtune's own."""

    def act(self, prompts: Sequence[Messages]) -> Sequence[str]:
        """Answer each prompt, in order."""


Policy: TypeAlias = Callable[[Messages], str] | BatchPolicy
"""`(messages) -> answer`, or an object with `act(prompts) -> answers`, which is preferred."""


def play(
    env_id_or_env: str | textarena.Env,
    policies: Policy | Sequence[Policy],
    *,
    episodes: int,
    seed: int = 0,
    root: str | None = None,
    run_id: str | None = None,
    max_decisions: int = 1000,
) -> list[Episode]:
    """Play games one after the other and capture every decision of every player.

    TextArena gives its rewards when the game is over; each player's goes to that player's last
    decision. A game that its own rules end, its turn limit included, is `terminated`. `success`
    in the outcome means a reward of at least 1, TextArena's value of a game won or solved.

    Args:
        env_id_or_env: a TextArena id, made anew for every game, or one environment.
        policies: one for a single-player game, or one for each of the two players; the same one
            twice is self-play.
        episodes: how many games.
        seed: game i is played with seed `seed + i`. The global `random`, from which TextArena
            draws, is left as it was found, so that a policy may use it too.
        root: directory of the store; None: the configured one.
        run_id: groups the episodes of one run.
        max_decisions: decisions after which a game is cut off, `truncated`.

    Returns:
        One episode per player and game: game 0 player 0, game 0 player 1, game 1 player 0, ...

    Raises:
        EnvironmentSpecError: no such game, or it is not for this many players.
        OptionError: a policy that cannot be asked, more than two of them, or a count below one.
    """
    players = list(policies) if isinstance(policies, Sequence) else [policies]
    _check(players, episodes=episodes, max_decisions=max_decisions)
    finished: list[Episode] = []
    for index in range(episodes):
        env = _make(env_id_or_env) if isinstance(env_id_or_env, str) else env_id_or_env
        game = _Game(env, players, seed + index)
        finished += game.play(root=root, run_id=run_id, max_decisions=max_decisions)
    return finished


def _check(players: list[Policy], **counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise OptionError(f"{name} is too small", expected="at least 1", got=value)
    if len(players) not in (1, 2):
        raise OptionError("wrong number of policies", expected="1 or 2", got=len(players))
    for policy in players:
        if not isinstance(policy, BatchPolicy) and not callable(policy):
            raise OptionError(
                "a policy cannot be asked",
                expected="a callable from messages to text, or an object with act(prompts)",
                got=type(policy).__name__,
            )


def _make(env_id: str) -> textarena.Env:
    known = textarena.envs.registration.ENV_REGISTRY
    if env_id not in known:
        close = difflib.get_close_matches(env_id, known, n=3)
        raise EnvironmentSpecError(
            f"TextArena has no game {env_id!r}",
            expected="an id such as GuessTheNumber-v0",
            fix=f"did you mean {' or '.join(close)}?" if close else None,
        )
    try:
        return textarena.make(env_id)
    except (ImportError, LookupError) as error:  # LookupError: NLTK's word lists are missing
        raise EnvironmentSpecError(f"TextArena cannot make {env_id!r}: {error}") from error


class _Game:
    """One game under way."""

    def __init__(self, env: textarena.Env, players: list[Policy], seed: int) -> None:
        self.env = env
        self.players = players
        self.seed = seed
        self.name = str(getattr(env, "env_id", type(env).__name__))
        self._random = random.Random(seed).getstate()
        self._reset()

    def _reset(self) -> None:
        wrapped: Any = self.env
        while isinstance(wrapped, textarena.Wrapper):
            # The observation wrappers never forget the game before; see their full_observations.
            if "full_observations" in vars(wrapped):
                wrapped.full_observations = {}
            wrapped = wrapped.env
        count = len(self.players)
        try:
            with self._own_random():
                self.env.reset(num_players=count, seed=self.seed)
        except AssertionError as error:
            raise EnvironmentSpecError(
                f"{self.name} is not for {count} player{'s' if count > 1 else ''}: {error}",
                fix="pass one policy for each player of the game",
            ) from error

    @contextlib.contextmanager
    def _own_random(self) -> Iterator[None]:
        """The global generator as this game left it; the caller's comes back afterwards."""
        callers = random.getstate()
        random.setstate(self._random)
        try:
            yield
        finally:
            self._random = random.getstate()
            random.setstate(callers)

    def play(self, *, root: str | None, run_id: str | None, max_decisions: int) -> list[Episode]:
        """Play to the end; gives each player's episode."""
        game_id = uuid.uuid4().hex
        with contextlib.ExitStack() as on_error:
            seats = []
            for number in range(len(self.players)):
                metadata = {"game_id": game_id, "player": number, "players": len(self.players)}
                log = open_episode(
                    env=self.name,
                    agent=f"player-{number}",
                    seed=self.seed,
                    run_id=run_id,
                    root=root,
                    **metadata,
                )
                on_error.push(log)
                episode = Episode(
                    episode_id=log.id,
                    run_id=run_id,
                    env=self.name,
                    agent_id=f"player-{number}",
                    metadata={"seed": self.seed, **metadata},
                )
                seats.append(_Seat(log, episode))
            over, mover, prompt = self._moves(seats, max_decisions)
            self._end(seats, over, mover, prompt)
        return [seat.episode for seat in seats]

    def _moves(self, seats: list[_Seat], max_decisions: int) -> tuple[bool, int, Messages]:
        """Ask and move until the game is over; says whether it is, and who would be asked next."""
        mover, prompt = self._observe()
        for made in range(1, max_decisions + 1):
            asked = time.perf_counter_ns()
            answer = self._ask(mover, prompt)
            latency_us = (time.perf_counter_ns() - asked) // 1000
            said_before = len(self.env.state.logs)
            with self._own_random():
                over, _ = self.env.step(answer)
            seats[mover].decide(
                prompt,
                answer,
                error=self._complaint(mover, said_before),
                terminated=over,
                truncated=made == max_decisions and not over,
                latency_us=latency_us,
            )
            if over:
                return True, mover, []
            mover, prompt = self._observe()
        return False, mover, prompt

    def _observe(self) -> tuple[int, Messages]:
        with self._own_random():
            player, observation = self.env.get_observation()
        if not isinstance(observation, str):  # a "-raw" game: (sender, text, kind) for each event
            observation = "\n".join(text for _, text, _ in observation)
        return player, [{"role": "user", "content": observation}]

    def _ask(self, mover: int, prompt: Messages) -> str:
        policy = self.players[mover]
        answer = policy.act([prompt])[0] if isinstance(policy, BatchPolicy) else policy(prompt)
        if not isinstance(answer, str):
            raise OptionError(
                f"the policy of player {mover} did not answer in text",
                expected="str or simtune.Reply",
                got=type(answer).__name__,
            )
        return answer

    def _complaint(self, mover: int, said_before: int) -> str | None:
        """Why the move just made was invalid; None where it was not.

        TextArena counts a first invalid move in `error_count`, which a valid one clears, and ends
        the game on the second with `invalid_move` in the game's info.
        """
        state = self.env.state
        if state.game_info[mover]["invalid_move"]:
            return str(state.game_info[mover].get("reason", "invalid move"))
        if not getattr(state, "error_count", 0):
            return None
        told = [text for sender, text in state.logs[said_before:] if sender == textarena.GAME_ID]
        return next((text for text in told if "invalid move" in text), "invalid move")

    def _end(self, seats: list[_Seat], over: bool, mover: int, prompt: Messages) -> None:
        rewards, game_info = self.env.close()
        for number, seat in enumerate(seats):
            seat.end(
                None if rewards is None else rewards.get(number),
                game_info[number],
                terminated=over,
                final_prompt=prompt if number == mover and not over else [],
            )


class _Seat:
    """One player's side of a game: its log, and the same as an `Episode`."""

    def __init__(self, log: EpisodeLog, episode: Episode) -> None:
        self.log = log
        self.episode = episode

    def decide(
        self,
        prompt: Messages,
        answer: str,
        *,
        error: str | None,
        terminated: bool,
        truncated: bool,
        latency_us: int,
    ) -> None:
        """Keep one decision."""
        decision = Decision(
            decision_id=self.log.decision(
                prompt,
                answer,
                action=DECISION_POINT,
                valid=error is None,
                error=error,
                terminated=terminated,
                truncated=truncated,
                latency_us=latency_us,
            ),
            agent_id=self.episode.agent_id,
            action=DECISION_POINT,
            step=len(self.episode.decisions),
            prompt=prompt,
            response=str(answer),
            valid=error is None,
            error=error,
            terminated=terminated,
            truncated=truncated,
            ts=time.time_ns() // 1000,
            latency_us=latency_us,
        )
        if isinstance(answer, Reply):
            decision.prompt_token_ids = list(answer.prompt_token_ids)
            decision.token_ids = list(answer.token_ids)
            decision.logprobs = array("f", answer.logprobs).tolist()
            decision.sampling = answer.sampling or {}
            decision.model, decision.adapter = answer.model, answer.adapter
        self.episode.decisions.append(decision)

    def end(
        self,
        reward: float | None,
        info: dict[str, Any],
        *,
        terminated: bool,
        final_prompt: Messages,
    ) -> None:
        """Give the last decision the game's reward, and close the episode."""
        episode = self.episode
        if episode.decisions:
            last = episode.decisions[-1]
            last.terminated, last.truncated = terminated, not terminated
            if reward is not None:
                last.reward = float(reward)
                self.log.reward(last.reward, decision=last.decision_id)
        episode.ended = True
        episode.terminated, episode.truncated = terminated, not terminated
        episode.final_prompt = final_prompt
        episode.outcome = {
            "success": reward is not None and reward >= 1,
            "return": 0.0 if reward is None else float(reward),
            "reason": str(info.get("reason", "")),
            "invalid_move": bool(info["invalid_move"]),
        }
        self.log.finish(
            terminated=terminated,
            truncated=not terminated,
            outcome=episode.outcome,
            final_prompt=final_prompt,
        )
