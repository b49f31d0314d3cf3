"""Options of `--follow`: those that need it, and those that it rules out."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from pathlib import Path

from simtune.errors import OptionError
from simtune.train.options import PPOOptions, SFTOptions, TrainOptions

ONLY_FOLLOWING = ("follow_timeout", "publish_every", "keep_published", "serve")
"""Options that nothing reads without `--follow`."""

ONLY_FOLLOWING_SFT = (
    "iterations",
    "episodes_per_iteration",
    "buffer_episodes",
    "buffer_temperature",
    "resume",
    "keep_checkpoints",
    "checkpoint_dir",
)
"""Those of sft."""

ONLY_FOLLOWING_PPO = ("max_staleness",)
"""Those of ppo."""


LOOPBACK = "127.0.0.1"
_SECONDS_FOR_A_PORT = 15.0


def check_following(options: TrainOptions) -> None:
    """Refuse options that contradict `--follow`, or that nothing reads without it.

    Raises:
        OptionError: one does, or there is no store to follow.
    """
    own = ONLY_FOLLOWING_PPO if isinstance(options, PPOOptions) else ONLY_FOLLOWING_SFT
    if not options.follow:
        for name in changed(options, (*ONLY_FOLLOWING, *own)):
            raise OptionError(
                f"{_flag(name)} is about following a store, and none is followed",
                fix=f"leave {_flag(name)} out, or give --follow with --store",
            )
        return
    if options.store is None:
        raise OptionError(
            "--follow learns from a store", expected="--store ROOT", fix="leave --follow out"
        )
    if Path(options.store).is_file():
        raise OptionError("the store is a file", expected="a directory", got=options.store)
    if options.serve:
        _check_port(options.serve)
    if isinstance(options, PPOOptions):
        _check_ppo(options)
    if isinstance(options, SFTOptions):
        _check_sft(options)


def _check_port(port: int) -> None:
    """The server of a trainer that was killed a moment ago may still be at its end."""
    until = time.monotonic() + _SECONDS_FOR_A_PORT
    while True:
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind((LOOPBACK, port))
                return
            except OSError as error:
                if time.monotonic() > until:
                    raise OptionError(
                        f"nothing can be served on port {port}",
                        got=error,
                        fix="--serve 0 takes a free port",
                    ) from error
        time.sleep(_SECONDS_FOR_A_PORT / 50)


def _check_ppo(options: PPOOptions) -> None:
    for name in changed(options, ("save_every", "keep")):
        raise OptionError(
            f"{_flag(name)} would change nothing: a followed store has a checkpoint and an adapter "
            "after every round",
            fix=f"leave {_flag(name)} out; --publish-every says how many rounds apart adapters are",
        )
    if options.lr_schedule != "constant" and options.iterations == 0:
        raise OptionError(
            "a learning rate cannot fall over rounds without an end",
            expected="--iterations N beside --lr-schedule linear",
        )


def _check_sft(options: SFTOptions) -> None:
    if options.top_fraction != SFTOptions().top_fraction:
        raise OptionError(
            "--top-fraction ranks all episodes of a store, and a followed one has no end",
            fix="leave it out; --min-score and --buffer-temperature prefer the better ones",
        )
    if options.episodes_per_iteration > options.buffer_episodes:
        raise OptionError(
            "a round would be larger than the buffer that it is drawn from",
            expected=f"--buffer-episodes of at least {options.episodes_per_iteration}",
            got=options.buffer_episodes,
        )


def changed(options: TrainOptions, names: Iterable[str]) -> list[str]:
    """Those of some options that differ from their defaults."""
    defaults = type(options)()
    return sorted(name for name in names if getattr(options, name) != getattr(defaults, name))


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
